"""Formats of installed packages: recognised by content, written by suffix; one that is broken hides no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Ran
from tests.plugins.conftest import Installed

GROUP = "weighttools.formats"
BROKEN: dict[str, tuple[str, str]] = {
    "imports": ("import nowhere", "cannot be loaded (ModuleNotFoundError: No module named 'nowhere')"),
    "exits": ("raise SystemExit(3)", "cannot be loaded (SystemExit: 3)"),
    "lacks": ("", "cannot be loaded (AttributeError: module 'broken_lacks' has no attribute 'FORMAT')"),
    "type": ("FORMAT = 3", "is of type int; expected a weighttools.formats.base.Format"),
    "suffix": (
        "from weighttools.formats.base import Format\nFORMAT = Format(bool, bool, suffixes='.b')",
        "has the suffixes '.b'; expected a tuple such as ('.toy',)",
    ),
}
RAISES = "from weighttools.formats.base import Format\nFORMAT = Format(lambda head: 1 / 0, bool, suffixes=('.b',))"


def rows(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0
    return {row["format"]: row for row in json.loads(ran.out)}


def test_formats_lists_what_a_package_adds(toy: Installed) -> None:
    ran = toy.weighttools("formats")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1].split() == ["toy", ".toy", "yes", "yes", "toy", "file", "(toy-weights", "1.0)"]
    assert rows(toy.weighttools("formats", "--json"))["toy"] == {
        "format": "toy", "what": "toy file (toy-weights 1.0)", "suffixes": [".toy"], "reads": True, "writes": True,
        "extra": "", "package": "toy-weights 1.0", "error": "",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["x.toy", "other.name", "bare", "x.npz"])
def test_a_file_is_recognised_by_its_content(toy: Installed, toy_file: Callable[..., Path], name: str) -> None:
    ran = toy.weighttools("inspect", "--json", toy_file(name))
    record = json.loads(ran.out)
    assert (record["format"], record["n_tensors"], record["metadata"]) == ("toy", 2, {"k": "v"})
    assert record["files"] == [record["path"]]
    assert record["notes"] == (["named .npz, but its content is toy: read as that"] if name == "x.npz" else [])


def test_standard_input_and_check(toy: Installed, toy_file: Callable[..., Path]) -> None:
    code = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-m', 'weighttools', *sys.argv[2:]], stdin=open(sys.argv[1])).returncode)"
    ran = toy.run("-c", code, toy_file(), "params", "-", "--json")
    assert json.loads(ran.out)["n_parameters"] == 6
    assert toy.weighttools("check", toy_file()) == (0, f"{toy_file()}: nothing found\n", "")


def test_convert_both_ways(toy: Installed, toy_file: Callable[..., Path], tmp_path: Path) -> None:
    source, there, back = toy_file(), tmp_path / "there.npz", tmp_path / "back.toy"
    assert toy.weighttools("convert", source, there).code == 0
    with np.load(there) as found:
        np.testing.assert_array_equal(found["a"], np.arange(6, dtype=np.float32).reshape(2, 3))
        assert found["n"].tolist() == [7]
    ran = toy.weighttools("convert", there, back)
    assert ran.code == 0 and ran.out == f"wrote {back}: toy, 2 tensors, 32 B\n"
    assert back.read_bytes() == source.read_bytes()
    assert toy.weighttools("convert", there, tmp_path / "named", "--to", "toy").code == 0
    assert (tmp_path / "named").read_bytes() == source.read_bytes()


def test_what_a_package_refuses_is_refused(toy: Installed, tmp_path: Path, make: Callable[..., Path]) -> None:
    ran = toy.weighttools("convert", make({"h": np.zeros(3, np.float16)}), tmp_path / "x.toy")
    assert ran == (2, "", "weighttools: toy holds no float16, as 'h' is; expected float32 or int64\n")


def test_broken_packages_are_named_and_hide_nothing(
    toy: Installed, toy_file: Callable[..., Path], tiny: Path, tmp_path: Path
) -> None:
    for kind, (code, _) in BROKEN.items():
        toy.add(f"bad-{kind}", {GROUP: {f"b{kind}": f"broken_{kind}:FORMAT"}}, code, f"broken_{kind}")
    lines = [
        f"bad-{kind} 1.0: its format 'b{kind}' {fact}; update or uninstall the package, or report this to its authors"
        for kind, (_, fact) in sorted(BROKEN.items())
    ]
    notes = "".join(f"weighttools: note: {line}\n" for line in lines)
    ran = toy.weighttools("formats", "--json")
    assert (ran.code, ran.err) == (0, notes)
    found = rows(ran)
    for kind, line in zip(sorted(BROKEN), lines, strict=True):
        assert (found[f"b{kind}"]["reads"], found[f"b{kind}"]["error"]) == (False, line)
    assert found["toy"]["reads"]
    ran = toy.weighttools("params", toy_file())
    assert (ran.code, ran.err) == (0, notes)
    assert toy.weighttools("params", tiny).err == ""
    ran = toy.weighttools("params", toy_file("y", b"????"))
    assert ran.code == 2 and ran.err.count("\n") == 1 and "of no known format" in ran.err
    assert all(line.partition(";")[0] in ran.err for line in lines[:1])
    ran = toy.weighttools("convert", tiny, tmp_path / "x.btype")
    assert (ran.code, ran.err) == (2, f"weighttools: {lines[sorted(BROKEN).index('type')]}\n")
    assert toy.weighttools("convert", tiny, tmp_path / "Model-0.5B").code == 0


def test_one_that_fails_at_a_file_is_passed_over(toy: Installed, toy_file: Callable[..., Path]) -> None:
    toy.add("aaa-broken", {GROUP: {"b": "broken:FORMAT"}}, RAISES, "broken")
    ran = toy.weighttools("params", toy_file())
    assert ran.code == 0
    assert "aaa-broken 1.0: its format 'b' fails at the first bytes of a file (ZeroDivisionError: " in ran.err


@pytest.mark.parametrize(
    ("read", "fact"),
    [
        ("lambda source, options: 1 / 0", "fails to read {} (ZeroDivisionError: division by zero)"),
        ("lambda source, options: {}", "reads a dict; expected a TensorMap"),
    ],
)
def test_one_that_cannot_read_its_file_is_one_line(
    installed: Installed, toy_file: Callable[..., Path], read: str, fact: str
) -> None:
    code = f"from weighttools.formats.base import Format\nFORMAT = Format(lambda head: head[:4] == b'TOYW', {read})"
    installed.add("broken", {GROUP: {"b": "broken:FORMAT"}}, code, "broken")
    ran = installed.weighttools("inspect", toy_file())
    assert ran.code == 2 and ran.err.startswith(f"weighttools: broken 1.0: its format 'b' {fact.format(toy_file())}; ")


LATE = """
import numpy as np
from weighttools.core.tensor import Spec, Tensor
from weighttools.core.dtypes import DTYPES
from weighttools.core.tensormap import TensorMap
from weighttools.formats.base import Format

class Reader:
    granularity = 1
    def __call__(self, start, stop):
        raise ZeroDivisionError("late")

def read(source, options):
    return TensorMap({"a": Tensor(Spec(DTYPES["float32"], (3,)), Reader())})

FORMAT = Format(lambda head: head[:4] == b"TOYW", read)
"""


def test_what_fails_at_the_values_is_blamed_on_its_package(
    installed: Installed, toy_file: Callable[..., Path], tmp_path: Path
) -> None:
    installed.add("broken", {GROUP: {"b": "broken:FORMAT"}}, LATE, "broken")
    for command in (["stats"], ["get", "-o", tmp_path / "a.npy"], ["convert"]):
        last = {"get": ["a"], "convert": [tmp_path / "x.npz"]}.get(str(command[0]), [])
        ran = installed.weighttools(command[0], toy_file(), *last, *command[1:])
        assert ran.code == 2
        assert ran.err.startswith("weighttools: broken 1.0: its format 'b' failed (ZeroDivisionError: late); update or")


def test_our_own_format_wins_over_one_of_its_name(toy: Installed, tiny: Path, tmp_path: Path) -> None:
    toy.add("aaa-npz", {GROUP: {"npz": "nowhere:FORMAT"}})
    assert toy.weighttools("convert", tiny, tmp_path / "x.npz").code == 0
    assert toy.weighttools("params", tmp_path / "x.npz").err == ""
    listed = [row for row in json.loads(toy.weighttools("formats", "--json").out) if row["format"] == "npz"]
    assert [row["reads"] for row in listed] == [True, False]
    assert listed[1]["what"] == "not used: weighttools has a format of this name (aaa-npz 1.0)"


def test_of_two_packages_the_first_by_name_wins(toy: Installed, toy_file: Callable[..., Path]) -> None:
    toy.add("zzz-weights", {GROUP: {"toy": "nowhere:FORMAT"}})
    assert toy.weighttools("params", toy_file()).err == ""
    listed = [row for row in json.loads(toy.weighttools("formats", "--json").out) if row["format"] == "toy"]
    assert [(row["reads"], row["package"]) for row in listed] == [(True, "toy-weights 1.0"), (False, "zzz-weights 1.0")]
    assert listed[1]["what"] == "not used: toy-weights 1.0 has a format of this name too (zzz-weights 1.0)"


def test_a_file_that_we_know_asks_no_package(toy: Installed, tiny: Path, tmp_path: Path) -> None:
    """Finding entry points takes as long as reading a header: nothing of it is even imported."""
    code = (
        "import os, sys\nos._exit = lambda code: (sys.stdout.flush(), sys.stderr.write(' '.join(sys.modules)), sys.exit(0))\n"
        "sys.argv = ['weighttools', *sys.argv[1:]]\nfrom weighttools.__main__ import run\nrun()"
    )
    target = tmp_path / "x.safetensors"
    for command in (["inspect", tiny], ["params", tiny], ["stats", tiny], ["convert", tiny, target], ["check", tiny]):
        loaded = set(toy.run("-c", code, *command).err.split())
        assert "weighttools.cli.exits" in loaded
        assert not loaded & {"weighttools.formats.plugins", "toy_weights", "toy_weights.format"}

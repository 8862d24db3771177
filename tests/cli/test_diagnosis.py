"""The commands that diagnose: every output format, exit codes, patterns, and what they say to wrong use."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

RNG = np.random.default_rng(11)


@pytest.fixture
def path(make: Callable[..., Path]) -> Path:
    """Two matrices, a vector, and metadata that loaders ask for."""
    arrays = {
        "a.weight": RNG.standard_normal((40, 30)),
        "b.weight": RNG.standard_normal((30, 20)),
        "b.bias": RNG.standard_normal(30),
    }
    return make({k: v.astype(np.float32) for k, v in arrays.items()}, "model.safetensors", format="pt")


@pytest.fixture
def damaged(make: Callable[..., Path]) -> Path:
    """One error (NaN), one warning (all zero)."""
    holed = RNG.standard_normal((20, 20)).astype(np.float32)
    holed[3, 4] = np.nan
    return make({"bad": holed, "zero": np.zeros((5, 5), np.float32)}, "damaged.safetensors", format="pt")


COMMANDS = {"estimate": "load", "spectrum": "tensors", "init-check": "layers"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_output_format(command: str, path: Path, inside: Callable[..., Any]) -> None:
    record = json.loads(inside(command, path, "--json").out)
    assert record["schema"] == f"weighttools.{command}/1" and record["path"] == str(path)
    n_rows = {"estimate": 6 + 12, "spectrum": 2, "init-check": 2}[command]
    assert len(record[COMMANDS[command]]) == (6 if command == "estimate" else n_rows)
    lines = inside(command, path, "--format", "jsonl").out.splitlines()
    rows = list(csv.DictReader(io.StringIO(inside(command, path, "--format", "csv").out)))
    markdown = inside(command, path, "--format", "markdown").out.splitlines()
    assert len(lines) == len(rows) == len(markdown) - 2 == n_rows
    assert list(json.loads(lines[0])) == list(rows[0])
    table = inside(command, path)
    assert table.code == 0 and len(table.out.splitlines()) >= n_rows + 2


@pytest.mark.parametrize("command", COMMANDS)
def test_patterns(command: str, path: Path, inside: Callable[..., Any]) -> None:
    record = json.loads(inside(command, path, "-i", "*.weight", "-x", "a.*", "--json").out)
    names = [row.get("name") for row in record[COMMANDS[command]]]
    assert names == ["b.weight"] if command != "estimate" else record["n_parameters"] == 600
    wrong = inside(command, path, "-i", "nothing*")
    assert wrong.code == 2 and "matches no tensor" in wrong.err and wrong.out == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_and_a_broken_file(command: str, tmp_path: Path, inside: Callable[..., Any]) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{nonsense.......")
    for name in ("gone.safetensors", "x.safetensors"):
        ran = inside(command, tmp_path / name)
        assert ran.code == 2 and ran.out == "" and len(ran.err.splitlines()) == 1


def test_check_exit_codes(path: Path, damaged: Path, inside: Callable[..., Any]) -> None:
    assert inside("check", path).code == inside("check", path, "--strict").code == 0
    assert "nothing found" in inside("check", path).out
    assert inside("check", damaged).code == 1
    assert inside("check", damaged, "-i", "zero").code == 0
    assert inside("check", damaged, "-i", "zero", "--strict").code == 1
    assert inside("check", damaged, "--headers", "--strict").code == 0
    assert inside("check").code == 2 and inside("check", path.parent / "gone.npz").code == 2


def test_check_tells_the_unreadable_from_the_bad(path: Path, damaged: Path, inside: Callable[..., Any]) -> None:
    """2 where there was nothing to check; 1 for errors found in what could be read, be it one tensor alone."""
    broken = path.parent / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:-7])
    assert inside("check", broken).code == inside("check", broken, "--strict", "--json").code == 2
    ran = inside("check", broken)
    assert ran.out == "" and ran.err.count("\n") == 1
    assert ran.err.startswith(f"weighttools: {broken}: truncated: 7 bytes") and ran.err.endswith(" [unreadable]\n")
    every = inside("check", broken, path, path.parent / "gone.npz")
    assert every.code == 2 and every.out == f"{path}: nothing found\n"
    assert [line.split(": ")[1] for line in every.err.splitlines()] == [str(broken), f"{path.parent}/gone.npz"]
    records = json.loads(inside("check", path, path.parent / "gone.npz", "--json").out)
    assert [record["path"] for record in records] == [str(path)]
    assert inside("check", path.parent / "gone.npz").code == inside("check", path, "-x", "*").code == 2
    assert inside("check", path, damaged).code == inside("check", damaged, path).code == 1
    assert inside("check", broken, damaged, path).code == inside("check", damaged, broken).code == 2
    archive = path.parent / "a.npz"
    np.savez_compressed(archive, good=np.ones(9), bad=np.arange(5000))
    data = bytearray(archive.read_bytes())
    data[data.index(b"bad.npy") + 200] ^= 255
    archive.write_bytes(data)
    ran = inside("check", archive)
    assert ran.code == 1 and "'bad' cannot be read" in ran.out


def test_check_takes_many_paths(path: Path, damaged: Path, inside: Callable[..., Any]) -> None:
    records = json.loads(inside("check", path, damaged, "--json").out)
    assert [record["path"] for record in records] == [str(path), str(damaged)]
    lines = inside("check", path, damaged).out.splitlines()
    assert lines[0] == f"{path}: nothing found" and lines[1] == f"{damaged}:" and "[nan]" in lines[2]
    rows = list(csv.DictReader(io.StringIO(inside("check", path, damaged, "--format", "csv").out)))
    assert {row["path"] for row in rows} == {str(damaged)} and len(rows) == 2


def test_check_output_formats(damaged: Path, inside: Callable[..., Any]) -> None:
    record = json.loads(inside("check", damaged, "--json").out)
    assert [(f["severity"], f["code"], f["tensor"]) for f in record["findings"]] == [
        ("error", "nan", "bad"),
        ("warning", "all-zero", "zero"),
    ]
    assert all(f["remedy"] for f in record["findings"])
    rows = list(csv.DictReader(io.StringIO(inside("check", damaged, "--format", "csv").out)))
    assert [row["code"] for row in rows] == ["nan", "all-zero"]
    assert "error: 1 of 400 values of 'bad' are NaN, first at [3, 4] [nan]" in inside("check", damaged).out
    assert len(inside("check", damaged, "--format", "jsonl").out.splitlines()) == 2


def test_codes_are_printed_from_one_table(inside: Callable[..., Any]) -> None:
    from weighttools.core.codes import CODES

    rows = json.loads(inside("check", "--codes", "--json").out)
    assert [row["code"] for row in rows] == list(CODES)
    table = inside("check", "--codes")
    assert table.code == 0 and all(code in table.out for code in CODES)
    assert len(inside("check", "--codes", "--format", "csv").out.splitlines()) == len(CODES) + 1


def test_against_prints_the_renaming(path: Path, make: Callable[..., Path], inside: Callable[..., Any]) -> None:
    from safetensors.numpy import load_file

    other = make({f"module.{k}": v for k, v in load_file(path).items()}, "other.safetensors", format="pt")
    ran = inside("check", other, "--against", path, "--headers")
    assert ran.code == 0 and "rename: 'module.' -> ''  (3 names)" in ran.out
    assert inside("check", other, "--against", path, "--headers", "--strict").code == 1
    [rule] = json.loads(inside("check", other, "--against", path, "--json").out)["against"]["rename"]
    assert rule == {"src": "module.", "dst": "", "n_names": 3, "pattern": r"^module\.", "replacement": ""}


@pytest.mark.parametrize(
    "rule",
    [
        lambda name: f"module.{name}",
        lambda name: name.removeprefix("model."),
        lambda name: name if name.startswith("lm_head") else name.replace("model.", "bert."),
        lambda name: name if name.startswith("lm_head") else f"a.{name}",
        lambda name: f"x=y's.{name}",
        lambda name: name.replace("model.enc", "re:e").replace("model.dec", "d"),
    ],
)
def test_the_command_that_against_prints_works(
    rule: Callable[[str], str], make: Callable[..., Path], inside: Callable[..., Any], tmp_path: Path
) -> None:
    """As it stands: split as a shell does, it gives a file with the other's names, and every value under its own."""
    names = [f"model.{part}.{i}.weight" for part in ("enc", "dec") for i in range(4)] + [
        "lm_head.weight",
        "lm_head.bias",
    ]
    arrays = {name: np.full((3, 2 + i), i, np.float32) for i, name in enumerate(names)}
    theirs = make(arrays, "theirs.safetensors")
    mine = make({rule(name): array for name, array in arrays.items()}, "my own.safetensors")
    [line] = [
        line
        for line in inside("check", mine, "--against", theirs, "--headers").out.splitlines()
        if line.startswith("weighttools ")
    ]
    assert inside(*shlex.split(line)[1:]).code == 0
    found = load_file(tmp_path / "my own-renamed.safetensors")
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


def test_fix_index_says_what_it_wrote(path: Path, tmp_path: Path, inside: Callable[..., Any]) -> None:
    home = tmp_path / "sharded"
    assert inside("convert", path, home, "--max-shard-size", "3KB").code == 0
    index = home / "model.safetensors.index.json"
    record = json.loads(index.read_text())
    record["metadata"]["total_size"] = 1
    index.write_text(json.dumps(record))
    assert "stale-total" in inside("check", home, "--strict").out
    ran = inside("check", home, "--fix-index", "--strict")
    assert ran.code == 0 and "written anew, 3 tensors" in ran.out


def test_wrong_options(path: Path, inside: Callable[..., Any]) -> None:
    for args in (["spectrum", path, "--ranks", "0"], ["spectrum", path, "--ranks", "x"], ["init-check", path, "--activation", "y"],
                 ["estimate", path, "--context", "0"], ["estimate", path, "--cache-dtype", "flot"]):  # fmt: skip
        assert inside(*args).code == 2

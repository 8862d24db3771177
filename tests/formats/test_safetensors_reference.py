"""`check` asks the reference library too, and says where it refuses what our reader takes."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

import weighttools as wt
from tests.conftest import clean_environment
from tests.hostile.test_costs import LIMIT

CODE = "reference-refuses"


def made(header: str | bytes, n_data: int = 0) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text)) + text + bytes(n_data)


# JSON has a minus before a zero, and it is an integer to Python; to the reference it is no size.
MINUS = made('{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}')


def refused(path: Path | str) -> str:
    with pytest.raises(SafetensorError) as caught:
        safe_open(path, "numpy")
    return str(caught.value)


def found(path: Path) -> list[dict[str, Any]]:
    return [finding for finding in wt.check(path)["findings"] if finding["code"] == CODE]


@pytest.fixture
def minus(tmp_path: Path) -> Path:
    path = tmp_path / "minus.safetensors"
    path.write_bytes(MINUS)
    return path


def test_what_the_reference_refuses_is_an_error_with_its_words(minus: Path) -> None:
    why = refused(minus)
    (finding,) = found(minus)
    assert (
        finding["severity"] == "error" and why in finding["message"] and safetensors.__version__ in finding["message"]
    )
    assert "convert" in finding["remedy"]


def test_the_remedy_helps(minus: Path, tmp_path: Path) -> None:
    wt.convert(minus, tmp_path / "new.safetensors")
    assert load_file(tmp_path / "new.safetensors")["a"].shape == (0,)
    assert found(tmp_path / "new.safetensors") == []


def test_command(minus: Path, run_cli: Any) -> None:
    done = run_cli("check", minus, "--headers")
    assert (done.code, done.err) == (1, "") and done.out.startswith("error: safetensors ") and f"[{CODE}]" in done.out
    assert CODE in run_cli("check", "--codes").out


@pytest.mark.parametrize("spooled", [True, False])
def test_standard_input(minus: Path, tmp_path: Path, spooled: bool) -> None:
    with minus.open("rb") as file:
        given: dict[str, Any] = {"input": MINUS} if spooled else {"stdin": file}
        command = [sys.executable, "-m", "weighttools", "check", "-"]
        done = subprocess.run(command, capture_output=True, env=clean_environment(tmp_path), **given)
    assert done.returncode == 1 and CODE.encode() in done.stdout


def test_every_shard_is_asked(tmp_path: Path) -> None:
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    save_file({"b": np.ones(3, np.float32)}, tmp_path / names[0])
    (tmp_path / names[1]).write_bytes(MINUS)
    index = {"metadata": {"total_size": 12}, "weight_map": {"b": names[0], "a": names[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert sorted(wt.open(tmp_path)) == ["a", "b"]
    (finding,) = found(tmp_path)
    assert finding["message"].startswith(f"{names[1]}: safetensors")


def test_what_both_refuse_is_said_once(tmp_path: Path, run_cli: Any) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(MINUS[:-3])
    refused(path)
    assert [finding["code"] for finding in wt.check(path)["findings"]] == ["unreadable"]
    assert run_cli("check", path).code == 2


def test_our_stricter_rules_stay(tmp_path: Path) -> None:
    record = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    path = tmp_path / "twice.safetensors"
    path.write_bytes(made(f'{{"a":{record},"a":{record}}}'))
    safe_open(path, "numpy")
    assert [finding["code"] for finding in wt.check(path)["findings"]] == ["unreadable"]


def test_good_files_are_taken(make: Any, tiny: Path) -> None:
    assert found(tiny) == found(make({"a": np.zeros((0, 3)), "b": np.array(1, np.float16)})) == []


class Panic(BaseException):
    """As pyo3's PanicException, which is no Exception either."""


@pytest.mark.parametrize("error", [Panic, ValueError])
def test_a_panic_is_a_finding(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: type[BaseException]
) -> None:
    def panics(*_: object) -> None:
        os.write(
            2,
            b"\nthread '<unnamed>' panicked at src/lib.rs:1:1:\nindex out of bounds\nnote: run with `RUST_BACKTRACE=1`\n",
        )
        raise error("index out of bounds\nsecond line")

    monkeypatch.setattr(safetensors, "safe_open", panics)
    (finding,) = found(tiny)
    assert finding["message"].endswith("refuses it: index out of bounds")
    assert capfd.readouterr() == ("", "")


HOSTILE = {
    "many tensors": made(
        "{" + ",".join(f'"{i:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(18_000)) + "}"
    ),
    "many axes": made('{"a":{"dtype":"U8","data_offsets":[0,1],"shape":[' + ",".join(["1"] * 480_000) + "]}}", 1),
    "much metadata": made('{"__metadata__":{' + ",".join(f'"{i:x}":""' for i in range(90_000)) + "}}"),
    "deep": made('{"a":' * 190_000),
    "a large claim": made('{"a":{"dtype":"F64","shape":[1099511627776],"data_offsets":[0,8796093022208]}}'),
}


PEAK = """
import resource, sys, weighttools as wt
for path in sys.argv[1:]:
    wt.check(path, headers=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_hostile_headers_take_little_memory(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(len(HOSTILE))]
    for path, data in zip(paths, HOSTILE.values(), strict=True):
        path.write_bytes(data)
    child = (
        f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {PEAK!r}, *sys.argv[1:]]).returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", child, *paths], env=clean_environment(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < LIMIT


@pytest.mark.parametrize("command", ["inspect", "stats"])
def test_other_verbs_do_not_load_it(command: str, tiny: Path, tmp_path: Path) -> None:
    from tests.test_imports import RUN, loaded

    assert "safetensors" not in loaded(RUN, tmp_path, command, tiny)

"""Bytes behind what a format reads: a finding, whatever the format; its own library reads the file all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import weighttools as wt

torch = pytest.importorskip("torch")

STATE = {"a": np.arange(12, dtype="f4"), "b": np.ones((3, 5), "f4")}


def pt(path: Path, **options: bool) -> Callable[[], object]:
    torch.save({name: torch.from_numpy(array) for name, array in STATE.items()}, path, **options)
    return lambda: torch.load(path, weights_only=True)


def h5(path: Path) -> Callable[[], object]:
    with h5py.File(path, "w") as file:
        for name, array in STATE.items():
            file[name] = array
    return lambda: h5py.File(path)["a"][:]


def gguf(path: Path) -> Callable[[], object]:
    reader = pytest.importorskip("gguf").GGUFReader
    wt.save(path, wt.TensorMap.from_arrays(STATE))
    return lambda: reader(path)


def npy(path: Path) -> Callable[[], object]:
    np.save(path, STATE["a"])
    return lambda: np.load(path)


WRITERS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "a.pt": pt,
    "legacy.pt": lambda path: pt(path, _use_new_zipfile_serialization=False),
    "a.h5": h5,
    "a.gguf": gguf,
    "a.npy": npy,
}


@pytest.mark.parametrize("name", WRITERS)
def test_bytes_behind_the_end_are_found(name: str, tmp_path: Path) -> None:
    load = WRITERS[name](tmp_path / name)
    assert "trailing-bytes" not in [f["code"] for f in wt.check(tmp_path / name)["findings"]]
    with open(tmp_path / name, "ab") as file:
        file.write(b"behind the end")
    load()
    [finding] = [f for f in wt.check(tmp_path / name)["findings"] if f["code"] == "trailing-bytes"]
    assert finding["severity"] == "warning" and "14 bytes follow" in finding["message"]
    assert len(wt.open(tmp_path / name)) == (1 if name == "a.npy" else 2)


@pytest.mark.parametrize("suffix", [".safetensors", ".msgpack"])
def test_formats_whose_own_readers_refuse_them(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".msgpack":
        serialization = pytest.importorskip("msgpack")
        path.write_bytes(serialization.packb({"a": 1}))
    else:
        wt.save(path, wt.TensorMap.from_arrays(STATE))
    path.write_bytes(path.read_bytes() + b"behind")
    assert [f["code"] for f in wt.check(path)["findings"]] == ["unreadable"]

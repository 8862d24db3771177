"""What a fuzzer does with bytes: read them as a file of a format, then ask everything of it that a command would.

Anything but a `WeighttoolsError` that comes out of `attack` is a fault, and so is a line that is not printable.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import weighttools as wt
from tests.conftest import ROOT
from weighttools import formats
from weighttools.core.tensormap import TensorMap
from weighttools.core.tree import outline
from weighttools.errors import WeighttoolsError
from weighttools.formats import members_check
from weighttools.io.source import Bytes
from weighttools.write.plan import plan

MOST_TENSORS = 12
MOST_BYTES = 64 << 20
"""Tensors larger than this are not read here: a small file may hold a large one (deflated, or expanded)."""


class Target(NamedTuple):
    """A name for the file, what to put around the fuzzer's bytes, and where seeds are."""

    file: str
    wrap: Callable[[bytes], bytes]
    seeds: str
    unwrap: Callable[[bytes], bytes]


def _same(data: bytes) -> bytes:
    return data


def _repeated(data: bytes) -> bytes:
    """Put bytes behind an array, and again behind themselves."""
    file = io.BytesIO()
    np.save(file, np.arange(3.0))
    return file.getvalue() + data + data


def _deflated(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/data/0", bytes(range(96)))
        archive.writestr("a/data/1", bytes(256))
    return file.getvalue()


def _zipped(**members: bytes | None) -> Callable[[bytes], bytes]:
    """Put bytes into an archive as the member that is None."""

    def wrap(data: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, data if content is None else content)
        return file.getvalue()

    return wrap


def _member(suffix: str) -> Callable[[bytes], bytes]:
    """Take the first member with this suffix out of an archive."""

    def unwrap(data: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return next((archive.read(name) for name in archive.namelist() if name.endswith(suffix)), b"")

    return unwrap


_torch = _zipped(**{"a/data.pkl": None, "a/version": b"3\n", "a/data/0": bytes(range(96)), "a/data/1": bytes(256)})

TARGETS = {
    "safetensors": Target("f.safetensors", _same, "safetensors/*/*.safetensors", _same),
    "npy": Target("f.npy", _same, "npy/*.npy", _same),
    "npy_stream": Target("f.eqx", _repeated, "npy/*.npy", _same),
    "npz": Target("f.npz", _same, "npz/*.npz", _same),
    "npz_member": Target("f.npz", _zipped(**{"w.npy": None}), "npy/*.npy", _same),
    "pytorch": Target("f.pt", _same, "pytorch/*", _same),
    "pytorch_pickle": Target("f.pt", _torch, "pytorch/*t", _member("data.pkl")),
    "pytorch_deflated": Target("f.pt", _deflated, "pytorch/*t", _member("data.pkl")),
    "flax": Target("f.msgpack", _same, "flax/*.msgpack", _same),
    "onnx": Target("f.onnx", _same, "onnx/*.onnx", _same),
    "gguf": Target("f.gguf", _same, "gguf/*.gguf", _same),
    "hdf5": Target("f.h5", _same, "hdf5/*.h5", _same),
    "keras": Target("f.keras", _same, "hdf5/*.keras", _same),
}


def seeds(name: str) -> list[bytes]:
    """Return what to begin with: the fixtures of a format, unwrapped."""
    target = TARGETS[name]
    files = sorted((ROOT / "fixtures").glob(target.seeds))
    return [seed for seed in (target.unwrap(file.read_bytes()) for file in files) if seed]


def corpus(name: str) -> list[Path]:
    """Return the inputs kept for a target."""
    return sorted((ROOT / "tests" / "fuzz" / "corpus" / name).glob("*"))


def attack(name: str, data: bytes) -> bool:
    """Do all that the commands do with one input; return whether it opened.

    Raises
    ------
    Exception
        Whatever but a `WeighttoolsError` the package lets through, which it must not.
    """
    target = TARGETS[name]
    source = Bytes(target.wrap(data), target.file)
    _refused(lambda: [str(finding.record()) for finding in formats.check_file(source)])
    _refused(lambda: [str(finding.record()) for finding in members_check.check(source)])
    try:
        tensor_map = formats.read_file(source)
    except WeighttoolsError as error:
        _check_line(error)
        return False
    _refused(lambda: json.dumps(wt.inspect(tensor_map), allow_nan=False))
    _refused(lambda: json.dumps(wt.inspect(tensor_map, layout=True), allow_nan=False))
    _refused(lambda: wt.params(tensor_map, by="module"))
    _refused(lambda: list(outline(tensor_map, None)))
    for dst in ("x.safetensors", "x.npz", "x.pt", "x.gguf", "x.h5", "x.msgpack", "x/"):
        _refused(lambda dst=dst: plan(tensor_map, dst).record)  # type: ignore[misc]
    _read_some(tensor_map)
    return True


def _read_some(tensor_map: TensorMap) -> None:
    for tensor in list(tensor_map.values())[:MOST_TENSORS]:
        if tensor.spec.nbytes <= MOST_BYTES:
            _refused(lambda tensor=tensor: tensor.read())  # type: ignore[misc]


def _refused(action: Callable[[], object]) -> None:
    try:
        action()
    except WeighttoolsError as error:
        _check_line(error)


def _check_line(error: WeighttoolsError) -> None:
    assert str(error).isprintable(), "a line for the terminal is not printable"

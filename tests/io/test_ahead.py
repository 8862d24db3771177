"""Reading ahead: what is brought, how far, and that nothing ever depends on it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighttools as wt
from weighttools.core.dtypes import DTYPES
from weighttools.core.readers import Held
from weighttools.core.spec import Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.errors import SourceError
from weighttools.io import ahead
from weighttools.io.progress import silent
from weighttools.io.source import Bytes, LocalFile

linux = pytest.mark.skipif(sys.platform != "linux", reason="there is nothing like it elsewhere")


def tensors_of(source: object, *spans: tuple[int, int]) -> list[Tensor]:
    """Tensors of int8 at the given places."""
    return [Tensor(Spec(DTYPES["int8"], (n,)), None, Span(source, at, n)) for at, n in spans]  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> LocalFile:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(1 << 20))
    return LocalFile(path)


def test_runs_are_joined_and_cut(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "STEP", 1000)
    held = Tensor(Spec(DTYPES["float32"], (5,)), Held(np.zeros(5, np.float32)))
    packed = Tensor(Spec(DTYPES["float32"], (32,), "q8_0"), Held(np.zeros(32)), Span(file, 90_000, 34))
    other = tensors_of(Bytes(bytes(9)), (0, 9))
    tensors = [*tensors_of(file, (10, 100), (110, 300), (500, 2500)), held, *other, *tensors_of(file, (9, 1)), packed]
    runs = [run for run in ahead._runs(tensors) if run.n_bytes]
    assert [(run.start, run.stop, run.n_bytes) for run in runs if run.source is file] == [
        (10, 410, 400), (500, 1500, 1000), (1500, 2500, 1000), (2500, 3000, 500), (9, 10, 1), (90_000, 90_034, 128),
    ]  # fmt: skip
    assert sum(run.n_bytes for run in runs) == sum(tensor.spec.nbytes for tensor in tensors)


@linux
def test_it_stays_within_its_distance(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    brought: list[int] = []
    monkeypatch.setattr(ahead, "_bring", lambda fd, null, run: brought.append(run.stop))
    for name, value in (("STEP", 1000), ("DISTANCE", 5000), ("WORTH", 1)):
        monkeypatch.setattr(ahead, name, value)
    done: list[int] = []

    def settled(n: int) -> bool:
        deadline = time.monotonic() + 60
        while len(brought) < n and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        return len(brought) == n

    with ahead.reading_ahead(tensors_of(file, (0, 100_000)), 100_000, done.append) as told:
        assert settled(5)
        told(2500)
        assert settled(8)
        told(500)
        told(0)
        assert settled(8)
    assert done == [2500, 500, 0] and brought == [1000 * i for i in range(1, 9)]


@linux
def test_what_is_brought_is_there(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page can be read without waiting, after the file was dropped from the cache."""
    monkeypatch.setattr(ahead, "WORTH", 1)
    fd = os.open(file.path, os.O_RDWR)

    def is_there(offset: int) -> bool:
        try:
            return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False

    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        with ahead.reading_ahead(tensors_of(file, (0, 5000), (5000, file.size - 5000)), file.size, silent):
            deadline = time.monotonic() + 60
            while not all(map(is_there, range(0, file.size, 4096))):
                assert time.monotonic() < deadline
                time.sleep(0.005)
    finally:
        os.close(fd)


@linux
@pytest.mark.parametrize("fault", ["changed", "no sendfile", "no preadv flags"])
def test_faults_are_left_to_who_reads(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the thread is heard; a fault of the file is told by the read that needs it."""
    values = {"w": np.arange(1 << 16, dtype=np.float32)}
    save_file(values, tmp_path / "m.safetensors")
    tensor_map = wt.open(tmp_path / "m.safetensors")
    monkeypatch.setattr(ahead, "WORTH", 1)

    def refused(*args: object) -> int:
        raise OSError(95, "Operation not supported")

    if fault == "changed":
        tensor_map["w"].stored.source.close()  # type: ignore[union-attr]
        (tmp_path / "m.safetensors").write_bytes(b"another")
        with pytest.raises(SourceError, match="changed since"):
            wt.stats(tensor_map)
        return
    monkeypatch.setattr(os, "sendfile" if fault == "no sendfile" else "preadv", refused)
    if fault == "no sendfile":
        os.posix_fadvise(tensor_map["w"].stored.source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # type: ignore[union-attr]
        assert wt.stats(tensor_map)["total"]["max"] == 65535
    else:
        with ahead.reading_ahead(tensor_map.values(), 1 << 18, silent) as told:
            told(1 << 18)


def test_a_few_bytes_start_no_thread(file: LocalFile) -> None:
    with ahead.reading_ahead(tensors_of(file, (0, 1000)), 1000, silent) as told:
        assert told is silent


def test_other_systems_do_without(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with ahead.reading_ahead(tensors_of(file, (0, file.size)), 1 << 40, silent) as told:
        assert told is silent

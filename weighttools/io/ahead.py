"""Reading ahead: a thread brings what is needed next from the disk while other threads, or imports, compute.

Worker threads that read pieces of one file side by side look to the kernel like random reads, so it reads ahead too
little. One thread that goes through the file in order, a bounded distance before them, keeps the disk busy. It sends
the file to the null device: the pages come into the kernel's cache in large runs, and not one byte is copied.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from weighttools.core.tensor import Tensor
from weighttools.io.progress import Progress
from weighttools.io.source import LocalFile

DISTANCE = 1 << 27
"""Bytes of tensors that are brought at most before they are used: a tenth of a second of a fast disk."""

STEP = 1 << 24
"""Bytes brought by one call, during which no other thread waits for this one."""

WORTH = 1 << 24
"""Tensors of fewer bytes in all are read before a thread has started."""

_GAP = 4096
"""Runs no further apart are brought together."""


@contextmanager
def reading_ahead(tensors: Iterable[Tensor], n_bytes: int, progress: Progress) -> Iterator[Progress]:
    """Bring tensors into the system's cache, in order, while they are used; on other systems than Linux do nothing.

    Parameters
    ----------
    tensors
        In the order of their use; taken as they are needed.
    n_bytes
        Of all of them together: a few are not worth it.
    progress
        To be told what is told of progress: the bytes of tensors, in their dtypes, that were just done.

    Yields
    ------
    Progress
        What to tell of progress, instead of `progress`.
    """
    if n_bytes < WORTH or sys.platform != "linux":
        yield progress
        return
    pump = _Pump(tensors)
    pump.start()

    def told(n: int) -> None:
        pump.used(n)
        progress(n)

    try:
        yield told
    finally:
        pump.stop()


@contextmanager
def planned_reading(tensors: Sequence[Tensor], planned: Progress, progress: Progress) -> Iterator[Progress]:
    """Tell `planned` how many bytes of tensors are going to be read, and read ahead of them as `reading_ahead` does."""
    n_bytes = sum(tensor.spec.nbytes for tensor in tensors)
    planned(n_bytes)
    with reading_ahead(tensors, n_bytes, progress) as told:
        yield told


class _Pump(threading.Thread):
    """Goes through the files of tensors, at most `DISTANCE` before their use."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__(name="weighttools-ahead", daemon=True)
        self._tensors = tensors
        self._left = DISTANCE
        self._changed = threading.Condition()
        self._stopped = False

    def used(self, n_bytes: int) -> None:
        """Say that so many bytes more have been used."""
        with self._changed:
            self._left += n_bytes
            self._changed.notify()

    def stop(self) -> None:
        """End it, after the call that it is in."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def run(self) -> None:
        """Bring what is needed; any failure ends it: whoever needs the bytes will meet the same, and tell."""
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            stack.callback(os.close, null)
            files: dict[LocalFile, int] = {}
            for run in _runs(self._tensors):
                if not self._granted(run.n_bytes):
                    return
                if run.source is None:
                    continue
                if run.source not in files:
                    files[run.source] = _own(run.source)
                    stack.callback(os.close, files[run.source])
                _bring(files[run.source], null, run)

    def _granted(self, n_bytes: int) -> bool:
        """Wait until so many bytes more are within the distance; whether to go on."""
        with self._changed:
            self._changed.wait_for(lambda: self._left > 0 or self._stopped)
            self._left -= n_bytes
            return not self._stopped


class _Run(NamedTuple):
    """Bytes `start` to `stop` of a file (None: of none), and the bytes of the tensors that they hold."""

    source: LocalFile | None
    start: int
    stop: int
    n_bytes: int


def _runs(tensors: Iterable[Tensor]) -> Iterator[_Run]:
    """Yield the runs of tensors, neighbours joined up to `STEP`."""
    last = _Run(None, 0, 0, 0)
    for run in _parts(tensors):
        is_near = run.source is last.source and last.stop <= run.start <= last.stop + _GAP
        if is_near and run.stop - last.start <= STEP:
            last = _Run(run.source, last.start, run.stop, last.n_bytes + run.n_bytes)
        else:
            yield last
            last = run
    yield last


def _parts(tensors: Iterable[Tensor]) -> Iterator[_Run]:
    """Yield where tensors lie in files, large ones in parts."""
    for tensor in tensors:
        source, offset, length = tensor.stored[:3] if tensor.stored else (None, 0, 0)
        if not isinstance(source, LocalFile):
            yield _Run(None, 0, 0, tensor.spec.nbytes)
            continue
        for first in range(0, length, STEP):
            n = min(STEP, length - first)
            yield _Run(source, offset + first, offset + first + n, tensor.spec.nbytes * n // length)


def _own(source: LocalFile) -> int:
    """Open the same file once more: read-ahead belongs to an open file, and that of the workers' is not to be upset."""
    fd = os.open(f"/proc/self/fd/{source.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return fd


def _bring(fd: int, null: int, run: _Run) -> None:
    """Bring a run into the cache, unless its last byte is there already."""
    at = run.start
    try:
        os.preadv(fd, [bytearray(1)], run.stop - 1, os.RWF_NOWAIT)
    except BlockingIOError:
        while at < run.stop and (n := os.sendfile(null, fd, at, run.stop - at)):
            at += n

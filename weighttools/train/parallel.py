"""Row-parallel, cache-blocked execution of in-place NumPy kernels (NumPy drops the GIL inside each of them).

Two crews can want the cores: ours, and OpenBLAS's, whose threads spin after each product. Small models are quickest
when OpenBLAS cuts its products (a millisecond each, handed over in microseconds); large ones when it keeps to one
thread and we cut everything. `threads_for` chooses.
"""

from __future__ import annotations

import contextvars
import functools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.core import blas

if TYPE_CHECKING:
    from weighttools.core.spec import Array

BLOCK = 1 << 18
"""Elements a kernel handles at once: a MiB of float32. With fewer, threads wait for the interpreter's lock, which
costs more than the second-level cache saves."""
SPLIT = 1 << 18
"""Fewer elements than this are not worth a second thread: NumPy takes 0.5 to 2 nanoseconds for each."""
CHEAP = 1 << 19
"""As `SPLIT`, for kernels of a sweep or two: a thread is handed work, and the lock between them, in 50 to 100
microseconds."""
LARGE = 1 << 22
"""Models of so many parameters are large."""

_local = threading.local()


def n_threads() -> int:
    """Return how many threads kernels use: WEIGHTTOOLS_THREADS, or the cores this process may run on."""
    return _crew().n_threads


def scratch(shape: tuple[int, ...], count: int, dtype: Any) -> list[Array]:
    """Return `count` uninitialised arrays that belong to this thread, and hold until its next call of scratch."""
    size = math.prod(shape)
    buffers: list[Array] = _local.__dict__.setdefault(np.dtype(dtype).char, [])
    buffers += [np.empty(0, dtype) for _ in range(count - len(buffers))]
    for i in range(count):
        if buffers[i].size < size:
            buffers[i] = np.empty(size, dtype)
    return [buffer[:size].reshape(shape) for buffer in buffers[:count]]


@contextmanager
def threads_for(params: Iterable[Array]) -> Iterator[None]:
    """Give the cores to our own threads if the model is large, inside this context; it may be nested."""
    if n_threads() > 1 and sum(math.prod(p.shape) for p in params) >= LARGE:
        with blas.one_thread():
            yield
    else:
        yield


def blocks(n_rows: int, row_elements: int = 1, target: int = BLOCK, split: int = SPLIT) -> list[tuple[int, int]]:
    """Cut rows into (start, stop) of about `target` elements, and, from `split` on, into equally many a thread.

    While OpenBLAS has its own threads, which may be spinning, it takes twice as much.
    """
    step = max(1, target // max(1, row_elements))
    if n_rows * row_elements > split * (1 if blas.is_single() else 2):
        n = -(-n_rows // step)
        step = max(1, -(-n_rows // (n + -n % n_threads())))
    return [(start, min(n_rows, start + step)) for start in range(0, n_rows, step)]


def added(a: Array, b: Array, out: Array | None = None) -> Any:
    """Return ``a + b``, in `out` if that is given, on all threads if both are plain and large."""
    if np.size(a) < CHEAP or a.shape != b.shape or not (a.flags.c_contiguous and b.flags.c_contiguous):
        return np.add(a, b, out=out)
    y = np.empty(a.shape, np.result_type(a, b)) if out is None else out
    flat_a, flat_b, flat_y = a.reshape(-1), b.reshape(-1), y.reshape(-1)

    def kernel(start: int, stop: int) -> None:
        np.add(flat_a[start:stop], flat_b[start:stop], out=flat_y[start:stop])

    spread(kernel, blocks(a.size, split=CHEAP))
    return y


def spread(kernel: Callable[..., object], spans: Sequence[tuple[Any, ...]]) -> None:
    """Call ``kernel(*span)`` for every span, on all threads; the caller's thread works too.

    The results must not depend on the order. An exception of any span is raised here, once all have ended. Threads
    compute in the caller's context, so that its `numpy.errstate` holds for them.
    """
    crew = _crew()
    if crew.n_threads == 1 or len(spans) < 2 or getattr(_local, "working", False):
        for span in spans:
            kernel(*span)
    elif blas.is_single():  # for as long as the model runs; asking again takes microseconds
        crew.run(kernel, spans)
    else:
        with blas.one_thread():
            crew.run(kernel, spans)


class _Crew:
    """Threads that wait for work, each at a queue of its own."""

    def __init__(self) -> None:
        self.n_threads = int(os.environ.get("WEIGHTTOOLS_THREADS") or _n_cores())
        self.queues: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(self.n_threads - 1)]
        for queue in self.queues:
            threading.Thread(target=_work, args=(queue,), daemon=True, name="weighttools-train").start()

    def run(self, kernel: Callable[..., object], spans: Sequence[tuple[Any, ...]]) -> None:
        done: SimpleQueue[BaseException | None] = SimpleQueue()
        n = min(self.n_threads, len(spans))
        for k in range(1, n):
            self.queues[k - 1].put((contextvars.copy_context(), kernel, spans[k::n], done))
        try:
            for span in spans[::n]:
                kernel(*span)
        finally:
            errors = [error for error in (done.get() for _ in range(n - 1)) if error]
        if errors:
            raise errors[0]


def _work(queue: SimpleQueue[Any]) -> None:
    _local.working = True
    while True:
        context, kernel, spans, done = queue.get()
        try:
            for span in spans:
                context.run(kernel, *span)
            done.put(None)
        except BaseException as error:
            done.put(error)
        del context, kernel, spans, done  # an idle thread must not keep arrays alive


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _crew() -> _Crew:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_crew.cache_clear)  # threads do not survive a fork
    return _Crew()

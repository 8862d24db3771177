"""Where work runs: an ordered, lazy, bounded map over serial code, threads or any Executor."""

from __future__ import annotations

import gc
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

T = TypeVar("T")
R = TypeVar("R")


WORTH_THREADS_BYTES = 1 << 24
"""Below this size one thread is done before others have started."""


def n_threads() -> int:
    """Return how many threads are worth starting: the CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(fn: Callable[[T], R], items: Iterable[T], executor: Executor | None = None, window: int = 4) -> Iterator[R]:
    """Yield ``fn(item)`` for each item, in order.

    Parameters
    ----------
    fn
        The work; for a process pool it must pickle.
    items
        Taken lazily.
    executor
        Any `concurrent.futures.Executor`; None runs in this thread.
    window
        How many results may be under way or waiting: this bounds memory.
    """
    if executor is None:
        yield from map(fn, items)
        return
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(fn, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


@contextmanager
def threads(n: int | None = None) -> Iterator[Executor | None]:
    """Give a thread pool of `n` threads (default: one a CPU), or None where one thread is all there is."""
    count = n_threads() if n is None else n
    if count <= 1:
        yield None
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(count) as pool:
        yield pool


def window_for(n: int | None = None) -> int:
    """Return how many results of `run` may be under way for `n` threads: each has one in hand and one to come."""
    return 2 * (n or n_threads()) + 2


@contextmanager
def threads_for(n_bytes: int, n: int | None = None) -> Iterator[Executor | None]:
    """Give a thread pool as `threads` does, or None where there is too little to read for threads to be worth it."""
    with threads(1 if n_bytes < WORTH_THREADS_BYTES else n) as pool:
        yield pool


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the cyclic garbage collector: building 100,000 small objects that all live on, it only costs time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

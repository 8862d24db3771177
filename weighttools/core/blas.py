"""Who has the cores: BLAS, or threads of ours that call it; its own threads are held by the package threadpoolctl.

After a product OpenBLAS's threads spin for some 25 ms, waiting for the next; other threads that want the cores
meanwhile slow down by a third. Its libraries are found once and their numbers of threads set one by one, which takes
7 microseconds there and back; `threadpoolctl.threadpool_limits` looks for them each time and takes half a millisecond.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from weighttools.core import engine

T = TypeVar("T")
R = TypeVar("R")

_lock = threading.Lock()
_inside = 0
"""How many now want one thread."""
_before: list[tuple[Any, int]] = []
"""The libraries that had more, each with how many; set back by whoever leaves last."""
_held = False


def over(fn: Callable[[T], R], items: Iterable[T], threads: int | None = None) -> Iterator[R]:
    """Yield ``fn(item)`` for each item, in order: by `threads` threads of ours (default: one a CPU).

    One after another where BLAS has threads of its own that cannot be held: threads of both kinds would fight.
    """
    with one_thread() as is_held:
        n = threads if is_held or not _libraries() else 1
        with engine.threads(n) as pool:
            yield from engine.run(fn, items, pool, 2 * (n or engine.n_threads()))


@contextmanager
def one_thread() -> Iterator[bool]:
    """Let each BLAS call stay in the thread that makes it; yields whether that could be had. May be nested.

    The setting is the process's; whoever leaves last puts it back, in whichever thread. False where no OpenBLAS has
    threads that all of the process share (Accelerate has no such number, MKL and OpenMP keep one for each thread), and
    where someone else has claimed them.
    """
    global _inside
    with _lock:
        if not _inside:
            _hold()
        _inside += 1
    try:
        yield _held
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _release()


def is_single() -> bool:
    """Whether BLAS calls stay in one thread because someone asked for it."""
    return _held


def _hold() -> None:
    global _held
    shared = [library for library in _libraries() if _is_shared(library)]
    _held = bool(shared)
    for library in shared:
        n = library.get_num_threads()
        if n == 1:
            continue
        library.set_num_threads(1)
        if library.get_num_threads() == 1:
            _before.append((library, n))
        else:  # another thread of the process has claimed it
            _held = False


def _release() -> None:
    """Put back what `_hold` changed.

    threadpoolctl from 3.8 on obeys only the thread that set a number first, and does nothing for another one; so the
    claim is given up, before for us and after for others.
    """
    global _held
    for library, n in _before:
        give_up = getattr(library, "clear_controlling_thread", lambda force: None)
        give_up(force=True)
        library.set_num_threads(n)
        give_up(force=True)
    _before.clear()
    _held = False


def _is_shared(library: Any) -> bool:
    """Whether all threads of the process share this library's number of threads."""
    return bool(library.internal_api == "openblas" and library.threading_layer != "openmp")


@functools.cache
def _libraries() -> list[Any]:
    """Return threadpoolctl's controllers of the BLAS libraries in this process, NumPy's among them."""
    import numpy  # noqa: F401 - brings its library along
    from threadpoolctl import ThreadpoolController

    found: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return found

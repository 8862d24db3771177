"""NumPy's OpenBLAS: its calls kept to one thread while our own threads make them.

After a product OpenBLAS's threads spin for some 25 ms, waiting for the next; other threads that want the cores
meanwhile slow down by a third.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = tuple(
    f"{prefix}_%s_num_threads{suffix}" for prefix in ("scipy_openblas", "openblas") for suffix in ("64_", "")
)
_lock = threading.Lock()
_before: list[int] = []
"""How many threads OpenBLAS had, once for everyone who now wants one."""


@contextmanager
def one_thread() -> Iterator[bool]:
    """Let each BLAS call stay in the thread that makes it; yields whether that could be had. May be nested.

    The setting is the process's; whoever leaves last puts it back. False, and nothing is changed, where NumPy does not
    bring an OpenBLAS whose threads can be set (Accelerate, MKL).
    """
    found = _openblas()
    if found is None:
        yield False
        return
    count, put = found
    with _lock:
        _before.append(_before[0] if _before else count())
        put(1)
    try:
        yield True
    finally:
        with _lock:
            n = _before.pop()
            if not _before:
                put(n)


def is_single() -> bool:
    """Whether BLAS calls stay in one thread because someone asked for it."""
    return bool(_before)


@functools.cache
def _openblas() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """Return the functions that get and set OpenBLAS's number of threads, under any name NumPy's builds give them."""
    try:
        extension = importlib.import_module("numpy._core._multiarray_umath").__file__
        library = ctypes.PyDLL(extension)  # finds the symbols of the libraries that it needs, too
    except (ImportError, OSError):
        return None
    for name in _NAMES:
        count, put = getattr(library, name % "get", None), getattr(library, name % "set", None)
        if count is not None and put is not None:
            put.argtypes, put.restype = (ctypes.c_int,), None
            return count, put
    return None

"""Work over tensors in threads, with BLAS held to one thread in each where threadpoolctl is installed.

Without it BLAS keeps its own threads, and tensors are done one after another: threads of both kinds would fight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from importlib import import_module
from typing import Any, TypeVar

from weighttools.core import engine

T = TypeVar("T")
R = TypeVar("R")


def over(fn: Callable[[T], R], items: Iterable[T], threads: int | None = None) -> Iterator[R]:
    """Yield ``fn(item)`` for each item, in order."""
    limits = _limits()
    with limits, engine.threads(1 if isinstance(limits, nullcontext) else threads) as pool:
        yield from engine.run(fn, items, pool, 2 * (threads or engine.n_threads()))


def _limits() -> Any:
    try:
        return import_module("threadpoolctl").threadpool_limits(1)
    except ImportError:
        return nullcontext()

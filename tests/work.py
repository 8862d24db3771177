"""How much work a call does, counted and not timed: a count is the same on a busy machine and on a quiet one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

CALLS = 500_000
"""What refusing, or reading, a small file may take: several times the most that any needs. An interpreter makes some
millions of calls a second."""


class Counted(str):
    """A text whose comparisons and hashes are calls that a profile sees."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        return str.__hash__(self)


@dataclass
class Work:
    """Calls of functions, Python's and C's, made by this thread."""

    calls: int = 0


@contextmanager
def counted() -> Iterator[Work]:
    """Count the calls made inside. What one call of C does by itself is not seen: bound its memory."""
    work, before = Work(), sys.getprofile()

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        if event in ("call", "c_call"):
            work.calls += 1

    sys.setprofile(note)
    try:
        yield work
    finally:
        sys.setprofile(before)


@contextmanager
def bounded(calls: int = CALLS) -> Iterator[None]:
    """Assert that what happens inside takes at most so many calls."""
    with counted() as work:
        yield
    assert work.calls <= calls, f"{work.calls:,} calls, of {calls:,} allowed"


@contextmanager
def calls_of(function: Callable[..., object]) -> Iterator[Work]:
    """Count the calls of one function of Python's that this thread makes inside."""
    work, before, code = Work(), sys.getprofile(), inspect.unwrap(function).__code__  # type: ignore[attr-defined]

    def note(frame: FrameType, event: str, _argument: object) -> None:
        work.calls += event == "call" and frame.f_code is code

    sys.setprofile(note)
    try:
        yield work
    finally:
        sys.setprofile(before)

"""Checkpoints of one run in a directory, in the order of their numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import NamedTuple

from weighttools.errors import SpecError

_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<number>\d+)(?P<suffix>\.[A-Za-z_][\w.]*)?", re.DOTALL)
_SHARD = re.compile(r"-\d+-of-\d+(\.|$)")


class NumberedPath(NamedTuple):
    """A checkpoint and the number in its name; -1 where there is none."""

    path: str
    number: int


def numbered(path: str) -> NumberedPath:
    """Return a path with the last number in its name.

    >>> numbered("run/checkpoint-500").number, numbered("run/final.safetensors").number
    (500, -1)
    """
    found = _split(os.path.basename(os.path.normpath(path)))
    return NumberedPath(path, found[1] if found else -1)


class Series(NamedTuple):
    """The checkpoints of a series in order, and what other series there are, told as `best-* (2)`."""

    paths: list[NumberedPath]
    others: list[str]


def _split(name: str) -> tuple[tuple[str, str], int] | None:
    """Return what a name has around its last number, and the number; shards are no checkpoints of a series."""
    found = _NUMBERED.fullmatch(name)
    if not found or _SHARD.search(name) or len(found["number"]) > 18:
        return None
    return (found["stem"], found["suffix"] or ""), int(found["number"])


def series_in(directory: str, is_checkpoint: Callable[[str], bool]) -> Series:
    """Return the checkpoints of the longest series in a directory: names that differ in their last number only.

    ``checkpoint-500`` and ``checkpoint-1000`` are one, and so are ``epoch_1.pt`` and ``epoch_2.pt``.

    Parameters
    ----------
    directory
        Where to look.
    is_checkpoint
        Whether a path may be one: a log of a run has numbers, too.

    Raises
    ------
    SpecError
        Several series are the longest.
    """
    kinds: dict[tuple[str, str], list[NumberedPath]] = {}
    for name in sorted(os.listdir(directory)):
        found = None if name.startswith(".") else _split(name)
        path = os.path.join(directory, name)
        if found and is_checkpoint(path):
            kinds.setdefault(found[0], []).append(NumberedPath(path, found[1]))
    by_length = sorted(kinds, key=lambda kind: -len(kinds[kind]))
    told = [f"{'*'.join(kind)} ({len(kinds[kind])})" for kind in by_length]
    if len(told) > 1 and len(kinds[by_length[0]]) == len(kinds[by_length[1]]) > 1:
        fact = f"holds several series of checkpoints: {', '.join(told)}"
        raise SpecError(fact, subject=directory, remedy="give the checkpoints of one, in order", code="several-series")
    longest = kinds[by_length[0]] if by_length else []
    return Series(sorted(longest, key=lambda one: one.number), told[1:])

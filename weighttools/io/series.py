"""Checkpoints of one run in a directory, in the order of their numbers."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

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


def _split(name: str) -> tuple[tuple[str, str], int] | None:
    """Return what a name has around its last number, and the number; shards are no checkpoints of a series."""
    found = _NUMBERED.fullmatch(name)
    if not found or _SHARD.search(name) or len(found["number"]) > 18:
        return None
    return (found["stem"], found["suffix"] or ""), int(found["number"])


def series_in(directory: str) -> list[NumberedPath]:
    """Return the checkpoints of the largest series in a directory: names that differ in their last number only.

    ``checkpoint-500`` and ``checkpoint-1000`` are one, and so are ``epoch_1.pt`` and ``epoch_2.pt``. Which of them are
    checkpoints is not looked at.
    """
    kinds: dict[tuple[str, str], list[NumberedPath]] = {}
    for name in sorted(os.listdir(directory)):
        found = None if name.startswith(".") else _split(name)
        if found:
            kinds.setdefault(found[0], []).append(NumberedPath(os.path.join(directory, name), found[1]))
    most = max(kinds.values(), key=len, default=[])
    return sorted(most, key=lambda one: one.number)

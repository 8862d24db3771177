"""Telling how far a write has come: a function that is called with the number of bytes just written."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int], None]


def silent(what: object) -> None:
    """Report nothing: neither progress nor lines of a log."""

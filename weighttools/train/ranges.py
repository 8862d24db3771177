"""Numbers that must lie in a range: one line each where they do not."""

from __future__ import annotations

import math
from typing import Any

from weighttools.errors import SpecError


def shares(subject: str, **given: Any) -> None:
    """Raise SpecError unless each number is 0 or more, and below 1."""
    _hold(subject, given, lambda number: 0 <= number < 1, "0 or more, below 1")


def amounts(subject: str, **given: Any) -> None:
    """Raise SpecError unless each number is finite, and 0 or more."""
    _hold(subject, given, lambda number: math.isfinite(number) and number >= 0, "a number of 0 or more")


def _hold(subject: str, given: dict[str, Any], fits: Any, expected: str) -> None:
    for name, number in given.items():
        if not isinstance(number, (int, float)) or not fits(number):
            shown = f"{number:g}" if isinstance(number, (int, float)) else repr(number)
            raise SpecError(f"{name.replace('_', ' ')} {shown}", subject=subject, expected=expected)

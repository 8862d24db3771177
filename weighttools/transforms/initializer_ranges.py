"""Numbers that must lie in a range: one line each where they do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from numbers import Real
from typing import Any

import numpy as np

from weighttools.errors import SpecError


def shares(subject: str, **given: Any) -> None:
    """Raise SpecError unless each number is 0 or more, and below 1."""
    _hold(subject, given, lambda number: 0 <= number < 1, "0 or more, below 1")


def amounts(subject: str, **given: Any) -> None:
    """Raise SpecError unless each number is finite, and 0 or more."""
    _hold(subject, given, lambda number: math.isfinite(number) and number >= 0, "a number of 0 or more")


def limits(subject: str, **given: Any) -> None:
    """Raise SpecError unless each number is above 0; infinity limits nothing."""
    _hold(subject, given, lambda number: number > 0, "a number above 0")


def counts(subject: str, least: int = 0, **given: Any) -> None:
    """Raise SpecError unless each number is whole, and `least` or more."""
    _hold(subject, given, lambda number: number >= least and number % 1 == 0, f"a whole number, {least} or more")


def plain(item: Any) -> None:
    """Make Python numbers of the NumPy scalars among a frozen dataclass's fields: they would promote float32."""
    for f in fields(item):
        value = getattr(item, f.name)
        if isinstance(value, np.generic):
            object.__setattr__(item, f.name, value.item())
        elif isinstance(value, tuple) and any(isinstance(v, np.generic) for v in value):
            object.__setattr__(item, f.name, tuple(v.item() if isinstance(v, np.generic) else v for v in value))


def _hold(subject: str, given: dict[str, Any], fits: Callable[[Any], bool], expected: str) -> None:
    for name, number in given.items():
        if not isinstance(number, Real) or not fits(number):
            shown = f"{number:g}" if isinstance(number, Real) else repr(number)
            raise SpecError(f"{name.replace('_', ' ')} {shown}", subject=subject, expected=expected)

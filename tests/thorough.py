"""The quick run and the thorough one: what the first leaves to the second, and how much each does.

``pytest`` is the quick run, for every change: each feature with at least one test of each kind, no downloads.
``pytest --thorough`` is all of it: real weights, fine-tunes in torch, kills, mutants, every combination, and many
examples of each property. What a quick run leaves out is counted in its last lines.

A test of the thorough run alone is marked ``@pytest.mark.thorough``, for a reason that its docstring, or its module's,
gives; tests marked ``real`` are too. Where one test stands for many of its kind, `first` chooses it; where a number
says how often, `amount` does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from weighttools.core.testing import at_most

__all__ = ["OPTION", "amount", "at_most", "choose", "chosen", "first", "is_left_out", "told"]

OPTION = "--thorough"
MARKS = ("thorough", "real")
_run = {"thorough": False}


def choose(thorough: bool) -> None:
    """Say which run this is, before any test is collected, and load its profile of Hypothesis.

    How long an example takes, or drawing one, says nothing on a shared machine: no clock decides. The thorough run
    draws anew each time, but where the environment says CI: there Hypothesis's own profile draws the same each time.
    """
    _run["thorough"] = thorough
    common: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("quick", max_examples=8, derandomize=True, database=None, **common)
    settings.register_profile("thorough", max_examples=400, **common)
    settings.load_profile("thorough" if thorough else "quick")


def amount(quick: Any, thorough: Any) -> Any:
    """How much of something a run does: how many mutants, or which of several."""
    return thorough if _run["thorough"] else quick


def first(values: Iterable[Any], n: int = 1, rows: bool = False) -> list[Any]:
    """Values to parametrise by, of which the first `n` are in every run and the rest in the thorough one.

    `rows` says that each is a tuple with a value for every name.
    """
    several = list(values)
    return several[:n] + [_later(value, rows) for value in several[n:]]


def chosen(values: Iterable[Any], quick: Collection[Any], rows: bool = False) -> list[Any]:
    """Values to parametrise by, of which those in `quick` are in every run and the rest in the thorough one."""
    several = list(values)
    assert all(value in several for value in quick), "what every run has is one of all"
    return [value if value in quick else _later(value, rows) for value in several]


def _later(value: Any, row: bool) -> Any:
    return pytest.param(*(value if row else (value,)), marks=pytest.mark.thorough)


def is_left_out(item: pytest.Item) -> bool:
    """Whether the quick run leaves a test to the thorough one."""
    return not _run["thorough"] and any(item.get_closest_marker(mark) for mark in MARKS)


def told(n_left_out: int) -> str:
    """The line that says what a quick run has left out."""
    return f"{n_left_out:,} tests are left to the thorough run: pytest {OPTION}"

"""Analyzers asked for by name, looked at before a value is read: known, whole, and none taking the place of another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from weighttools.analyzers import ANALYZERS
from weighttools.analyzers.base import Analyzer
from weighttools.analyzers.describe import figures_of, usual_figures
from weighttools.errors import PluginError, SpecError


def chosen(names: Iterable[str]) -> dict[str, Analyzer]:
    """Return the analyzers called `names`: ours first, in the table's order, then those of installed packages.

    Raises
    ------
    SpecError
        One is not known; the known ones are given.
    PluginError
        An installed package adds it, and it does not work, or gives figures that ``stats`` gives already.
    """
    asked = dict.fromkeys(names)
    own = [name for name in ANALYZERS if name in asked]
    found = {name: _loaded(name) for name in [*own, *(name for name in asked if name not in own)]}
    if len(own) < len(found):
        _refuse_clashes(found)
    return found


def _loaded(name: str) -> Analyzer:
    found = ANALYZERS.load(name)
    if isinstance(found, Analyzer):
        return found
    raise _broken(name, f"is of type {type(found).__name__}", "a weighttools.analyzers.base.Analyzer")


def _broken(name: str, fact: str, expected: str | None = None) -> PluginError | SpecError:
    if name in ANALYZERS.table:
        return SpecError(f"the analyzer {name!r} {fact}", expected=expected)
    return ANALYZERS.plugin(name).broken(fact, expected)


def _refuse_clashes(found: dict[str, Analyzer]) -> None:
    """Refuse an analyzer whose figures would take the place of others, or that lacks one of its columns."""
    taken = usual_figures()
    for name, analyzer in found.items():
        given: Any = figures_of(analyzer.of)
        if not isinstance(given, dict):
            raise _broken(name, f"finishes as a {type(given).__name__}", "a dict of figures")
        if twice := sorted(taken & given.keys()):
            raise _broken(name, f"gives {twice[0]!r}, which stats gives already", "a name of its own")
        if lacking := [column for column in analyzer.columns if column not in given]:
            raise _broken(name, f"does not give its column {lacking[0]!r}", f"one of {', '.join(given)}")
        taken |= given.keys()

"""A registry is a table of import strings with an install hint; nothing is imported until it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from weighttools.errors import MissingDependencyError, SpecError, install


class Entry(NamedTuple):
    """Where a thing lives (``"package.module:name"``) and the extra that it needs, if any."""

    target: str
    extra: str = ""


class Registry:
    """Names to things, imported on first use; entry points are asked only after the table misses."""

    def __init__(self, kind: str, group: str, table: Mapping[str, Entry]) -> None:
        self.kind, self.group, self.table = kind, group, dict(table)

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def load(self, name: str) -> Any:
        """Return the thing called `name`.

        Raises
        ------
        SpecError
            Nothing has that name; the known names are given.
        MissingDependencyError
            A package that it needs is not installed.
        """
        entry = self.table.get(name)
        if entry is None:
            return self._plugin(name)
        module, _, attribute = entry.target.partition(":")
        return getattr(import_module(module), attribute)

    def _plugin(self, name: str) -> Any:
        from importlib.metadata import entry_points

        for point in entry_points(group=self.group, name=name):
            return point.load()
        raise SpecError(f"unknown {self.kind} {name!r}", expected="one of " + ", ".join(sorted(self.table)))

    def plugins(self) -> list[str]:
        """Return the names that installed third parties add."""
        from importlib.metadata import entry_points

        return sorted(entry_points(group=self.group).names - set(self.table))


def need(package: str, purpose: str, extra: str) -> Any:
    """Import an optional package, or say in one line which extra brings it.

    Raises
    ------
    MissingDependencyError
        The package is not installed.
    """
    try:
        return import_module(package)
    except ImportError:
        raise MissingDependencyError(f"{purpose} needs {package}", remedy=install(extra)) from None

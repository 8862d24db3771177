"""A registry is a table of import strings with an install hint; nothing is imported until it is asked for.

What installed packages add (their entry points) is looked up only where the table does not tell, since finding all of
them takes longer than reading a header.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from weighttools.errors import MissingDependencyError, PluginError, SpecError, brief, install

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUPS = ("weighttools.formats", "weighttools.analyzers", "weighttools.transforms")
"""The groups of entry points by which packages add to weighttools."""


class Entry(NamedTuple):
    """Where a thing lives (``"package.module:name"``) and the extra that it needs, if any."""

    target: str
    extra: str = ""


class Plugin(NamedTuple):
    """What an installed package adds.

    Parameters
    ----------
    kind
        ``"format"``, ``"analyzer"`` or ``"transform"``.
    name
        What it is asked for by.
    package
        The package and its version.
    point
        Where it lives.
    """

    kind: str
    name: str
    package: str
    point: EntryPoint

    def load(self) -> Any:
        """Import it.

        Raises
        ------
        PluginError
            That fails, in whatever way.
        """
        try:
            return self.point.load()
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # a module that exits, or panics in Rust, raises no Exception
            raise self.broken(f"cannot be loaded ({told(error)})") from error

    def broken(self, fact: str, expected: str | None = None) -> PluginError:
        """Return the error that says what is wrong with it, and whose it is."""
        remedy = "update or uninstall the package, or report this to its authors"
        return PluginError(
            f"its {self.kind} {self.name!r} {fact}", subject=self.package, expected=expected, remedy=remedy
        )


def told(error: BaseException) -> str:
    """Return an exception in one line."""
    return brief(" ".join(f"{type(error).__name__}: {error}".split()))


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
        PluginError
            An installed package has it, and cannot be loaded.
        MissingDependencyError
            A package that it needs is not installed.
        """
        entry = self.table.get(name)
        if entry is None:
            return self.plugin(name).load()
        module, _, attribute = entry.target.partition(":")
        return getattr(import_module(module), attribute)

    def plugin(self, name: str) -> Plugin:
        """Return what an installed package adds by this name.

        Raises
        ------
        SpecError
            None does; the known names are given.
        """
        if name not in self.plugins:
            known = ", ".join(sorted({*self.table, *self.plugins}))
            raise SpecError(f"unknown {self.kind} {name!r}", expected=f"one of {known}", code="unknown-option-value")
        return self.plugins[name]

    @cached_property
    def plugins(self) -> Mapping[str, Plugin]:
        """What installed packages add, by name: of several of one name, that of the first package by its name."""
        return {p.name: p for p in reversed(self.installed) if p.name not in self.table}

    @property
    def hidden(self) -> list[Plugin]:
        """What installed packages add in vain: under a name that the table has, or a package before them."""
        return [p for p in self.installed if self.plugins.get(p.name) is not p]

    @cached_property
    def installed(self) -> list[Plugin]:
        """All that installed packages add, in order of the names and the packages."""
        from importlib.metadata import entry_points

        found = [Plugin(self.kind, point.name, _package(point), point) for point in entry_points(group=self.group)]
        return sorted(found, key=lambda plugin: (plugin.name, plugin.package))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def blamed(error: BaseException) -> PluginError | None:
    """Return the error that names the installed package in whose code another one rose; None if there is none."""
    from importlib.metadata import entry_points

    ran, trace = set(), error.__traceback__
    while trace is not None:
        ran.add(str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0])
        trace = trace.tb_next
    for group in GROUPS if ran - {"weighttools", "click", "__main__"} else ():
        for point in entry_points(group=group):
            if point.module.partition(".")[0] in ran:
                kind = group.rpartition(".")[2].removesuffix("s")
                return Plugin(kind, point.name, _package(point), point).broken(f"failed ({told(error)})")
    return None


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

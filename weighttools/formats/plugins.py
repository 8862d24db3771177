"""Formats that installed packages add: asked once none of our own recognises a file or a suffix.

Finding them takes as long as reading a header, so nothing here runs for a file that we know. One that does not work
hides no other: it is passed over, and said.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from weighttools.core.registry import Plugin, Registry, told
from weighttools.core.tensormap import TensorMap
from weighttools.errors import PluginError, WeighttoolsError
from weighttools.formats.base import Format, ReadOptions

if TYPE_CHECKING:
    from weighttools.core.spec import Source


class Found(NamedTuple):
    """Which plug-in recognises a file, if any, and what must be said of those that could not be asked."""

    plugin: Plugin | None
    failures: list[str]


def checked(plugin: Plugin, found: Any) -> Format:
    """Return what a plug-in gave, if it is a format.

    Raises
    ------
    PluginError
        It is something else, or its suffixes are none.
    """
    if not isinstance(found, Format):
        raise plugin.broken(f"is of type {type(found).__name__}", "a weighttools.formats.base.Format")
    ends = found.suffixes
    if not isinstance(ends, tuple) or not all(isinstance(end, str) and end[:1] == "." and end[1:] for end in ends):
        raise plugin.broken(f"has the suffixes {ends!r}", "a tuple such as ('.toy',)")
    return found


def recognise(registry: Registry, head: bytes) -> Found:
    """Ask every plug-in whether a file that begins with `head` is of its format; the first by name has it."""
    failures: list[str] = []
    for plugin in _in_order(registry):
        try:
            if _matches(plugin, head):
                return Found(plugin, failures)
        except PluginError as error:
            failures.append(str(error))
    return Found(None, failures)


def _matches(plugin: Plugin, head: bytes) -> bool:
    form = checked(plugin, plugin.load())
    try:
        return bool(form.matches(head))
    except Exception as error:
        raise plugin.broken(f"fails at the first bytes of a file ({told(error)})") from error


def read(plugin: Plugin, source: Source, options: ReadOptions) -> TensorMap:
    """Read a file of a plug-in's format; an origin that the plug-in leaves out is filled in.

    Raises
    ------
    PluginError
        It fails in a way that is no error of weighttools, or gives no TensorMap.
    """
    try:
        found = checked(plugin, plugin.load()).read(source, options)
    except (WeighttoolsError, OSError, MemoryError):
        raise
    except Exception as error:
        raise plugin.broken(f"fails to read {source.name} ({told(error)})") from error
    if not isinstance(found, TensorMap):
        raise plugin.broken(f"reads a {type(found).__name__}", "a TensorMap")
    origin = found.origin
    if origin.format:
        return found
    path, files = origin.path or source.name, origin.files or (source.name,)
    return found.replace(origin=origin._replace(path=path, format=plugin.name, files=files))


def suffixes(registry: Registry, *, written: bool = False) -> list[tuple[str, str]]:
    """Return the suffixes of all plug-ins, or of those that write, each with the plug-in's name.

    What does not work has none.
    """
    found = []
    for plugin in _in_order(registry):
        with suppress(PluginError):
            form = checked(plugin, plugin.load())
            found += [(end.lower(), plugin.name) for end in form.suffixes if form.write or not written]
    return found


def by_suffix(registry: Registry, path: str) -> str | None:
    """Return the name of the plug-in whose suffix `path` has, if any.

    Raises
    ------
    PluginError
        The suffix is the name of one that does not work: ``x.toy`` would else be taken for a directory's name.
    """
    name = path.lower()
    for end, plugin in suffixes(registry):
        if name.endswith(end):
            return plugin
    named = registry.plugins.get(name.rpartition(".")[2])
    if named is not None:
        checked(named, named.load())
    return None


def records(registry: Registry) -> list[dict[str, Any]]:
    """Return a row for each plug-in, those among them that do not work, or that something of the same name hides."""
    return [_record(registry, plugin) for plugin in registry.installed]


def _record(registry: Registry, plugin: Plugin) -> dict[str, Any]:
    about = {"format": plugin.name, "package": plugin.package, "extra": ""}
    unused = {**about, "suffixes": [], "reads": False, "writes": False, "error": ""}
    if plugin.name in registry.table:
        return {**unused, "what": f"not used: weighttools has a format of this name ({plugin.package})"}
    if registry.plugins[plugin.name] is not plugin:
        other = registry.plugins[plugin.name].package
        return {**unused, "what": f"not used: {other} has a format of this name too ({plugin.package})"}
    try:
        form = checked(plugin, plugin.load())
    except PluginError as error:
        return {**unused, "what": f"does not work ({plugin.package})", "error": str(error)}
    used = {"suffixes": list(form.suffixes), "reads": True, "writes": form.write is not None, "error": ""}
    return {**about, **used, "what": f"{form.title or plugin.name} ({plugin.package})"}


def _in_order(registry: Registry) -> list[Plugin]:
    return sorted(registry.plugins.values(), key=lambda plugin: plugin.name)

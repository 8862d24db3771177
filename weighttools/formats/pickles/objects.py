"""What a pickle holds, as data: a global is a `Global`, a call an inert `Made`, a persistent id a `Persistent`.

Dictionaries are `PickledDict`, whose keys are never hashed: a key from a file may be a tuple built to take for ever to
hash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Global(NamedTuple):
    """A module's attribute that the pickle names; it is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class PickledDict:
    """A dictionary: its entries in order, keys unhashed, of a key set twice both."""

    items: list[tuple[Any, Any]] = field(default_factory=list)

    def named(self) -> dict[str, Any]:
        """Return the entries whose keys are strings; of a key set twice the last, as in a dictionary."""
        return {key: value for key, value in self.items if type(key) is str}


@dataclass(slots=True, eq=False)
class Made:
    """What unpickling would have made by a call: nothing was called.

    Parameters
    ----------
    callee
        What would have been called: a `Global`, or whatever else lay on the stack.
    args
        The arguments.
    state
        What BUILD would have set.
    items
        Entries that would have been set, or elements that would have been added (key None).
    """

    callee: Any
    args: tuple[Any, ...]
    state: Any = None
    items: list[tuple[Any, Any]] = field(default_factory=list)

    def named(self) -> dict[str, Any]:
        """Return the entries whose keys are strings."""
        return {key: value for key, value in self.items if type(key) is str}


class Persistent(NamedTuple):
    """A persistent id: PyTorch names storages so."""

    id: Any


def entries(value: Any) -> list[tuple[Any, Any]] | None:
    """Return the entries of what is, or would have been, a mapping; None for anything else.

    An ``OrderedDict`` of old protocols has its entries as a list of pairs in its arguments.
    """
    if type(value) is PickledDict:
        return value.items
    if type(value) is not Made or type(value.callee) is not Global or value.callee not in _MAPPINGS:
        return None
    first = value.args[0] if value.args else None
    pairs = [tuple(pair) for pair in first if _is_pair(pair)] if type(first) is list else []
    copied = first.items if type(first) is PickledDict else []
    return [*copied, *pairs, *value.items]


def _is_pair(value: Any) -> bool:
    return type(value) in (list, tuple) and len(value) == 2


_MAPPINGS = {
    Global("collections", "OrderedDict"),
    Global("collections", "defaultdict"),
    Global("collections", "Counter"),
    Global("builtins", "dict"),
    Global("__builtin__", "dict"),
}


def plain(value: Any) -> Any:
    """Return what a few harmless calls stand for (text as bytes, ``torch.Size``, a set); anything else as it is."""
    if type(value) is not Made or type(value.callee) is not Global:
        return value
    rebuild = _PLAIN.get(value.callee)
    found = rebuild(value.args) if rebuild else None
    return value if found is None else found


def _encoded(args: tuple[Any, ...]) -> bytes | None:
    """Bytes as protocol 2 writes them: ``_codecs.encode(text, "latin1")``."""
    if not args or type(args[0]) is not str or args[1:] not in (("latin1",), ("latin-1",)):
        return None
    try:
        return args[0].encode("latin-1")
    except UnicodeEncodeError:
        return None


def _sequence(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    if not args:
        return ()
    return tuple(args[0]) if len(args) == 1 and type(args[0]) in (tuple, list) else None


_PLAIN: dict[Global, Callable[[tuple[Any, ...]], Any]] = {
    Global("_codecs", "encode"): _encoded,
    Global("__builtin__", "bytes"): lambda args: None if args else b"",
    Global("builtins", "bytes"): lambda args: None if args else b"",
    Global("torch", "Size"): _sequence,
    **{Global(m, n): _sequence for m in ("builtins", "__builtin__") for n in ("tuple", "list", "set", "frozenset")},
}

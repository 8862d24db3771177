"""Pickles read as data: a machine that runs the opcodes and never imports, looks up or calls what they name.

Source: Python's ``pickletools`` (the opcodes of protocols 0 to 5) and ``pickle.py`` (what each does to the stack).
A global becomes a `Global`, a call an inert `Made`, a persistent id a `Persistent`; what they mean, if anything, is
for the reader of a format to say. Dictionaries become `Table`, whose keys are never hashed: a key from a file may be
a tuple built to take for ever to hash. Nothing here recurses, so depth costs no more than length.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from weighttools.core.budgets import PICKLE_GLOBALS, STACK_OBJECTS
from weighttools.core.budgets import PICKLE_LINE as _MAX_LINE
from weighttools.core.spec import Source
from weighttools.errors import CorruptFileError, UnsafeFileError

_CHUNK = 1 << 18
PROTOCOLS = range(6)


class Global(NamedTuple):
    """A module's attribute that the pickle names; it is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Table:
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


@dataclass(slots=True)
class Use:
    """How a pickle uses a global: where it first names it, how often it would call it, or hand it to a call first."""

    offset: int
    n_calls: int = 0
    n_args: int = 0
    n_handed: int = 0


class Stream:
    """Bytes of a source from `offset` to `end`, taken front to back, at least `chunk` at a time."""

    __slots__ = ("_at", "_base", "_buffer", "_chunk", "_end", "source")

    def __init__(self, source: Source, offset: int = 0, end: int | None = None, chunk: int = _CHUNK) -> None:
        self.source, self._chunk = source, chunk
        self._base, self._at, self._buffer = offset, 0, b""
        self._end = source.size if end is None else end

    @property
    def position(self) -> int:
        """The offset of the next byte in the source."""
        return self._base + self._at

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return self._end - self.position

    def take(self, n: int) -> bytes:
        """Return the next `n` bytes.

        Raises
        ------
        CorruptFileError
            There are fewer.
        """
        stop = self._at + n
        if stop > len(self._buffer):
            self._fill(n)
            stop = n
        data = self._buffer[self._at : stop]
        self._at = stop
        return data

    def _fill(self, n: int) -> None:
        if n > self.remaining:
            raise CorruptFileError(
                f"the pickle claims {n:,} more bytes, where {self.remaining:,} remain",
                subject=self.source.name,
                offset=self.position,
                remedy="the file is probably cut short: fetch it again",
            )
        self._base, self._at = self.position, 0
        self._buffer = self.source.read(self._base, min(max(n, self._chunk), self._end - self._base))

    def line(self) -> bytes:
        """Return the bytes up to the next line feed, and step over it."""
        found = self._buffer.find(b"\n", self._at)
        if found < 0:
            self._fill(min(_MAX_LINE, self.remaining))
            found = self._buffer.find(b"\n", 0, _MAX_LINE)
        if found < 0 and len(self._buffer) >= _MAX_LINE:
            raise UnsafeFileError(f"a line of the pickle is longer than {_MAX_LINE:,} bytes", subject=self.source.name)
        if found < 0:
            raise CorruptFileError("a line of the pickle has no end", subject=self.source.name, offset=self.position)
        data = self._buffer[self._at : found]
        self._at = found + 1
        return data


class Machine:
    """Runs pickles of a stream one after another; each begins with an empty memo.

    Parameters
    ----------
    stream
        What to run.
    most_opcodes
        How many it may hold in all; None is as many as it has bytes.
    skims
        Whether what Python's unpickler takes but no reader wants (longer integers, changes of what is imported) is
        passed over, to see what comes behind it; its values are then not true.

    Attributes
    ----------
    globals
        Every global that was named, with its use.
    persistents
        Every persistent id, in order.
    n_opcodes
        How many opcodes were run.
    acts
        What unpickling would do beside calling globals by name, each with the place of the first time.
    """

    __slots__ = (
        "_seen", "acts", "floor", "globals", "marks", "memo", "most_opcodes", "n_opcodes", "persistents", "skims",
        "stack", "stream",
    )  # fmt: skip

    def __init__(self, stream: Stream, most_opcodes: int | None = None, skims: bool = False) -> None:
        self.stream, self.skims = stream, skims
        self.most_opcodes = sys.maxsize if most_opcodes is None else most_opcodes
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.floor = 0
        self.memo: dict[int, Any] = {}
        self.globals: dict[Global, Use] = {}
        self.persistents: list[Persistent] = []
        self.n_opcodes = 0
        self.acts: dict[str, int] = {}
        self._seen: dict[int, tuple[Table, int]] = {}

    def load(self) -> Any:
        """Run up to the next STOP and return what it leaves.

        Raises
        ------
        CorruptFileError
            The stream ends before, holds an unknown opcode, or takes more from the stack than is on it.
        """
        from weighttools.formats.pickles.opcodes import HANDLERS

        self.stack, self.marks, self.floor, self.memo = [], [], 0, {}
        take, n = self.stream.take, 0
        try:
            while (opcode := take(1)[0]) != _STOP:
                handler = HANDLERS[opcode]
                if handler is None:
                    raise self.corrupt(f"the pickle holds the unknown opcode {opcode:#04x}")
                handler(self)
                n += 1
                if not n & 0xFFFF:
                    self._refuse_too_much(n)
        finally:
            self.n_opcodes += n
        return self.pop()

    def _refuse_too_much(self, n: int) -> None:
        if len(self.stack) > STACK_OBJECTS:
            raise UnsafeFileError(
                f"the pickle piles up {len(self.stack):,} objects",
                subject=self.stream.source.name,
                expected=f"at most {STACK_OBJECTS:,}",
            )
        if self.n_opcodes + n > self.most_opcodes:
            raise UnsafeFileError(
                f"its compressed pickle unfolds to more than {self.most_opcodes:,} opcodes",
                subject=self.stream.source.name,
                expected="no more than the file has bytes, and half a million",
            )

    def pop(self) -> Any:
        """Take the top of the stack, not past the last mark."""
        if len(self.stack) <= self.floor:
            raise self.corrupt("the pickle takes more from its stack than is on it")
        return self.stack.pop()

    def top(self) -> Any:
        """Return the top of the stack and leave it there."""
        if len(self.stack) <= self.floor:
            raise self.corrupt("the pickle looks at a stack that is empty")
        return self.stack[-1]

    def mark(self) -> None:
        """Begin a run of objects."""
        self.floor = len(self.stack)
        self.marks.append(self.floor)

    def pop_mark(self) -> list[Any]:
        """Take everything since the last mark, and the mark."""
        if not self.marks:
            raise self.corrupt("the pickle looks for a mark that is not there")
        start = self.marks.pop()
        run = self.stack[start:]
        del self.stack[start:]
        self.floor = self.marks[-1] if self.marks else 0
        return run

    def push_global(self, module: Any, name: Any) -> None:
        """Push a global by name; nothing is imported."""
        if type(module) is not str or type(name) is not str:
            raise self.corrupt("the pickle names a global by something that is not text")
        found = Global(module, name)
        if found not in self.globals:
            self._refuse_many_globals()
            self.globals[found] = Use(self.stream.position)
        self.stack.append(found)

    def _refuse_many_globals(self) -> None:
        if len(self.globals) >= PICKLE_GLOBALS:
            raise UnsafeFileError(
                f"the pickle names more than {PICKLE_GLOBALS:,} different functions and classes",
                subject=self.stream.source.name,
                expected="some tens, as checkpoints do",
            )

    def push_made(self, callee: Any, args: Any) -> None:
        """Push what a call would have made; nothing is called."""
        arguments = args if type(args) is tuple else (args,)
        if type(callee) is Global:
            use = self.globals[callee]
            use.n_calls += 1
            use.n_args = max(use.n_args, len(arguments))
        elif type(callee) in (Made, Persistent):
            self.act("call what it has made itself")
        else:
            raise self.corrupt("the pickle calls what is no function")
        if arguments and type(arguments[0]) is Global:
            self.globals[arguments[0]].n_handed += 1
        self.stack.append(Made(callee, arguments))

    def go_beyond(self, fact: str) -> None:
        """Refuse what readers do not want, unless it is passed over."""
        if not self.skims:
            raise self.corrupt(fact)

    def act(self, what: str) -> None:
        """Note what unpickling would do here beside calling a global by its name."""
        self.acts.setdefault(what, self.stream.position)

    def sets_dunder(self, table: Table) -> bool:
        """Whether a key begins with two underscores, of those set since the same table was last asked about."""
        _, start = self._seen.get(id(table), (table, 0))
        self._seen[id(table)] = table, len(table.items)
        return any(type(key) is str and key.startswith("__") for key, _ in table.items[start:])

    def push_persistent(self, identity: Any) -> None:
        """Push a persistent id."""
        found = Persistent(identity)
        self.persistents.append(found)
        self.stack.append(found)

    def text(self, data: bytes) -> str:
        """Decode UTF-8 as pickles hold it: lone surrogates pass."""
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise self.corrupt("the pickle holds text that is not UTF-8") from None

    def corrupt(self, fact: str) -> CorruptFileError:
        """Return the error for the present place."""
        return CorruptFileError(
            fact,
            subject=self.stream.source.name,
            offset=self.stream.position,
            expected="a pickle as pickle.dump writes it",
        )


_STOP = ord(".")

Handler = Callable[[Machine], None]


def entries(value: Any) -> list[tuple[Any, Any]] | None:
    """Return the entries of what is, or would have been, a mapping; None for anything else.

    An ``OrderedDict`` of old protocols has its entries as a list of pairs in its arguments.
    """
    if type(value) is Table:
        return value.items
    if type(value) is not Made or type(value.callee) is not Global or value.callee not in _MAPPINGS:
        return None
    first = value.args[0] if value.args else None
    pairs = [tuple(pair) for pair in first if _is_pair(pair)] if type(first) is list else []
    copied = first.items if type(first) is Table else []
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

"""What opcodes work on: the stack of objects, its marks and the memo. Nothing that is named is looked up or called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from weighttools.core.budgets import PICKLE_GLOBALS
from weighttools.errors import CorruptFileError, UnsafeFileError
from weighttools.formats.pickles.objects import Global, Made, Persistent, PickledDict
from weighttools.formats.pickles.stream import Stream


@dataclass(slots=True)
class Use:
    """How a pickle uses a global: where it first names it, how often it would call it, or hand it to a call first."""

    offset: int
    n_calls: int = 0
    n_args: int = 0
    n_handed: int = 0


class Stack:
    """The stack of a machine, its marks and its memo, and what is to be known of the pickles that use them.

    Attributes
    ----------
    stream
        What is run.
    skims
        As for `machine.Machine`.
    globals
        Every global that was named, with its use.
    persistents
        Every persistent id, in order.
    acts
        What unpickling would do beside calling globals by name, each with the place of the first time.
    """

    __slots__ = (
        "_seen", "acts", "floor", "globals", "marks", "memo", "persistents", "skims", "stack", "stream",
    )  # fmt: skip

    def __init__(self, stream: Stream, skims: bool = False) -> None:
        self.stream, self.skims = stream, skims
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.floor = 0
        self.memo: dict[int, Any] = {}
        self.globals: dict[Global, Use] = {}
        self.persistents: list[Persistent] = []
        self.acts: dict[str, int] = {}
        self._seen: dict[int, tuple[PickledDict, int]] = {}

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

    def sets_dunder(self, table: PickledDict) -> bool:
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


Handler = Callable[[Stack], None]
"""What an opcode does."""

"""Pickles read as data: a machine that runs the opcodes and never imports, looks up or calls what they name.

Source: Python's ``pickletools`` (the opcodes of protocols 0 to 5) and ``pickle.py`` (what each does to the stack).
What the `objects` it leaves mean, if anything, is for the reader of a format to say. Nothing here recurses, so depth
costs no more than length.
"""

from __future__ import annotations

import sys
from typing import Any

from weighttools.core.budgets import STACK_OBJECTS
from weighttools.errors import UnsafeFileError
from weighttools.formats.pickles.opcodes import HANDLERS
from weighttools.formats.pickles.stack import Stack
from weighttools.formats.pickles.stream import Stream

_STOP = ord(".")


class Machine(Stack):
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
    n_opcodes
        How many opcodes were run.
    """

    __slots__ = ("most_opcodes", "n_opcodes")

    def __init__(self, stream: Stream, most_opcodes: int | None = None, skims: bool = False) -> None:
        super().__init__(stream, skims)
        self.most_opcodes = sys.maxsize if most_opcodes is None else most_opcodes
        self.n_opcodes = 0

    def load(self) -> Any:
        """Run up to the next STOP and return what it leaves.

        Raises
        ------
        CorruptFileError
            The stream ends before, holds an unknown opcode, or takes more from the stack than is on it.
        """
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

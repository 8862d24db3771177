"""Regular expressions that a file brings, matched without backtracking: the work is bounded whatever they are.

Python's own matcher takes exponential time for some, as ``(a|a)*b``. Here all ways are followed at once.

References
----------
K. Thompson, "Regular expression search algorithm", Communications of the ACM 11 (6), 1968.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from weighttools.core.budgets import EXPRESSION_LENGTH, EXPRESSION_MAKING, EXPRESSION_NODES, EXPRESSION_STEPS
from weighttools.errors import CorruptFileError, UnsupportedError

_LITERAL = re.compile(r"(?:[\w-]|\\?\.)+")
_REPEAT = re.compile(r"[*+?]|\{(?=[\d,])(\d*)(,?)(\d*)\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_DEEPEST = 20
Test = Callable[[str], object]


@dataclass(slots=True)
class PatternState:
    """A state: it passes a character that fits `test`, or goes on at once where there is none.

    `at` says where it may be passed: ``"start"``, ``"end"``, or anywhere if empty.
    """

    test: Test | None
    after: list[int] = field(default_factory=list)
    at: str = ""


@dataclass(slots=True)
class Steps:
    """What several expressions may cost together.

    Parameters
    ----------
    left
        States that may still be made or visited.
    """

    left: int = EXPRESSION_STEPS

    def take(self, n: int) -> None:
        """Raise UnsupportedError where no so many are left."""
        self.left -= n
        if self.left < 0:
            raise UnsupportedError("takes too many steps to match", expected="a simpler one")


class Expression:
    """A regular expression, matched as peft matches the keys of its tables: ``re.match(r"(.*\\.)?(KEY)$", name)``.

    Parameters
    ----------
    pattern
        Literals, classes, groups, alternatives, repeats, ``^`` and ``$``.
    steps
        What it may cost, together with others.

    Raises
    ------
    UnsupportedError
        It looks around or back, has flags, or is too long.
    CorruptFileError
        It is no regular expression.

    Examples
    --------
    >>> found = Expression(r"layers\\.1\\..*(q|v)_proj")
    >>> found.matches("model.layers.1.self_attn.q_proj"), found.matches("model.layers.11.self_attn.q_proj")
    (True, False)
    """

    def __init__(self, pattern: str, steps: Steps | None = None) -> None:
        self.pattern, self._steps = pattern, Steps() if steps is None else steps
        if len(pattern) > EXPRESSION_LENGTH:
            raise UnsupportedError(f"is {len(pattern):,} characters long", expected=f"{EXPRESSION_LENGTH:,} at most")
        self._plain = re.compile(rf"(.*\.)?({pattern})$").match if _LITERAL.fullmatch(pattern) else None
        self._nodes = [PatternState(None)]
        if self._plain is None:
            self._steps.take(EXPRESSION_MAKING)
            _check(pattern)
            self._entry = _Reader(pattern, self._nodes).whole()
            self._steps.take(len(self._nodes))

    def matches(self, name: str) -> bool:
        """Whether it fits a name, or the end of it behind a dot.

        Raises
        ------
        UnsupportedError
            All matches together take too many steps.
        """
        if self._plain is not None:
            self._steps.take(1)
            return self._plain(name) is not None
        end = len(name) - name.endswith("\n")
        first, present = name.find("\n") if "\n" in name else len(name), set[int]()
        for i in range(len(name) + 1):
            if i == 0 or (name[i - 1] == "." and i <= first):
                present.add(self._entry)
            present = self._reached(present, i == 0, i in (end, len(name)))
            if 0 in present and i in (end, len(name)):
                return True
            present = set() if i == len(name) else self._passed(present, name[i])
        return False

    def _reached(self, present: set[int], is_start: bool, is_end: bool) -> set[int]:
        """Return the states that are reached without a character."""
        found, left = set[int](), list(present)
        while left:
            i = left.pop()
            if i in found:
                continue
            found.add(i)
            node = self._nodes[i]
            if node.test is None and (not node.at or (is_start if node.at == "start" else is_end)):
                left += node.after
        self._steps.take(len(found) + 1)
        return found

    def _passed(self, present: set[int], character: str) -> set[int]:
        passing = (node for node in map(self._nodes.__getitem__, present) if node.test and node.test(character))
        return {i for node in passing for i in node.after}


class PlainNames:
    """Expressions that are names, in which a point stands for any character: found by table, not one after another.

    Those that have as many characters, and points at the same places, are one table: a name is looked up in each, with
    what stands at those places left out.

    Parameters
    ----------
    patterns
        Expressions by their numbers; those that are more than names are passed over.
    steps
        What the look-ups may cost, together with others.
    """

    def __init__(self, patterns: Iterable[str], steps: Steps) -> None:
        self._steps, self.others = steps, list[int]()
        self._tables: dict[tuple[int, ...], dict[str, int]] = {}
        for i, pattern in enumerate(patterns):
            if len(pattern) > EXPRESSION_LENGTH or not _LITERAL.fullmatch(pattern):
                self.others.append(i)
                continue
            text = pattern.replace("\\.", _POINT)
            points = (len(text), *(at for at, letter in enumerate(text) if letter == "."))
            self._tables.setdefault(points, {}).setdefault(_masked(text.replace(_POINT, "."), points), i)

    def first(self, name: str) -> int | None:
        """Return the number of the first that fits a name of one line, or the end of it behind a dot; None of none."""
        self._steps.take(sum(map(len, self._tables)))
        found = []
        for points, table in self._tables.items():
            end = name[-points[0] :]
            if len(end) == points[0] and (len(name) == len(end) or name[-len(end) - 1] == "."):
                found.append(table.get(_masked(end, points)))
        return min((i for i in found if i is not None), default=None)


_POINT = "\0"
"""Stands for an escaped point, which no plain name holds."""


def _masked(text: str, points: tuple[int, ...]) -> str:
    """Return a text with what stands at the points, all but the first number, left out."""
    starts = (0, *(at + 1 for at in points[1:]))
    return _POINT.join(text[start:end] for start, end in zip(starts, (*points[1:], len(text)), strict=True))


def _check(pattern: str) -> None:
    """Raise for what Python does not take either."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(f"(?:{pattern})")
    except (re.error, RecursionError, OverflowError) as error:
        raise CorruptFileError(f"is none: {error}") from None


class _Reader:
    """Reads an expression into nodes, from its beginning; each part is given the node that follows it."""

    def __init__(self, pattern: str, nodes: list[PatternState]) -> None:
        self.pattern, self.nodes, self.depth = pattern, nodes, 0

    def whole(self) -> int:
        """Return the node that the expression begins with; node 0 is its end."""
        at, build = self._alternatives(0)
        if at != len(self.pattern):
            raise CorruptFileError("is none: unbalanced parenthesis")
        return build(0)

    def _node(self, test: Test | None, *after: int, at: str = "") -> int:
        if len(self.nodes) >= EXPRESSION_NODES:
            raise UnsupportedError("repeats too much", expected="a simpler one")
        self.nodes.append(PatternState(test, list(after), at))
        return len(self.nodes) - 1

    def _alternatives(self, at: int) -> tuple[int, Callable[[int], int]]:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise UnsupportedError("is nested too deeply", expected=f"{_DEEPEST} groups at most")
        at, first = self._sequence(at)
        ways = [first]
        while self.pattern[at : at + 1] == "|":
            at, way = self._sequence(at + 1)
            ways.append(way)
        self.depth -= 1
        return at, lambda follows: self._node(None, *(way(follows) for way in ways))

    def _sequence(self, at: int) -> tuple[int, Callable[[int], int]]:
        parts = []
        while at < len(self.pattern) and self.pattern[at] not in "|)":
            at, part = self._part(at)
            found = _REPEAT.match(self.pattern, at)
            if found:
                at, part = self._repeated(found, part)
            parts.append(part)

        def build(follows: int) -> int:
            for part in reversed(parts):
                follows = part(follows)
            return follows

        return at, build

    def _part(self, at: int) -> tuple[int, Callable[[int], int]]:
        """Read a group, a class, an escape or a character."""
        mark = self.pattern[at]
        if mark == "(":
            return self._group(at)
        if mark in "^$":
            where = "start" if mark == "^" else "end"
            return at + 1, lambda follows: self._node(None, follows, at=where)
        text = mark
        if mark == "\\":
            text = self.pattern[at : at + 2]
            if text[1:].isalnum() and text[1:] not in "dwsDWS":
                raise UnsupportedError(f"has {text}", expected=r"\d, \w, \s, or an escaped mark")
        elif mark == "[" and (found := _CLASS.match(self.pattern, at)):
            text = found[0]
        test = _test(text if len(text) > 1 or text == "." else re.escape(text))
        return at + len(text), lambda follows: self._node(test, follows)

    def _group(self, at: int) -> tuple[int, Callable[[int], int]]:
        if self.pattern[at + 1 : at + 2] == "?" and self.pattern[at + 1 : at + 3] != "?:":
            raise UnsupportedError(f"has {self.pattern[at : at + 3]}", expected="plain groups")
        at, build = self._alternatives(at + (3 if self.pattern[at + 1 : at + 2] == "?" else 1))
        return at + 1, build

    def _repeated(self, found: re.Match[str], part: Callable[[int], int]) -> tuple[int, Callable[[int], int]]:
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(found[0]) or _bounds(found)
        at = found.end()
        if self.pattern[at : at + 1] == "+":
            raise UnsupportedError("has a possessive repeat", expected="a plain one")
        at += self.pattern[at : at + 1] == "?"  # what it takes first makes no difference to whether it matches

        def build(follows: int) -> int:
            end = follows
            if most is None:
                follows = self._node(None, end)
                self.nodes[follows].after.append(part(follows))
            for _ in range((most or least) - least):
                follows = self._node(None, part(follows), end)
            for _ in range(least):
                follows = part(follows)
            return follows

        return at, build


def _bounds(found: re.Match[str]) -> tuple[int, int | None]:
    least = int(found[1] or 0)
    return least, (least if not found[2] else int(found[3]) if found[3] else None)


def _test(text: str) -> Test:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(text).fullmatch

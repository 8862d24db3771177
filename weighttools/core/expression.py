"""Conditions on records, such as ``sparsity > 0.5 and dtype == bf16``: parsed here, never evaluated as code.

Grammar::

    or    := and ("or" and)*
    and   := not ("and" not)*
    not   := "not" not | "(" or ")" | test
    test  := value (("==" | "!=" | "<" | "<=" | ">" | ">=") value)+
    value := NUMBER | STRING | NAME
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from weighttools.core.dtypes import ALIASES, DTYPES
from weighttools.errors import SpecError

Record = Mapping[str, Any]
Condition = Callable[[Record], bool]
Value = Callable[[Record], Any]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])
    |(?P<string>'[^']*'|"[^"]*")
    |(?P<word>[A-Za-z_]\w*)
    |(?P<sign>==|!=|<=|>=|<|>|\(|\)))""",
    re.VERBOSE,
)
_MAX_DEPTH = 50


class Token(NamedTuple):
    """A piece of the text: its kind (number, string, word, sign), its text, and where it begins."""

    kind: str
    text: str
    at: int


def condition(text: str, names: Collection[str]) -> Condition:
    """Return the function that says whether a record meets a condition.

    Parameters
    ----------
    text
        Comparisons of the record's `names`, numbers and strings, with ``and``, ``or``, ``not`` and parentheses.
        A dtype needs no quotes, and has all its short names.
    names
        What a record has. A figure that is null meets no comparison but ``!=``.

    Raises
    ------
    SpecError
        The text is no such condition, or uses a name that records do not have.

    Examples
    --------
    >>> condition("sparsity > 0.5 and dtype == bf16", ["sparsity", "dtype"])({"sparsity": 0.7, "dtype": "bfloat16"})
    True
    """
    parser = _Parser(text, names)
    found = parser.either(0)
    parser.end()
    return found


def _tokens(text: str) -> list[Token]:
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise _error(text, at, "what stands there has no meaning")
        kind = match.lastgroup or ""
        found.append(Token(kind, match[kind], match.start(kind)))
        at = match.end()
    return [*found, Token("end", "", len(text))]


class _Parser:
    def __init__(self, text: str, names: Collection[str]) -> None:
        self.text, self.names = text, names
        self.tokens = _tokens(text)[::-1]

    def taken(self, *texts: str) -> str:
        """Take the next token if it is one of `texts` (and no quoted string), and return its text."""
        token = self.tokens[-1]
        return self.tokens.pop().text if token.kind in ("word", "sign") and token.text in texts else ""

    def end(self) -> None:
        if self.tokens[-1].kind != "end":
            raise _error(self.text, self.tokens[-1].at, "expected and, or, or the end")

    def either(self, depth: int) -> Condition:
        parts = [self.both(depth)]
        while self.taken("or"):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else lambda record: any(part(record) for part in parts)

    def both(self, depth: int) -> Condition:
        parts = [self.negated(depth)]
        while self.taken("and"):
            parts.append(self.negated(depth))
        return parts[0] if len(parts) == 1 else lambda record: all(part(record) for part in parts)

    def negated(self, depth: int) -> Condition:
        if depth > _MAX_DEPTH:
            raise _error(self.text, self.tokens[-1].at, "too deeply nested")
        if self.taken("not"):
            inner = self.negated(depth + 1)
            return lambda record: not inner(record)
        if self.taken("("):
            inside = self.either(depth + 1)
            if not self.taken(")"):
                raise _error(self.text, self.tokens[-1].at, "expected )")
            return inside
        return self.test()

    def test(self) -> Condition:
        left, tests = self.value(), []
        while sign := self.taken(*_COMPARE):
            right = self.value()
            tests.append(_comparison(left, sign, right))
            left = right
        if not tests:
            raise _error(self.text, self.tokens[-1].at, "expected a comparison: == != < <= > >=")
        return lambda record: all(test(record) for test in tests)

    def value(self) -> Value:
        token = self.tokens.pop()
        if token.kind == "number":
            whole = token.text.lstrip("+-").isdigit() and len(token.text) < 300
            number = int(token.text) if whole else float(token.text)
            return lambda record: number
        if token.kind == "string":
            return _constant(token.text[1:-1])
        if token.kind == "word" and token.text not in ("and", "or", "not"):
            return self.name(token)
        raise _error(self.text, token.at, "expected a name, a number or a string")

    def name(self, token: Token) -> Value:
        name = token.text
        if name in self.names:
            return lambda record: record.get(name)
        if name.lower() in DTYPES or name.lower() in ALIASES:
            return _constant(name)
        known = ", ".join(self.names)
        raise SpecError(
            f"unknown name {name!r} in the condition {self.text!r}", expected=f"one of {known}", code="condition"
        )


def _constant(text: str) -> Value:
    """Return a string; a dtype by its full name, which is what records hold."""
    full = ALIASES.get(text.lower(), text)
    return lambda record: full


def _comparison(left: Value, sign: str, right: Value) -> Condition:
    compare = _COMPARE[sign]

    def test(record: Record) -> bool:
        a, b = left(record), right(record)
        if a is None or b is None or isinstance(a, str) != isinstance(b, str):
            return sign == "!="
        try:
            return bool(compare(a, b))
        except TypeError:
            return sign == "!="

    return test


def _error(text: str, at: int, fact: str) -> SpecError:
    return SpecError(
        f"cannot read the condition {text!r} at character {at + 1}: {fact}",
        expected="comparisons joined by and, or, not, as in 'sparsity > 0.5 and dtype == bf16'",
        code="condition",
    )

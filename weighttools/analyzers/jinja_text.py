"""The tokens of a Jinja template's expressions and statements, told from its text.

Source: Jinja's ``lexer.py`` (delimiters, strings) and ``parser.py`` (strings that stand beside each other are one).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|N\{([^}]*)\}|(\r\n|.))", re.DOTALL
)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\n": "", "\r": "", "\r\n": ""}
_OPEN = re.compile(r"\{\{|\{%|\{#")
_END_RAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
_TOKEN = re.compile(
    r"""\s+|(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<name>[^\W\d]\w*)|(?P<number>\d\w*)|(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)


class TemplateToken(NamedTuple):
    """A string (its text), a name, a number or a sign."""

    kind: str
    text: str


class Broken(Exception):
    """The text is no template: Jinja refuses it."""


_NOTHING = TemplateToken("sign", "")


class TemplatePart:
    """An expression, or a statement behind a first token ``{%``, and where its brackets close.

    Attributes
    ----------
    closes, opens
        Where the bracket that opens (closes) at a place closes (opens).
    commas
        The commas within a bracket, by where it opens.
    slices, steps
        Where the brackets of slices open, and the second colons of slices.
    """

    def __init__(self, tokens: list[TemplateToken]) -> None:
        self.tokens = tokens
        self.closes: dict[int, int] = {}
        self.opens: dict[int, int] = {}
        self.commas: dict[int, list[int]] = {}
        self.slices: set[int] = set()
        self.steps: set[int] = set()
        stack: list[int] = []
        for at, (kind, text) in enumerate(tokens):
            if kind != "sign":
                continue
            if text in "([{":
                stack.append(at)
            elif text in ")]}" and stack:
                self.opens[at] = stack[-1]
                self.closes[stack.pop()] = at
            elif text == "," and stack:
                self.commas.setdefault(stack[-1], []).append(at)
            elif text == ":" and stack and tokens[stack[-1]].text == "[":
                self._add_colon(stack[-1], at)

    def _add_colon(self, opening: int, at: int) -> None:
        if opening in self.slices:
            self.steps.add(at)
        self.slices.add(opening)

    def token(self, at: int) -> TemplateToken:
        """Return the token at a place, an empty sign outside."""
        return self.tokens[at] if 0 <= at < len(self.tokens) else _NOTHING

    def word(self, at: int) -> str:
        """Return the sign or name at a place; nothing for a string."""
        token = self.token(at)
        return "" if token.kind == "string" else token.text

    def close(self, opening: int) -> int:
        """Return where a bracket closes; the end where it does not."""
        return self.closes.get(opening, len(self.tokens))

    def arguments(self, opening: int) -> list[tuple[int, int]]:
        """Return where each argument of a call begins and stops."""
        ends = [*self.commas.get(opening, []), self.close(opening)]
        starts = [opening + 1, *(end + 1 for end in ends[:-1])]
        return [(start, stop) for start, stop in zip(starts, ends, strict=True) if start < stop]

    def follows_value(self, at: int, words: frozenset[str]) -> bool:
        """Whether a bracket stands behind a value: it reads an entry or calls, and makes no list or tuple."""
        kind, text = self.token(at - 1)
        if kind == "sign":
            return text in (")", "]", "}")
        return kind in ("string", "number") or (kind == "name" and (text not in words or self.word(at - 2) == "."))


def parts(text: str) -> Iterator[TemplatePart]:
    """Yield each expression and statement of a template; raise `Broken` where Jinja would refuse it."""
    at = 0
    while opening := _OPEN.search(text, at):
        if opening[0] == "{#":
            at = text.find("#}", opening.end()) + 2
            if at < 2:
                raise Broken("cannot be parsed: a comment has no end")
            continue
        tokens, at = _tokens(text, opening.end(), "}}" if opening[0] == "{{" else "%}")
        if opening[0] == "{%":
            tokens.insert(0, TemplateToken("tag", "{%"))
        yield TemplatePart(tokens)
        if [token.text for token in tokens] == ["{%", "raw"]:
            end = _END_RAW.search(text, at)
            if end is None:
                raise Broken("cannot be parsed: a raw block has no end")
            at = end.end()


def _tokens(text: str, at: int, end: str) -> tuple[list[TemplateToken], int]:
    found: list[TemplateToken] = []
    depth = 0
    while at < len(text):
        if not depth and text.startswith(end, at):
            while found and found[-1] in (TemplateToken("sign", "-"), TemplateToken("sign", "+")):
                found.pop()
            return _joined(found), at + 2
        match = _TOKEN.match(text, at)
        assert match is not None  # any character is a sign
        at = match.end()
        kind = match.lastgroup
        if kind == "sign" and match[0] in "'\"":
            raise Broken("cannot be parsed: a string has no end")
        depth += (match[0] in ("{", "[", "(")) - (match[0] in ("}", "]", ")")) if kind == "sign" else 0
        if kind and not (kind == "sign" and not found and match[0] in "-+"):
            found.append(TemplateToken(kind, _decoded(match[0][1:-1]) if kind == "string" else match[0]))
    raise Broken("cannot be parsed: an expression has no end")


def _joined(tokens: list[TemplateToken]) -> list[TemplateToken]:
    """Make strings that stand beside each other one, as Jinja does."""
    found: list[TemplateToken] = []
    run: list[str] = []
    for token in [*tokens, _NOTHING]:
        if token.kind == "string":
            run.append(token.text)
            continue
        if run:
            found.append(TemplateToken("string", "".join(run)))
            run = []
        found.append(token)
    return found[:-1]


def _decoded(text: str) -> str:
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def _character(match: re.Match[str]) -> str:
    if match[6]:
        return _LETTERS.get(match[6], match[6] if match[6] in "\\'\"" else match[0])
    if match[5] is not None:
        try:
            return unicodedata.lookup(match[5])
        except KeyError:
            raise Broken("cannot be parsed: a string has an escape that does not exist") from None
    code = int(match[4], 8) if match[4] else int(match[1] or match[2] or match[3], 16)
    return chr(code) if code < 0x110000 else "?"

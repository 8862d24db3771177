"""What a Jinja template reaches for beyond harmless rendering, told from its text; nothing is rendered.

Source: Jinja's ``lexer.py`` (delimiters, strings), ``sandbox.py`` (what it holds for unsafe) and ``defaults.py``. The
text is taken apart here, and not by Jinja itself, which the plain installation has not: a check must not say more or
less for what else is installed. What is known to be harmless is listed; the rest is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS = _words("range dict namespace raise_exception strftime_now caller cycler joiner")
"""What loaders give templates to call: Jinja's own globals, and those of transformers and llama.cpp."""
METHODS = frozenset(
    name for kind in (str, list, dict, tuple, set, int, float) for name in dir(kind) if not name.startswith("_")
) | {"cycle", "changed", "next", "reset", "strftime", "isoformat"}
"""Methods of plain values, of loops and of dates."""
FILTERS = _words(
    "abs batch capitalize center count d default dictsort e escape filesizeformat first float forceescape format"
    " groupby indent int items join last length list lower map max min pprint random reject rejectattr replace reverse"
    " round safe select selectattr slice sort string striptags sum title tojson trim truncate unique upper urlencode"
    " urlize wordcount wordwrap xmlattr from_json fromjson"
)
"""Jinja's filters, all but ``attr``, and the usual ones of JSON."""
TAGS = _words(
    "for endfor if elif else endif set endset macro endmacro call endcall filter endfilter with endwith raw endraw"
    " generation endgeneration break continue block endblock do autoescape endautoescape"
)
_LOADS = frozenset(["import", "from", "include", "extends"])
_RESERVED = _words(
    "cycler joiner lipsum self config request session g url_for get_flashed_messages namespace environment"
)
"""Names through which templates have got at Python's modules."""
_UNSAFE = _words(
    "mro gi_frame gi_code cr_frame cr_code ag_frame ag_code f_globals f_locals f_builtins func_globals func_code"
    " im_func tb_frame"
)
_WORDS = _words("in not and or if else elif is for recursive set do call with filter")
_DUNDER = re.compile(r"__[A-Za-z]|[A-Za-z]__")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3}))")
_OPEN = re.compile(r"\{\{|\{%|\{#")
_END_RAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
_TOKEN = re.compile(
    r"""\s+|(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<name>[^\W\d]\w*)|(?P<number>\d\w*)|(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)


class Token(NamedTuple):
    """A string (its text), a name, a number or a sign."""

    kind: str
    text: str


class Reach(NamedTuple):
    """What a template reaches for, and whether that is beyond what any chat template needs."""

    is_error: bool
    fact: str


class _Broken(Exception):
    """The text is no template: Jinja refuses it."""


def reaches(text: str) -> list[Reach]:
    """Return what a template reaches for, each once; a template that Jinja would refuse to parse says so."""
    parts: list[list[Token]] = []
    found: dict[Reach, None] = {}
    try:
        parts += _expressions(text)
    except _Broken as error:
        found[Reach(False, str(error))] = None
    bound, macros = _names(parts)
    for tokens in parts:
        for reach in _Judge(tokens, bound, macros).reaches():
            found[reach] = None
    return list(found)


def _expressions(text: str) -> Iterator[list[Token]]:
    """Yield the tokens of each expression, and of each statement behind a first token ``{%``."""
    at = 0
    while opening := _OPEN.search(text, at):
        if opening[0] == "{#":
            at = text.find("#}", opening.end()) + 2
            if at < 2:
                raise _Broken("cannot be parsed: a comment has no end")
            continue
        tokens, at = _tokens(text, opening.end(), "}}" if opening[0] == "{{" else "%}")
        if opening[0] == "{%":
            tokens.insert(0, Token("tag", "{%"))
        yield tokens
        if [token.text for token in tokens] == ["{%", "raw"]:
            end = _END_RAW.search(text, at)
            if end is None:
                raise _Broken("cannot be parsed: a raw block has no end")
            at = end.end()


def _tokens(text: str, at: int, end: str) -> tuple[list[Token], int]:
    found: list[Token] = []
    depth = 0
    while at < len(text):
        if not depth and text.startswith(end, at):
            while found and found[-1] in (Token("sign", "-"), Token("sign", "+")):
                found.pop()
            return found, at + 2
        match = _TOKEN.match(text, at)
        assert match is not None  # any character is a sign
        at = match.end()
        kind = match.lastgroup
        if kind == "sign" and match[0] in "'\"":
            raise _Broken("cannot be parsed: a string has no end")
        depth += (match[0] in ("{", "[", "(")) - (match[0] in ("}", "]", ")")) if kind == "sign" else 0
        if kind and not (kind == "sign" and not found and match[0] in "-+"):
            found.append(Token(kind, _decoded(match[0][1:-1]) if kind == "string" else match[0]))
    raise _Broken("cannot be parsed: an expression has no end")


def _decoded(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        code = int(match[4], 8) if match[4] else int(match[1] or match[2] or match[3], 16)
        return chr(code) if code < 0x110000 else "?"

    return _ESCAPE.sub(character, text)


def _names(parts: list[list[Token]]) -> tuple[set[str], set[str]]:
    """Return the names that a template binds itself, and its macros among them."""
    bound: set[str] = set()
    macros: set[str] = set()
    for tokens in parts:
        words = [token.text if token.kind == "name" else "" for token in tokens[:66]]
        if words[1:2] == ["macro"] and len(words) > 2:
            macros.add(words[2])
            bound |= set(words[2:])
        elif words[1:2] in (["set"], ["for"]):
            stop = next((i for i, token in enumerate(tokens) if token.text in ("=", "in")), len(words))
            bound |= set(words[2:stop])
    return bound - {""}, macros


class _Judge:
    """Goes over the tokens of one expression."""

    def __init__(self, tokens: list[Token], bound: set[str], macros: set[str]) -> None:
        self.tokens, self.bound, self.macros = tokens, bound, macros
        self.subscripts: list[bool] = []

    def _text(self, at: int) -> str:
        """The sign or name at a place; nothing for a string."""
        token = self.tokens[at] if 0 <= at < len(self.tokens) else Token("sign", "")
        return "" if token.kind == "string" else token.text

    def reaches(self) -> Iterator[Reach]:
        """Yield what the expression reaches for."""
        start = 0
        if self._text(0) == "{%":
            tag = self._text(1)
            start = 3 if tag == "macro" else 2
            if tag in _LOADS:
                yield Reach(True, f"loads another template with {tag!r}")
            elif tag not in TAGS:
                yield Reach(False, f"has the tag {tag[:40]!r}, which chat templates have not")
        for at in range(start, len(self.tokens)):
            token = self.tokens[at]
            if token.kind == "name":
                yield from self._name(at, token.text)
            elif token.kind == "string":
                yield from self._string(at, token.text)
            elif token.kind == "sign":
                yield from self._sign(at, token.text)

    def _name(self, at: int, name: str) -> Iterator[Reach]:
        before, behind = self._text(at - 1), self._text(at + 1)
        if before == ".":
            if name.startswith("_") or name in _UNSAFE:
                yield Reach(True, f"reaches for the attribute {name[:80]!r}")
            elif behind == "(" and name not in METHODS:
                yield Reach(False, f"calls the method {name[:80]!r}")
        elif before == "|":
            if name == "attr":
                yield Reach(True, "reaches for attributes by the filter 'attr'")
            elif name not in FILTERS:
                yield Reach(False, f"uses the filter {name[:80]!r}")
        elif name in _RESERVED and name not in self.bound and behind in (".", "[", "|"):
            yield Reach(True, f"reaches into {name!r}")
        elif behind == "(" and not self._is_called_lightly(at, name):
            yield Reach(False, f"calls {name[:80]!r}")

    def _is_called_lightly(self, at: int, name: str) -> bool:
        is_test = self._text(at - 1) == "is" or (self._text(at - 1) == "not" and self._text(at - 2) == "is")
        return is_test or name in _WORDS or name in FUNCTIONS or name in self.macros

    def _string(self, at: int, text: str) -> Iterator[Reach]:
        is_key = self._text(at - 1) == "[" and self._text(at + 1) == "]" and at > 1
        named = text in _UNSAFE or text == "attr" or text.startswith("_")
        is_argument = self._text(at - 1) in ("(", "=") and self._text(at + 1) in (")", ",")
        if _DUNDER.search(text) or (is_key and text.startswith("_")):
            yield Reach(True, f"names the attribute {text[:80]!r}")
        elif named and is_argument and self._filtered(at):
            yield Reach(True, f"hands {text[:80]!r} to a filter")

    def _filtered(self, at: int) -> bool:
        """Whether the argument at a place is a filter's first: ``| map('attr'``, ``| map(attribute='_x'``."""
        opening = at - (3 if self._text(at - 1) == "=" else 1)
        return self._text(opening) == "(" and self._text(opening - 2) == "|"

    def _sign(self, at: int, sign: str) -> Iterator[Reach]:
        before = self.tokens[at - 1] if at else Token("sign", "")
        follows_value = before.kind in ("string", "number") or before.text in (")", "]", "}")
        if sign == "[":
            self.subscripts.append(follows_value or (before.kind == "name" and before.text not in _WORDS))
        elif sign == "]" and self.subscripts:
            self.subscripts.pop()
        elif sign == "(" and follows_value and not self._is_call_tag(at):
            yield Reach(True, "calls what an expression gives")
        elif sign == "~" and any(self.subscripts):
            yield Reach(True, "reads an entry by a name that it puts together")

    def _is_call_tag(self, at: int) -> bool:
        return self._text(1) == "call" and at == 2

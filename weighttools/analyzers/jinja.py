"""What a Jinja template reaches for beyond harmless rendering, told from its text; nothing is rendered.

Source: Jinja's ``lexer.py`` (delimiters, strings), ``sandbox.py`` (what it holds for unsafe) and ``defaults.py``. The
text is taken apart here, and not by Jinja itself, which the plain installation has not: a check must not say more or
less for what else is installed. What is known to be harmless is listed; the rest is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from weighttools.analyzers.jinja_names import Names, words
from weighttools.analyzers.jinja_text import Broken, TemplatePart, TemplateToken, parts

FUNCTIONS = words("range dict namespace raise_exception strftime_now caller cycler joiner")
"""What loaders give templates to call: Jinja's own globals, and those of transformers and llama.cpp."""
METHODS = frozenset(
    name for kind in (str, list, dict, tuple, set, int, float) for name in dir(kind) if not name.startswith("_")
) | {"cycle", "changed", "next", "reset", "strftime", "isoformat"}
"""Methods of plain values, of loops and of dates."""
FILTERS = words(
    "abs batch capitalize center count d default dictsort e escape filesizeformat first float forceescape format"
    " groupby indent int items join last length list lower map max min pprint random reject rejectattr replace reverse"
    " round safe select selectattr slice sort string striptags sum title tojson trim truncate unique upper urlencode"
    " urlize wordcount wordwrap xmlattr from_json fromjson"
)
"""Jinja's filters, all but ``attr``, and the usual ones of JSON."""
TAGS = words(
    "for endfor if elif else endif set endset macro endmacro call endcall filter endfilter with endwith raw endraw"
    " generation endgeneration break continue block endblock do autoescape endautoescape"
)
_LOADS = frozenset(["import", "from", "include", "extends"])
_RESERVED = words(
    "cycler joiner lipsum self config request session g url_for get_flashed_messages namespace environment"
)
"""Names through which templates have got at Python's modules."""
_UNSAFE = words(
    "mro gi_frame gi_code cr_frame cr_code ag_frame ag_code f_globals f_locals f_builtins func_globals func_code"
    " im_func tb_frame"
)
_WORDS = words("in not and or if else elif is for recursive set do call with filter")
_DUNDER = re.compile(r"__[A-Za-z]|[A-Za-z]__")
_HIDDEN = re.compile("|".join(name + "|" + name[::-1] for name in sorted(_UNSAFE - {"mro"})), re.IGNORECASE)
_BY_ATTRIBUTE: dict[str, slice] = {
    **dict.fromkeys(("map", "sort", "groupby", "sum", "min", "max", "unique"), slice(None)),
    **dict.fromkeys(("selectattr", "rejectattr"), slice(0, 2)),
    **dict.fromkeys(("select", "reject"), slice(0, 1)),
    "join": slice(1, None),
}
"""Filters that read attributes, or apply filters and tests, by name; and which of their arguments may be such names."""


class Reach(NamedTuple):
    """What a template reaches for, and whether that is beyond what any chat template needs."""

    is_error: bool
    fact: str


def reaches(text: str) -> list[Reach]:
    """Return what a template reaches for, each once; a template that Jinja would refuse to parse says so."""
    read: list[TemplatePart] = []
    found: dict[Reach, None] = {}
    try:
        for part in parts(text):
            read.append(part)
    except Broken as error:
        found[Reach(False, str(error))] = None
    names = Names(read, _WORDS)
    for part in read:
        for reach in _Judge(part, names).reaches():
            found[reach] = None
    return list(found)


_CLOSED = [TemplateToken("sign", sign) for sign in ")]}"]


class _Judge:
    """Goes over the tokens of one expression."""

    def __init__(self, part: TemplatePart, names: Names) -> None:
        self.part, self.names = part, names
        self._word = part.word

    def reaches(self) -> Iterator[Reach]:
        """Yield what the expression reaches for."""
        start = 0
        if self._word(0) == "{%":
            tag = self._word(1)
            start = 3 if tag == "macro" else 2
            if tag in _LOADS:
                yield Reach(True, f"loads another template with {tag!r}")
            elif tag not in TAGS:
                yield Reach(False, f"has the tag {tag[:40]!r}, which chat templates have not")
        for at in range(start, len(self.part.tokens)):
            kind, text = self.part.tokens[at]
            if kind == "name":
                yield from self._name(at, text)
            elif kind == "string":
                yield from self._string(at, text)
            elif text == "[":
                yield from self._subscript(at)
            elif text == "(":
                yield from self._call(at)

    def _name(self, at: int, name: str) -> Iterator[Reach]:
        before, behind = self._word(at - 1), self._word(at + 1)
        if before == ".":
            yield from self._attribute(at, name)
        elif before == "|" or (before == "filter" and at == 2):
            yield from self._filter(at, name)
        elif name in _RESERVED and name not in self.names.bound and behind in (".", "[", "|"):
            yield Reach(True, f"reaches into {name!r}")
        elif behind == "(" and not self._is_test(at) and name not in _WORDS:
            yield from self._function(name)

    def _attribute(self, at: int, name: str) -> Iterator[Reach]:
        if name.startswith("_") or name in _UNSAFE:
            yield Reach(True, f"reaches for the attribute {name[:80]!r}")
        elif self._word(at + 1) == "(" and self.names.is_mixed_attribute(name):
            yield Reach(True, f"calls {name[:80]!r}, which the template itself sets")
        elif self._word(at + 1) == "(" and name not in METHODS:
            yield Reach(False, f"calls the method {name[:80]!r}")

    def _function(self, name: str) -> Iterator[Reach]:
        if name in self.names.macros:
            return
        if name in self.names.bound and (name in FUNCTIONS or self.names.is_mixed_name(name)):
            yield Reach(True, f"calls {name[:80]!r}, which the template itself sets")
        elif name in self.names.bound or name not in FUNCTIONS:
            yield Reach(False, f"calls {name[:80]!r}")

    def _is_test(self, at: int) -> bool:
        return self._word(at - 1) == "is" or (self._word(at - 1) == "not" and self._word(at - 2) == "is")

    def _filter(self, at: int, name: str) -> Iterator[Reach]:
        if name == "attr":
            yield Reach(True, "reaches for attributes by the filter 'attr'")
        elif name not in FILTERS:
            yield Reach(False, f"uses the filter {name[:80]!r}")
        if self._word(at + 1) == "(":
            yield from self._arguments(name, at + 1)

    def _arguments(self, name: str, opening: int) -> Iterator[Reach]:
        """Yield what a filter is given that names what it reads or applies."""
        arguments = self.part.arguments(opening)
        named = set(arguments[_BY_ATTRIBUTE.get(name, slice(0))])
        for start, stop in arguments:
            keyword = self._word(start) if self._word(start + 1) == "=" and self._word(start + 2) != "=" else ""
            first = self.part.token(start)
            if self._word(start) == "*" and (named or name in _BY_ATTRIBUTE):
                yield Reach(True, f"hands arguments that are not written out to the filter {name[:80]!r}")
            elif keyword == "attribute" or (keyword == "" and (start, stop) in named):
                yield from self._named(name, start + 2 * bool(keyword), stop)
            if name == "map" and start == opening + 1 and not keyword and (first.kind != "string" or stop != start + 1):
                yield Reach(True, "applies a filter whose name is not written out")

    def _named(self, name: str, start: int, stop: int) -> Iterator[Reach]:
        kind, text = self.part.token(start)
        hidden = kind == "string" and (text in _UNSAFE or text == "attr" or re.search(r"(?:^|\.)_", text))
        if hidden:
            yield Reach(True, f"hands {text[:80]!r} to a filter")
        elif self.names.is_mixed(self.part, start, stop):
            yield Reach(True, f"hands the filter {name[:80]!r} a name that it puts together")

    def _string(self, at: int, text: str) -> Iterator[Reach]:
        is_key = self._word(at - 1) == "[" and self._word(at + 1) == "]" and at > 1
        if _DUNDER.search(text) or _HIDDEN.search(text) or (is_key and (text.startswith("_") or text in _UNSAFE)):
            yield Reach(True, f"names the attribute {text[:80]!r}")

    def _subscript(self, at: int) -> Iterator[Reach]:
        stop = self.part.close(at)
        is_literal = stop == at + 2 and self.part.token(at + 1).kind == "string"  # judged as a string
        if at in self.part.slices or is_literal or not self.part.follows_value(at, _WORDS):
            return
        if self.names.is_mixed(self.part, at + 1, stop):
            yield Reach(True, "reads an entry by a name that it puts together")

    def _call(self, at: int) -> Iterator[Reach]:
        before = self.part.token(at - 1)
        is_value = before.kind in ("string", "number") or before in _CLOSED
        if is_value and not (self._word(1) == "call" and at == 2):
            yield Reach(True, "calls what an expression gives")

"""Which names of a template may hold text that the template itself puts together.

Such a text may spell any attribute, so that reading an entry by it (``x[name]``) may reach anything. A name is free of
that only if all that it is ever bound to is: what is known to put no text together is listed, the rest does. Texts of
messages and tools come from whoever renders the template, and are not the template's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import NamedTuple

from weighttools.analyzers.jinja_text import TemplatePart


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


_KEPT_BY_METHODS = words(
    "strip lstrip rstrip split rsplit lower get keys values items index find rfind count partition rpartition"
    " removeprefix removesuffix splitlines pop startswith endswith copy isdigit isspace"
)
"""Methods that give what was there already, a piece of it, or a number."""
_KEPT_BY_FILTERS = words(
    "length count int abs round first last list items min max default d sort unique dictsort select reject selectattr"
    " rejectattr trim lower reverse"
)
_KEPT_BY_FUNCTIONS = frozenset(["range", "dict", "namespace"])
_MUTATORS = frozenset(["append", "insert", "extend", "update", "setdefault", "add", "appendleft", "reset"])
_NUMBERS = frozenset(["index", "index0", "revindex", "revindex0", "length", "depth", "depth0"])
_OFTEN = 4
"""How often the tokens of a template are gone over: arguments lie in arguments. All names are mixed where that is not
enough."""
_FEW = 64
"""Steps back from a method to the name that it is called of."""


class _Bound(NamedTuple):
    """What some keys (names, and attributes with a dot before) are bound to: tokens of a part from `start` on."""

    keys: frozenset[str]
    part: TemplatePart
    start: int
    stop: int


class Names:
    """The names that a template binds, its macros, and which of them may hold text put together.

    Attributes
    ----------
    bound
        Names that are bound by anything but a macro's definition.
    macros
        Macros, of which each name is nothing else.
    attributes
        Attributes of namespaces that are set.
    """

    def __init__(self, parts: list[TemplatePart], words: frozenset[str]) -> None:
        self._words = words
        self.bound: set[str] = set()
        self.macros: set[str] = set()
        self.attributes: set[str] = set()
        self.spaces: set[str] = set()
        self._parameters: dict[str, set[str]] = defaultdict(set)
        self._looped: set[str] = {".previtem", ".nextitem"}
        self._bindings: list[_Bound] = []
        self._mixed: set[str] = set()
        for part in parts:
            if part.word(0) == "{%":
                self._bind(part)
        self.macros -= self.bound
        self._made = {
            id(part): [0, *accumulate(self._makes(part, at) for at in range(len(part.tokens)))] for part in parts
        }
        mutated: set[str] = set()
        for part in parts:
            self._bind_calls(part, mutated)
        self._spread(mutated)
        self._sums: dict[int, list[int]] = {}

    # -- what is bound ------------------------------------------------------------------------------------------------

    def _bind(self, part: TemplatePart) -> None:
        bind: dict[str, Callable[[TemplatePart], None]] = {
            "set": self._bind_set,
            "for": self._bind_for,
            "macro": self._bind_macro,
            "call": self._bind_call,
            "with": self._bind_with,
        }
        if part.word(1) in bind:
            bind[part.word(1)](part)

    def _bind_set(self, part: TemplatePart) -> None:
        stop = _first(part, ("=", "|"))
        keys = self._targets(part, 2, stop)
        if part.word(stop) == "=":
            self._bindings.append(_Bound(keys, part, stop + 1, len(part.tokens)))
        else:  # the text of a block
            self._mixed |= keys

    def _targets(self, part: TemplatePart, start: int, stop: int) -> frozenset[str]:
        keys = set()
        for at in range(start, stop):
            token = part.tokens[at]
            if token.kind != "name":
                continue
            if part.word(at - 1) == ".":
                self.attributes.add(token.text)
                keys.add("." + token.text)
            elif part.word(at + 1) == ".":
                self.spaces.add(token.text)
            else:
                self.bound.add(token.text)
                keys.add(token.text)
        return frozenset(keys)

    def _bind_for(self, part: TemplatePart) -> None:
        stop = _first(part, ("in",))
        keys = self._targets(part, 2, stop)
        self._looped |= keys
        self._bindings.append(_Bound(keys | {".previtem", ".nextitem"}, part, stop + 1, len(part.tokens)))

    def _bind_macro(self, part: TemplatePart) -> None:
        self.macros.add(part.word(2))
        self._bind_parameters(part, part.word(2), 3)

    def _bind_call(self, part: TemplatePart) -> None:
        if part.word(2) == "(":
            self._bind_parameters(part, "caller", 2)

    def _bind_parameters(self, part: TemplatePart, macro: str, opening: int) -> None:
        names = {part.word(start) for start, _ in part.arguments(opening) if part.token(start).kind == "name"}
        self.bound |= names
        self._parameters[macro] |= names | {"varargs", "kwargs"}
        self._bindings.append(_Bound(frozenset(names), part, opening + 1, part.close(opening)))

    def _bind_with(self, part: TemplatePart) -> None:
        names = {part.word(at - 1) for at in range(3, len(part.tokens)) if part.word(at) == "="} - {"=", ""}
        self.bound |= names
        self._bindings.append(_Bound(frozenset(names), part, 2, len(part.tokens)))

    def _bind_calls(self, part: TemplatePart, mutated: set[str]) -> None:
        """Bind what macros, loops and containers are given."""
        every = {name for names in self._parameters.values() for name in names}
        for at in range(1, len(part.tokens)):
            if part.word(at) != "(" or part.token(at - 1).kind != "name":
                continue
            name, keys = part.word(at - 1), set[str]()
            if part.word(at - 2) == ".":
                keys = self._changed(part, at - 2) if name in _MUTATORS else set()
                mutated |= keys
            elif name == "loop":
                keys = self._looped
            elif name in self._parameters and name not in self.bound:
                keys = self._parameters[name] if part.word(1) != "macro" or at != 3 else set()
            elif name in self.bound:
                keys = every
            if keys:
                self._bindings.append(_Bound(frozenset(keys), part, at + 1, part.close(at)))

    def _changed(self, part: TemplatePart, at: int) -> set[str]:
        """Return the name whose content the method behind a dot changes, or the attributes of it."""
        keys: set[str] = set()
        for _ in range(_FEW):
            at = part.opens.get(at - 1, at - 1)
            token = part.token(at)
            if token.text in ("[", "(") and token.kind == "sign":
                keys |= {"." + part.token(at + 1).text} if part.token(at + 1).kind == "string" else set()
                continue
            if token.kind != "name":
                break
            if part.word(at - 1) != ".":
                return keys if keys and token.text in self.spaces else keys | {token.text}
            keys.add("." + token.text)
            at -= 1
        return keys | self.bound | {"." + name for name in self.attributes}

    # -- what puts text together --------------------------------------------------------------------------------------

    def _makes(self, part: TemplatePart, at: int) -> bool:
        """Whether a token puts text together, whatever the names hold."""
        kind, text = part.tokens[at]
        if kind == "sign":
            return self._makes_by_sign(part, at, text)
        if kind == "string":
            return text.startswith("_")
        return part.word(at - 1) == "|" and not self._keeps_by_filter(part, at)

    def _makes_by_sign(self, part: TemplatePart, at: int, sign: str) -> bool:
        if sign == "(":
            return self._calls(part, at)
        if sign == "+":
            return not (self._is_number(part, at - 1) or self._is_number(part, at + 1, -1) or self._is_list(part, at))
        if sign == "*":
            return not (self._is_number(part, at - 1) and self._is_number(part, at + 1, -1))
        return sign == "~" or (sign == "%" and not self._is_number(part, at - 1)) or self._steps(part, at)

    def _keeps_by_filter(self, part: TemplatePart, at: int) -> bool:
        if part.word(at) == "map":
            return part.word(at + 1) == "(" and part.word(at + 2) == "attribute" and part.word(at + 3) == "="
        return part.word(at) in _KEPT_BY_FILTERS

    def _calls(self, part: TemplatePart, at: int) -> bool:
        name, before = part.word(at - 1), part.word(at - 2)
        if not part.follows_value(at, self._words):
            return False
        if before == ".":
            return name not in _KEPT_BY_METHODS
        if before == "|":
            return False  # judged as a filter
        is_test = before == "is" or (before == "not" and part.word(at - 3) == "is")
        return not is_test and (name not in _KEPT_BY_FUNCTIONS or name in self.bound)

    def _is_number(self, part: TemplatePart, at: int, towards: int = 1) -> bool:
        """Whether the operand that ends (or begins) at a place is a number: text is never added to one."""
        if part.token(at).kind == "number":
            start = at - 2 if part.word(at - 1) == "." and part.token(at - 2).kind == "number" else at
            return part.word(start - 1) != "."  # an entry: ``pair.0``
        if towards < 0:
            return part.word(at) == "loop" and part.word(at + 1) == "." and self._is_number(part, at + 2)
        if part.word(at - 1) == "|":
            return part.word(at) in ("length", "count", "int")
        return part.word(at) in _NUMBERS and part.word(at - 1) == "." and self._is_loop(part, at - 2)

    def _is_loop(self, part: TemplatePart, at: int) -> bool:
        return part.word(at) == "loop" and part.word(at - 1) != "." and "loop" not in self.bound

    def _is_list(self, part: TemplatePart, at: int) -> bool:
        """Whether what is added at a place is a list that is written out there."""
        opening = part.opens.get(at - 1, -1)
        is_left = part.word(opening) == "[" and not part.follows_value(opening, self._words)
        return part.word(at + 1) == "[" or is_left

    def _steps(self, part: TemplatePart, at: int) -> bool:
        """Whether a colon is a slice's second, and takes other letters than all, in order or backwards."""
        behind = [part.word(at + n) for n in (1, 2, 3)]
        return at in part.steps and behind[0] != "]" and behind != ["-", "1", "]"]

    # -- what follows from it -----------------------------------------------------------------------------------------

    def _spread(self, mutated: set[str]) -> None:
        """Find all names that may hold what is put together: from name to name, along what is bound."""
        to: dict[str, list[str]] = defaultdict(list)
        used: dict[int, set[str]] = {}
        left = sum(len(made) for made in self._made.values()) * _OFTEN
        for n, (keys, part, start, stop) in enumerate(self._bindings):
            made = self._made[id(part)]
            if made[min(stop, len(made) - 1)] > made[start]:
                self._mixed |= keys
            left -= stop - start
            if left < 0:
                self._mixed |= self.bound | {"varargs", "kwargs"} | {"." + name for name in self.attributes}
                break
            used[n] = {key for at in range(start, min(stop, len(part.tokens))) for key in self._uses(part, at)}
            to[f"#{n}"] += keys
            for key in used[n]:
                to[key].append(f"#{n}")
        self._alias(mutated, used, to)
        for name in self.attributes:
            to["." + name].append(".*")
        todo = list(self._mixed)
        while todo:
            for key in to[todo.pop()]:
                if key not in self._mixed:
                    self._mixed.add(key)
                    todo.append(key)

    def _alias(self, mutated: set[str], used: dict[int, set[str]], to: dict[str, list[str]]) -> None:
        """What is put into a container lies in what the container was taken from, too."""
        by_key: dict[str, list[int]] = defaultdict(list)
        for n, binding in enumerate(self._bindings):
            for key in binding.keys:
                by_key[key].append(n)
        todo, done = list(mutated), set(mutated)
        while todo:
            key = todo.pop()
            for n in by_key.pop(key, []):
                to[key] += used.get(n, ())
                todo += used.get(n, set()) - done
                done |= used.get(n, set())

    def _uses(self, part: TemplatePart, at: int) -> Iterable[str]:
        """The keys that a token stands for."""
        kind, text = part.tokens[at]
        if kind == "string":
            return ["." + text]
        if kind != "name" or part.word(at - 1) == "|":
            return []
        if part.word(at - 1) == ".":
            return ["." + text]
        is_read_by_name = part.word(at + 1) == "." or (part.word(at + 1) == "[" and part.token(at + 2).kind == "string")
        return [text] if is_read_by_name or text not in self.spaces else [text, ".*"]

    def is_mixed(self, part: TemplatePart, start: int, stop: int) -> bool:
        """Whether an expression's value may be, or hold, text that the template puts together."""
        sums = self._sums.get(id(part))
        if sums is None:
            made = self._made[id(part)]
            own = [
                made[at + 1] - made[at] or any(key in self._mixed for key in self._uses(part, at))
                for at in range(len(part.tokens))
            ]
            sums = self._sums[id(part)] = [0, *accumulate(map(int, own))]
        return sums[min(stop, len(sums) - 1)] > sums[start]

    def is_mixed_name(self, name: str) -> bool:
        """Whether a name that the template binds may hold what is put together."""
        return name in self._mixed

    def is_mixed_attribute(self, name: str) -> bool:
        """Whether an attribute that the template sets may hold what is put together."""
        return "." + name in self._mixed


def _first(part: TemplatePart, texts: tuple[str, ...]) -> int:
    return next((at for at in range(2, len(part.tokens)) if part.word(at) in texts), len(part.tokens))

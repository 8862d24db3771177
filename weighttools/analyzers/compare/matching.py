"""Which tensors of two checkpoints belong together: by what the user says, by names, by ties, and by content.

Each stage takes what the ones before it left over: rules and names first, then what looks at values. Two tensors are
compared once, whatever number of ties names them both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from operator import itemgetter
from typing import NamedTuple

from weighttools.analyzers.compare.pair import Pair
from weighttools.core import patterns
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, option


class Rule(NamedTuple):
    """``OLD=NEW``: what old names are called now; a ``*`` of OLD stands for any text, which that of NEW repeats.

    Parameters
    ----------
    old, new
        Both sides, cut at their stars.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``OLD=NEW``; after a backslash, ``=``, ``*`` and the backslash itself are ordinary.

        Raises
        ------
        SpecError
            One side is missing, or NEW has more stars than OLD.
        """
        old, sign, new = _partition(text)
        if not (old and sign and new):
            raise SpecError(f"{option('map')} {text!r} is no renaming", expected="OLD=NEW", code="no-renaming")
        rule = cls(_cut(old), _cut(new))
        if len(rule.new) > len(rule.old):
            fact = f"{option('map')} {text!r} has more stars on the right"
            raise SpecError(fact, expected="as many as on the left, or fewer", code="no-renaming")
        return rule

    @property
    def text(self) -> str:
        """What OLD is, to be named in a message."""
        return "*".join(self.old)

    def renamed(self, name: str) -> str | None:
        """Return what the old `name` is called by this rule; None where it says nothing of it."""
        if len(self.old) == 1:
            return "*".join(self.new) if name == self.old[0] else None
        found = re.fullmatch("(.*)".join(map(re.escape, self.old)), name, re.DOTALL)
        if not found:
            return None
        return "".join(chain.from_iterable(zip(self.new, (*found.groups()[: len(self.new) - 1], ""), strict=True)))


def _partition(text: str) -> tuple[str, str, str]:
    """Part a text at its first equals sign that no backslash stands before."""
    found = re.match(r"((?:\\.|[^\\=])*)(=?)(.*)", text, re.DOTALL)
    assert found is not None, "it matches any text"
    return found[1], found[2], found[3]


def _cut(text: str) -> tuple[str, ...]:
    """Cut a side of a rule at its stars."""
    pieces = re.findall(r"\\[=*\\]|[^*]|\*", text, re.DOTALL)
    marked = "".join("*" if piece == "*" else "." for piece in pieces)
    plain = [piece[1:] if len(piece) == 2 else piece for piece in pieces]
    cuts = [-1, *(i for i, mark in enumerate(marked) if mark == "*"), len(plain)]
    return tuple("".join(plain[start + 1 : stop]) for start, stop in pairwise(cuts))


@dataclass(slots=True)
class Matching:
    """What belongs together, and what is left.

    Parameters
    ----------
    pairs
        Tensors of one shape, in the new checkpoint's order.
    reshaped
        Tensors of one name and different shapes.
    removed, added
        Old tensors, and new ones, that belong to nothing.
    lost, gained
        Old and new names of tensors that the other checkpoint has too, but by other names only.
    ties
        Ties of one checkpoint only: under ``"added"`` and ``"removed"``, alias to the stored name.
    """

    pairs: list[Pair] = field(default_factory=list)
    reshaped: list[Pair] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    gained: list[str] = field(default_factory=list)
    ties: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of_stage(
        cls, pairs: Sequence[Pair], before: TensorMap, after: TensorMap, gone: Collection[str] | None = None
    ) -> Matching:
        """Return what a stage makes of two maps: its pairs, and all that is in none of them.

        `gone` are the old tensors that pairs have, where a pair may have several.
        """
        old = {pair.old for pair in pairs} if gone is None else gone
        new = {pair.new for pair in pairs}
        return cls(
            pairs=list(pairs),
            removed=[name for name in before if name not in old],
            added=[name for name in after if name not in new],
        )

    def take(self, pair: Pair) -> None:
        """Add a pair, by whether its shapes agree."""
        (self.pairs if pair.before.shape == pair.after.shape else self.reshaped).append(pair)

    def follow(self, later: Matching) -> None:
        """Add what a later stage made of what was left over: `removed`, `added` and both sides of `reshaped`."""
        old, new = set(later.removed), set(later.added)
        self.pairs += later.pairs
        self.reshaped = [pair for pair in self.reshaped if pair.old in old and pair.new in new] + later.reshaped
        still = {pair.old for pair in self.reshaped}, {pair.new for pair in self.reshaped}
        self.removed = [name for name in later.removed if name not in still[0]]
        self.added = [name for name in later.added if name not in still[1]]


Stage = Callable[[TensorMap, TensorMap], Matching]
"""Matches what names left over of both checkpoints; its `removed` and `added` are what it leaves over in turn."""


def match(before: TensorMap, after: TensorMap, rules: Sequence[Rule] = (), stages: Sequence[Stage] = ()) -> Matching:
    """Match two checkpoints by the rules that are given, by names and ties, and then stage by stage.

    Parameters
    ----------
    before, after
        The old and the new checkpoint.
    rules
        Renamings; of several that fit a name the first counts.
    stages
        What looks beyond names, each at what the ones before it left over.

    Raises
    ------
    TensorNotFoundError
        A rule fits no old name, or what it leads to is not there.
    SpecError
        Two rules lead to one new name.
    """
    found = match_names(before, after, rules)
    for stage in stages:
        old, new = ([*map(itemgetter(i), found.reshaped)] for i in (0, 1))
        if (found.removed or old) and (found.added or new):
            found.follow(stage(before.keep([*found.removed, *old]), after.keep([*found.added, *new])))
    return found


def match_names(before: TensorMap, after: TensorMap, rules: Sequence[Rule] = ()) -> Matching:
    """Match by rules and names; a tie's name says as much as a stored one, and a pair of tensors is taken once."""
    found = Matching()
    named = _old_names(before, after, rules)
    taken: dict[tuple[str, str], None] = {}
    for new, old in named.items():
        key = _stored(old, before), _stored(new, after)
        if key not in taken:
            taken[key] = None
            how = "map" if old != new else "name" if key == (old, new) else "tie"
            found.take(Pair(old, new, how, before[old], after[new]))
    old_taken, new_taken = ({key[i] for key in taken} for i in (0, 1))
    found.removed = [name for name in before if name not in old_taken]
    found.added = [name for name in after if name not in new_taken]
    new_names = {old: new for new, old in named.items()}
    found.lost = [name for name in _names(before) if name not in new_names and _stored(name, before) in old_taken]
    found.gained = [name for name in _names(after) if name not in named and _stored(name, after) in new_taken]
    found.ties = {"added": _ties_beyond(after, before, named), "removed": _ties_beyond(before, after, new_names)}
    return found


def _names(tensor_map: TensorMap) -> list[str]:
    """Return all names: those of stored tensors in order, then ties."""
    return [*tensor_map, *tensor_map.aliases]


def _stored(name: str, tensor_map: TensorMap) -> str:
    return tensor_map.aliases.get(name, name)


def _old_names(before: TensorMap, after: TensorMap, rules: Sequence[Rule]) -> dict[str, str]:
    """Return the old name of each new one that has one, in the new checkpoint's order."""
    told = _by_rules(before, after, rules)
    used = set(told.values())
    found = {}
    for new in _names(after):
        if new in told:
            found[new] = told[new]
        elif new in before and new not in used:
            found[new] = new
    return found


def _by_rules(before: TensorMap, after: TensorMap, rules: Sequence[Rule]) -> dict[str, str]:
    """Return, for new names that rules lead to, the old names."""
    told: dict[str, str] = {}
    names = _names(before)
    left = dict.fromkeys(names)
    for rule in rules:
        pairs = [(name, new) for name in names if (new := rule.renamed(name)) is not None]
        if not pairs:
            raise patterns.not_found(rule.text, names, what="pattern" if len(rule.old) > 1 else "tensor")
        there = [(old, new) for old, new in pairs if old in left and new in after]
        if not there:
            raise patterns.not_found(pairs[0][1], _names(after))
        for old, new in there:
            if new in told:
                fact = f"{told[new]!r} and {old!r} would both be {new!r}"
                raise SpecError(fact, expected="one old tensor for each", code="names-collide")
            told[new] = old
            del left[old]
    return told


def _ties_beyond(one: TensorMap, other: TensorMap, names: Mapping[str, str]) -> dict[str, str]:
    """Return the ties of `one` that are none in the other, whose names for its own are `names`."""
    found = {}
    for alias, kept in one.aliases.items():
        there = {_stored(names[name], other) if name in names else None for name in (alias, kept)}
        if len(there) > 1 or None in there:
            found[alias] = kept
    return found

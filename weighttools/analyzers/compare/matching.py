"""Which tensors of two checkpoints belong together: by what the user says, by names, by ties, and by content.

Each stage takes what the ones before it left over. A tensor is taken once: a tie is compared where its tensor is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from weighttools.analyzers.compare.pair import Pair
from weighttools.core import patterns
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, option


class Rule(NamedTuple):
    """``OLD=NEW``: what old names are called now; a ``*`` of OLD stands for any text, which that of NEW repeats."""

    old: str
    new: str

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``OLD=NEW``.

        Raises
        ------
        SpecError
            One side is missing, or NEW has more stars than OLD.
        """
        old, sign, new = text.partition("=")
        if not (old and sign and new):
            raise SpecError(f"{option('map')} {text!r} is no renaming", expected="OLD=NEW", code="no-renaming")
        if new.count("*") > old.count("*"):
            fact = f"{option('map')} {text!r} has more stars on the right"
            raise SpecError(fact, expected="as many as on the left, or fewer", code="no-renaming")
        return cls(old, new)

    def renamed(self, name: str) -> str | None:
        """Return what the old `name` is called by this rule; None where it says nothing of it."""
        if "*" not in self.old:
            return self.new if name == self.old else None
        found = re.fullmatch("(.*)".join(map(re.escape, self.old.split("*"))), name, re.DOTALL)
        if not found:
            return None
        parts = iter((*found.groups(), *[""] * self.new.count("*")))
        return "".join(next(parts) if piece == "*" else piece for piece in re.split(r"(\*)", self.new))


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
        Old names, and new ones, that belong to nothing.
    """

    pairs: list[Pair] = field(default_factory=list)
    reshaped: list[Pair] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)

    def take(self, pair: Pair) -> None:
        """Add a pair, by whether its shapes agree."""
        (self.pairs if pair.before.shape == pair.after.shape else self.reshaped).append(pair)


def match(before: TensorMap, after: TensorMap, rules: Sequence[Rule] = ()) -> Matching:
    """Match two checkpoints by the rules that are given, by names and by ties.

    Parameters
    ----------
    before, after
        The old and the new checkpoint.
    rules
        Renamings; of several that fit a name the first counts.

    Raises
    ------
    TensorNotFoundError
        A rule fits no old name, or what it leads to is not there.
    SpecError
        Two rules lead to one new name.
    """
    found = Matching()
    told = _by_rules(before, after, rules)
    taken_old, taken_new = set(told.values()), set(told)
    for new in after:
        old = told.get(new, new if new in before and new not in taken_old else None)
        if old is None:
            continue
        taken_new.add(new)
        taken_old.add(before.aliases.get(old, old))
        found.take(Pair(old, new, _reason(old, new, told, before), before[old], after[new]))
    _match_ties(before, after, found, taken_old)
    found.removed = [name for name in before if name not in taken_old]
    found.added = [name for name in after if name not in taken_new]
    return found


def _reason(old: str, new: str, told: Mapping[str, str], before: TensorMap) -> str:
    if new in told and old != new:
        return "map"
    return "tie" if old in before.aliases else "name"


def _match_ties(before: TensorMap, after: TensorMap, found: Matching, taken_old: set[str]) -> None:
    """Hold old tensors that are ties now against what they are tied to."""
    for alias in after.aliases:
        if alias in before and alias not in taken_old and alias not in before.aliases:
            taken_old.add(alias)
            found.take(Pair(alias, alias, "tie", before[alias], after[alias]))


def _by_rules(before: TensorMap, after: TensorMap, rules: Sequence[Rule]) -> dict[str, str]:
    """Return, for new names that rules lead to, the old names."""
    told: dict[str, str] = {}
    names = list(before)
    left = dict.fromkeys(names)
    for rule in rules:
        pairs = [(name, new) for name in names if (new := rule.renamed(name)) is not None]
        if not pairs:
            raise patterns.not_found(rule.old, names, what="pattern" if "*" in rule.old else "tensor")
        there = [(old, new) for old, new in pairs if old in left and new in after]
        if not there:
            raise patterns.not_found(pairs[0][1], list(after))
        for old, new in there:
            if new in told:
                fact = f"{told[new]!r} and {old!r} would both be {new!r}"
                raise SpecError(fact, expected="one old tensor for each", code="names-collide")
            told[new] = old
            del left[old]
    return told


def tie_changes(before: TensorMap, after: TensorMap) -> dict[str, dict[str, str]]:
    """Return ties of one checkpoint only: under ``"added"`` and ``"removed"``, alias to the stored name."""
    return {
        "added": _ties_beyond(after.aliases, before.aliases),
        "removed": _ties_beyond(before.aliases, after.aliases),
    }


def _ties_beyond(ties: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    return {alias: kept for alias, kept in ties.items() if others.get(alias) != kept and others.get(kept) != alias}

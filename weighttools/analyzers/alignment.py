"""Which renaming makes the names of one checkpoint those of another: prefixes to take off and to put on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weighttools.core.tensormap import TensorMap

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_MOST_RULES = 20
_MOST_ENDINGS = 64
"""Tensors of one ending that are looked at; endings that more have tell nothing."""

_PARTS = 12
"""Parts of a name that may be prefix."""


@dataclass(frozen=True, slots=True)
class RenameRule:
    """Names that begin with `src` begin with `dst` instead; `n_names` of them then line up."""

    src: str
    dst: str
    n_names: int

    def text(self) -> str:
        """Return the rule as ``convert --rename`` takes it."""
        if "=" not in self.src and not self.src.startswith("re:"):
            return f"{self.src}={self.dst}"
        pattern = re.escape(self.src).replace("=", r"\x3d")
        replacement = self.dst.replace("\\", r"\\")
        return f"re:^{pattern}={replacement}"

    def record(self) -> dict[str, Any]:
        """Return the rule with stable keys; `pattern` and `replacement` are for `re.sub`."""
        return {
            "src": self.src,
            "dst": self.dst,
            "n_names": self.n_names,
            "pattern": f"^{re.escape(self.src)}",
            "replacement": self.dst.replace("\\", r"\\"),
        }


@dataclass(frozen=True, slots=True)
class Alignment:
    """How the names of two checkpoints line up.

    Parameters
    ----------
    n_same
        Names that both have, with one shape.
    shapes
        Names that both have, with different shapes.
    rules
        What to rename.
    renamed
        Old to new name, by the rules.
    left, right
        Names of the one and of the other that nothing pairs.
    """

    n_same: int
    shapes: list[str]
    rules: list[RenameRule]
    renamed: dict[str, str]
    left: list[str]
    right: list[str]

    def record(self) -> dict[str, Any]:
        """Return the alignment with stable keys."""
        return {
            "n_same": self.n_same,
            "rename": [rule.record() for rule in self.rules],
            "renamed": self.renamed,
            "different_shapes": self.shapes,
            "only_here": self.left,
            "only_there": self.right,
        }


@dataclass(slots=True)
class _Open:
    """Names not paired yet."""

    left: dict[str, Shape]
    right: dict[str, Shape]
    rules: list[RenameRule] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)


def align(tensor_map: TensorMap, other: TensorMap) -> Alignment:
    """Return the renaming of prefixes (whole parts of names) that makes most names of a map those of another.

    Notes
    -----
    Each name votes for the pairs of prefixes that leave it, and a name of the same shape, the longest common ending;
    the pair that makes most names line up is taken, and the rest votes again.
    """
    ours, theirs = _shapes(tensor_map), _shapes(other)
    both = [name for name in ours if name in theirs]
    shapes = [name for name in both if ours[name] != theirs[name]]
    rest = _Open(
        {name: shape for name, shape in ours.items() if name not in theirs},
        {name: shape for name, shape in theirs.items() if name not in ours},
    )
    while len(rest.rules) < _MOST_RULES and (rule := _best(rest)):
        _apply(rule, rest)
    return Alignment(len(both) - len(shapes), shapes, rest.rules, rest.renamed, list(rest.left), list(rest.right))


def _shapes(tensor_map: TensorMap) -> dict[str, Shape]:
    found = dict(zip(tensor_map, (spec.shape for spec in tensor_map.specs()), strict=True))
    return found | {alias: found[kept] for alias, kept in tensor_map.aliases.items() if kept in found}


def _endings(name: str) -> Iterator[tuple[str, str]]:
    """Yield a name as prefix and ending, cut between its parts, the longest ending first."""
    yield "", name
    at = 0
    for _ in range(_PARTS):
        at = name.find(".", at) + 1
        if not at:
            return
        yield name[:at], name[at:]


def _best(rest: _Open) -> RenameRule | None:
    endings: dict[str, list[str]] = defaultdict(list)
    for name in rest.right:
        for prefix, ending in _endings(name):
            endings[ending].append(prefix)
    votes: Counter[tuple[str, str]] = Counter()
    for name, shape in rest.left.items():
        votes.update(_votes(name, shape, endings, rest.right))
    if not votes:
        return None
    (src, dst), n = min(votes.items(), key=lambda item: (-item[1], len(item[0][0]) + len(item[0][1]), item[0]))
    return RenameRule(src, dst, n)


def _votes(name: str, shape: Shape, endings: Mapping[str, Sequence[str]], right: Shapes) -> list[tuple[str, str]]:
    for prefix, ending in _endings(name):
        theirs = endings.get(ending, ())
        found = [(prefix, other) for other in theirs[:_MOST_ENDINGS] if right[other + ending] == shape]
        if found and len(theirs) <= _MOST_ENDINGS:
            return found
    return []


def _apply(rule: RenameRule, rest: _Open) -> None:
    """Pair what the rule pairs; of a name that begins with `src`, another rule may have paired it before."""
    n = 0
    for name, shape in list(rest.left.items()):
        new = rule.dst + name.removeprefix(rule.src)
        if name.startswith(rule.src) and rest.right.get(new) == shape:
            del rest.left[name], rest.right[new]
            rest.renamed[name] = new
            n += 1
    rest.rules.append(RenameRule(rule.src, rule.dst, n))

"""What explanations are found from: pairs that changed, with their figures, and what is known around them."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from weighttools.analyzers.compare.pair import Explanation, Pair, PairFigures
from weighttools.core.spec import Spec
from weighttools.families.role_types import Role
from weighttools.families.roles import needs_neighbours, tell_role

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from weighttools.analyzers.compare.explain.questions import Question
    from weighttools.core.tensormap import TensorMap


_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
"""The number of a module within a name: layers of one make hold tensors of one role."""

LEAST, GREATEST = 1e-60, 1e60
"""Norms between which fourth powers are within float64."""


class ChangedPair(NamedTuple):
    """A pair of which values differ, and how."""

    pair: Pair
    figures: PairFigures

    @property
    def name(self) -> str:
        """The new name."""
        return self.pair.new

    @property
    def is_plain(self) -> bool:
        """Whether both sides are real floating numbers, finite and of ordinary size: causes are looked for there alone.

        Squares of the norms, and of those, are then within float64.
        """
        both = self.pair.before.dtype.is_float and self.pair.after.dtype.is_float
        norms = (self.figures.l2, self.figures.l2_before, self.figures.l2_after)
        return both and not self.figures.n_not_finite and all(n == 0 or LEAST < n < GREATEST for n in norms)

    @property
    def matrix(self) -> tuple[int, int] | None:
        """Rows and columns, the first axis by all others; None of fewer than two axes, or without elements."""
        shape, n = self.pair.after.shape, self.figures.n_elements
        return (shape[0], n // shape[0]) if len(shape) > 1 and n else None


@dataclass(frozen=True, slots=True)
class ExplanationContext:
    """What is known besides the pairs that changed.

    Parameters
    ----------
    unchanged
        Pairs of equal values.
    reshaped
        Pairs whose shapes differ.
    names
        All names of the new checkpoint, among which roles are told.
    others, other_names
        Checkpoints that the new one may be made of besides the old one, and what to call each.
    executor
        Where to read changed tensors again; None reads here.
    progress
        Called with the number of bytes just read.
    """

    unchanged: Sequence[Pair] = ()
    reshaped: Sequence[Pair] = ()
    names: Container[str] = ()
    others: Sequence[TensorMap] = ()
    other_names: Sequence[str] = ()
    executor: Executor | None = None
    progress: Callable[[int], None] | None = None
    _roles: dict[tuple[str, Spec], Role] = field(default_factory=dict, repr=False, compare=False)

    def role(self, pair: Pair) -> Role:
        """Return what a pair's new tensor is to its model; once for all layers, where its neighbours do not matter."""
        name, spec = pair.new, pair.after.spec
        alike = (_LAYER.sub("0", name), spec)
        found = self._roles.get(alike)
        if found is None:
            found = tell_role(name, spec, self.names or None).role
            if not needs_neighbours(name):
                self._roles[alike] = found
        return found


Answers = Mapping[str, Mapping[str, Any]]
"""For each new name, by the cause that asked, what the second reading found."""


@dataclass(slots=True)
class Findings:
    """What the causes look at, in turn; each says which tensors it accounts for wholly, and later ones pass over them.

    Parameters
    ----------
    changes
        In the new checkpoint's order.
    context
        What is known around them.
    answers
        What reading them again found.
    explained
        By the new names of tensors that a cause accounts for to the last bit, or but for rounding, its code.
    """

    changes: Sequence[ChangedPair]
    context: ExplanationContext
    answers: Answers
    explained: dict[str, str] = field(default_factory=dict)

    def open(self, code: str) -> list[tuple[ChangedPair, Any]]:
        """Return what a cause asked about and no earlier one accounts for, with the answers."""
        return [
            (change, self.answers[change.name][code])
            for change in self.changes
            if change.name not in self.explained and code in self.answers.get(change.name, ())
        ]


class Cause(NamedTuple):
    """A kind of cause.

    Parameters
    ----------
    explain
        Says what is so, and nothing when not sure.
    code
        The key of its answers.
    asks
        What it needs to know of a changed pair beyond the figures; None for nothing.
    accounts
        Whether what it explains needs no other explanation.
    """

    explain: Callable[[Findings], list[Explanation]]
    code: str = ""
    asks: Callable[[ChangedPair, ExplanationContext], Question | None] | None = None
    accounts: bool = False

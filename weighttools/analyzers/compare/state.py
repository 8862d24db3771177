"""What is known of some elements of a pair of tensors: it merges over the fold, and gives the figures."""

from __future__ import annotations

import math
from typing import NamedTuple

from weighttools.analyzers.compare.pair import PairFigures
from weighttools.analyzers.moments import ldexp


class PairSums(NamedTuple):
    """Sums of squares and products, of values by powers of two that keep huge and tiny float64 in range.

    Parameters
    ----------
    difference, before, after
        Sums of squares of the difference times ``2**-max(scale_before, scale_after)``, and of both sides, each times
        ``2**-scale`` of its own.
    dot
        The sum of products of both sides, scaled so.
    scale_before, scale_after
        0 but for huge and tiny values.
    """

    difference: float = 0.0
    before: float = 0.0
    after: float = 0.0
    dot: float = 0.0
    scale_before: int = 0
    scale_after: int = 0

    @property
    def scale(self) -> int:
        """The scale of the difference."""
        return max(self.scale_before, self.scale_after)

    def merge(self, other: PairSums) -> PairSums:
        """Return the sums of both parts together."""
        one = _larger(self.before, self.scale_before, other.before, other.scale_before)
        two = _larger(self.after, self.scale_after, other.after, other.scale_after)
        a, b = self._at(one, two), other._at(one, two)
        return PairSums(a.difference + b.difference, a.before + b.before, a.after + b.after, a.dot + b.dot, one, two)

    def _at(self, before: int, after: int) -> PairSums:
        """Return the sums by other scales."""
        one, two = self.scale_before - before, self.scale_after - after
        if not (one or two):
            return self
        return PairSums(
            ldexp(self.difference, 2 * (self.scale - max(before, after))),
            ldexp(self.before, 2 * one),
            ldexp(self.after, 2 * two),
            ldexp(self.dot, one + two),
            before,
            after,
        )


def _larger(a: float, scale_a: int, b: float, scale_b: int) -> int:
    """Return the scale for the sum of two: the larger one of those that are not 0."""
    return max(scale_a, scale_b) if a and b else scale_a if a else scale_b


class PairState(NamedTuple):
    """What is known of some elements of a pair; the fields are those of `PairFigures`."""

    n_elements: int
    n_bits: int | None
    n_changed: int = 0
    n_beyond: int = 0
    n_not_finite: int = 0
    n_zero_before: int = 0
    n_zero_after: int = 0
    n_zeroed: int = 0
    max_abs: float | None = None
    max_at: int | None = None
    sums: PairSums = PairSums()
    broken_at: int | None = None

    def merge(self, other: PairState) -> PairState:
        """Return the state of these elements and those that follow."""
        first = other.max_abs is None or (self.max_abs is not None and self.max_abs >= other.max_abs)
        greatest = self if first else other
        return PairState(
            self.n_elements + other.n_elements,
            None if self.n_bits is None or other.n_bits is None else self.n_bits + other.n_bits,
            self.n_changed + other.n_changed,
            self.n_beyond + other.n_beyond,
            self.n_not_finite + other.n_not_finite,
            self.n_zero_before + other.n_zero_before,
            self.n_zero_after + other.n_zero_after,
            self.n_zeroed + other.n_zeroed,
            greatest.max_abs,
            greatest.max_at,
            self.sums.merge(other.sums),
            other.broken_at if self.broken_at is None else self.broken_at,
        )

    def finish(self) -> PairFigures:
        """Return the figures; beyond float64's range they are infinite."""
        difference, before, after, dot, scale_before, scale_after = self.sums
        both = math.sqrt(before) * math.sqrt(after)
        return PairFigures(
            n_elements=self.n_elements,
            n_bits=self.n_bits,
            n_changed=self.n_changed,
            n_beyond=self.n_beyond,
            n_not_finite=self.n_not_finite,
            n_zero_before=self.n_zero_before,
            n_zero_after=self.n_zero_after,
            n_zeroed=self.n_zeroed,
            max_abs=self.max_abs,
            max_at=self.max_at,
            l2=ldexp(math.sqrt(difference), self.sums.scale),
            l2_before=ldexp(math.sqrt(before), scale_before),
            l2_after=ldexp(math.sqrt(after), scale_after),
            dot=ldexp(dot, scale_before + scale_after),
            unit_dot=dot / both if both else None,
            broken_at=self.broken_at,
        )

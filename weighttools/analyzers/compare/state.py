"""What is known of some elements of a pair of tensors: it merges over the fold, and gives the figures."""

from __future__ import annotations

import math
from typing import NamedTuple

from weighttools.analyzers.compare.pair import PairFigures
from weighttools.analyzers.moments import ldexp


class PairSums(NamedTuple):
    """Sums of squares and products of values times ``2**-scale``; the scale is 0 but for huge and tiny float64."""

    difference: float = 0.0
    before: float = 0.0
    after: float = 0.0
    dot: float = 0.0
    scale: int = 0

    def merge(self, other: PairSums) -> PairSums:
        """Return the sums of both parts together."""
        if self.is_empty or other.is_empty:
            return other if self.is_empty else self
        scale = max(self.scale, other.scale)
        a, b = self._at(scale), other._at(scale)
        return PairSums(a.difference + b.difference, a.before + b.before, a.after + b.after, a.dot + b.dot, scale)

    def _at(self, scale: int) -> PairSums:
        """Return the sums of values times ``2**-scale``."""
        by = 2 * (self.scale - scale)
        if not by:
            return self
        difference, before, after, dot = (ldexp(value, by) for value in self[:4])
        return PairSums(difference, before, after, dot, scale)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but zeros."""
        return not (self.before or self.after or self.difference)


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
        )

    def finish(self) -> PairFigures:
        """Return the figures; beyond float64's range they are infinite."""
        difference, before, after, dot, scale = self.sums
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
            l2=ldexp(math.sqrt(difference), scale),
            l2_before=ldexp(math.sqrt(before), scale),
            l2_after=ldexp(math.sqrt(after), scale),
            dot=ldexp(dot, 2 * scale),
            unit_dot=dot / both if both else None,
        )

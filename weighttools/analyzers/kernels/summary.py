"""What a kernel gives for a block: moments, extremes and zeros."""

from __future__ import annotations

from typing import NamedTuple

from weighttools.analyzers.extremes import Extremes
from weighttools.analyzers.moments import Moments
from weighttools.analyzers.zeros import Zeros


class Summary(NamedTuple):
    """The states of the three statistics that are always computed."""

    moments: Moments
    extremes: Extremes
    zeros: Zeros

    def merge(self, other: Summary) -> Summary:
        """Return the summary of both parts together."""
        return Summary(
            self.moments.merge(other.moments), self.extremes.merge(other.extremes), self.zeros.merge(other.zeros)
        )


EMPTY = Summary(Moments(), Extremes(), Zeros())


class Sums(NamedTuple):
    """What a fast kernel gives for a block of floating values that are all finite.

    Parameters
    ----------
    least, greatest
        Extremes.
    total, sq, l1
        Sums of the values, of their squares, and of their magnitudes.
    n_zero, n_near, n_subnormal
        Counts.
    """

    least: float
    greatest: float
    total: float
    sq: float
    l1: float
    n_zero: int
    n_near: int
    n_subnormal: int

"""Moments and norms: count, mean, standard deviation, L1, L2, root mean square."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from weighttools.core.spec import Spec

if TYPE_CHECKING:
    from weighttools.analyzers.run import Block, Record

SAFE_EXPONENT = 400
"""Magnitudes from 2**-400 to 2**400 are squared and summed as they are; others are scaled by a power of two first."""


class Moments(NamedTuple):
    """Moments of finite values; everything but `n_elements` and `n` is of the values times ``2**-scale``.

    Parameters
    ----------
    n_elements
        All elements.
    n
        Finite elements: NaN and Inf are left out of what follows.
    mean
        Their mean.
    m2
        The sum of their squared distances from the mean.
    l1, sq
        The sums of their magnitudes and of their squares.
    scale
        The power of two that keeps squares of huge and of tiny float64 values in range; 0 as a rule.
    origin
        What `mean` is counted from: an integer near the values where these are integers beyond what float64 holds.
    """

    n_elements: int = 0
    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    l1: float = 0.0
    sq: float = 0.0
    scale: int = 0
    origin: int = 0

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both parts together.

        References
        ----------
        T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing sample
        variances", COMPSTAT 1982, equation 2.1.
        """
        if not (self.n and other.n):
            filled = self if self.n else other
            return filled._replace(n_elements=self.n_elements + other.n_elements)
        scale = _common(self, other)
        a, b = self._at(scale), other._at(scale)
        n, delta = a.n + b.n, b.mean - a.mean
        if a.origin or b.origin:
            delta += b.origin - a.origin
        return Moments(
            a.n_elements + b.n_elements,
            n,
            a.mean + delta * (b.n / n),
            a.m2 + b.m2 + delta * delta * (a.n * (b.n / n)),
            a.l1 + b.l1,
            a.sq + b.sq,
            scale,
            a.origin,
        )

    def _at(self, scale: int) -> Moments:
        shift = self.scale - scale
        if not shift:
            return self
        if self.origin:
            return self._replace(mean=self.mean + self.origin, origin=0)._at(scale)
        mean, l1 = math.ldexp(self.mean, shift), math.ldexp(self.l1, shift)
        m2, sq = math.ldexp(self.m2, 2 * shift), math.ldexp(self.sq, 2 * shift)
        return Moments(self.n_elements, self.n, mean, m2, l1, sq, scale)

    def finish(self, spec: Spec | None = None) -> Record:
        """Return ``count``, ``mean``, ``std``, ``l1``, ``l2`` and ``rms``; null where there is no finite element.

        ``std`` is the population's: the root of the mean squared distance from the mean (ddof 0). A figure beyond
        float64's range is Inf here.
        """
        if not self.n:
            return {"count": self.n_elements, "mean": None, "std": None, "l1": 0.0, "l2": 0.0, "rms": None}
        figures = {
            "mean": self.mean + self.origin if self.origin else self.mean,
            "std": math.sqrt(self.m2 / self.n),
            "l1": self.l1,
            "l2": math.sqrt(self.sq),
            "rms": math.sqrt(self.sq / self.n),
        }
        return {"count": self.n_elements, **{name: ldexp(value, self.scale) for name, value in figures.items()}}


def of(block: Block) -> Moments:
    """Return the moments of a block; NaN and Inf are counted and left out, complex numbers go by magnitude."""
    return block.summary.moments


def safe_scale(exponent: int) -> int:
    """Return the scale for values of magnitude below ``2**exponent``: 0 where none is needed."""
    return 0 if -SAFE_EXPONENT <= exponent <= SAFE_EXPONENT else exponent


def ldexp(value: float, exponent: int) -> float:
    """Return ``value * 2**exponent``, infinite where that is beyond float64's range."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)


def _common(a: Moments, b: Moments) -> int:
    """Return the scale for both: the larger one of two that hold anything but zeros."""
    if a.sq == 0.0 or b.sq == 0.0:
        return b.scale if a.sq == 0.0 else a.scale
    return a.scale if a.scale == b.scale else _wider(a, b)


def _wider(a: Moments, b: Moments) -> int:
    """Return the scale of the part of larger values: that of the other loses nothing that counts beside it."""
    return a.scale if math.frexp(a.l1)[1] + a.scale >= math.frexp(b.l1)[1] + b.scale else b.scale

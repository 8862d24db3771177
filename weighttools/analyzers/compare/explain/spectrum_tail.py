"""What a sketch tells: how many singular values stand above a flat rest, and how large and how flat that rest is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from weighttools.analyzers.compare.explain.sketch import SketchFigures

NOT_WHITE = 4.0
"""How far above the edge of white noise the largest square of noise that is not white may lie."""


class PartedSpectrum(NamedTuple):
    """A spectrum parted in two.

    Parameters
    ----------
    rank
        Singular values that stand above the rest.
    energy
        The energy of the rest, as of white noise over the whole matrix.
    gap, drop
        The least and the largest square of those above, by the largest of the rest; infinite where there is no rest.
    departure
        How far from white the rest is, in standard deviations of John's test of sphericity.
    """

    rank: int
    energy: float
    gap: float
    drop: float
    departure: float


def parted(found: SketchFigures, noise: float = 0.0) -> PartedSpectrum | None:
    """Return the smallest rank beyond which a sketch looks like white noise; None where there is no such rank.

    Parameters
    ----------
    found
        The sketch.
    noise
        An energy of which any rest counts as noise, white or not: rounding follows the magnitudes of elements.

    Notes
    -----
    Of s rows and k columns of white noise of energy E, whose singular values are scaled as the sketch's, squares lie
    below E (sqrt(s) + sqrt(k))² / (s k) (Marchenko and Pastur); beside r values there is noise of s - r by k - r.

    References
    ----------
    O. Ledoit and M. Wolf, "Some hypothesis tests for the covariance matrix when the dimension is large compared to the
    sample size", Annals of Statistics 30, 2002, for the distribution of John's statistic.
    """
    squares = [value**2 for value in found.values]
    width, side = len(squares), found.side
    slack = 1.15 + 2 * width ** (-2 / 3) / 2
    left = math.fsum(squares)
    for rank in range(width - 3):
        rest_width, rest_side = width - rank, side - rank
        energy = left * width / rest_width * side / rest_side
        edge = (math.sqrt(rest_side) + math.sqrt(rest_width)) ** 2 / (side * width)
        if squares[rank] <= edge * max(slack * energy, NOT_WHITE * noise):
            gap, drop = (squares[n] / squares[rank] if squares[rank] else math.inf for n in (max(rank - 1, 0), 0))
            return PartedSpectrum(rank, energy, gap, drop, _departure(squares[rank:], rest_side))
        left = max(0.0, left - squares[rank])
    return None


def _departure(squares: Sequence[float], n_samples: int) -> float:
    """Return John's statistic of p eigenvalues from n samples, less its mean, in standard deviations."""
    p = len(squares)
    mean = math.fsum(squares) / p
    if not mean:
        return 0.0
    statistic = math.fsum((square / mean - 1) ** 2 for square in squares) / p
    return (n_samples * statistic - p - 1) / 2

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
    """Return the rank beyond which a sketch looks like noise; None where there is no such rank.

    Between the smallest rank beyond which it looks white, and that beyond which it is no more than `noise`, the rank is
    where the spectrum falls most.

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
    slack = 1.15 + width ** (-2 / 3)
    rests = [_rest(squares, side, rank) for rank in range(width - 3)]
    tops = [squares[rank] / edge for rank, (_, edge) in enumerate(rests)]
    white = next((rank for rank, top in enumerate(tops) if top <= slack * rests[rank][0]), None)
    small = next((rank for rank, top in enumerate(tops) if top <= NOT_WHITE * noise), white)
    if small is None:
        return None
    last = small if white is None else max(small, white)
    rank = max(range(min(small, last if white is None else white), last + 1), key=lambda r: _gap(squares, r))
    drop = squares[0] / squares[rank] if squares[rank] else math.inf
    return PartedSpectrum(rank, rests[rank][0], _gap(squares, rank), drop, _departure(squares[rank:], side - rank))


def _rest(squares: Sequence[float], side: int, rank: int) -> tuple[float, float]:
    """Return the energy of what is beyond a rank, and the part of it that is the edge of white noise."""
    width = len(squares)
    energy = math.fsum(squares[rank:]) * width / (width - rank) * side / (side - rank)
    return energy, (math.sqrt(side - rank) + math.sqrt(width - rank)) ** 2 / (side * width)


def _gap(squares: Sequence[float], rank: int) -> float:
    """Return the last square that counts by the first that does not; 1 where none counts."""
    if not rank:
        return 1.0
    return squares[rank - 1] / squares[rank] if squares[rank] else math.inf


def _departure(squares: Sequence[float], n_samples: int) -> float:
    """Return John's statistic of p eigenvalues from n samples, less its mean, in standard deviations."""
    p = len(squares)
    mean = math.fsum(squares) / p
    if not mean:
        return 0.0
    statistic = math.fsum((square / mean - 1) ** 2 for square in squares) / p
    return (n_samples * statistic - p - 1) / 2

"""A power law fitted to the tail of a sample by maximum likelihood.

References
----------
A. Clauset, C. R. Shalizi and M. E. J. Newman, "Power-law distributions in empirical data", SIAM Review 51 (2009),
equations 3.1, 3.2 and 3.9: for each candidate of the tail's beginning the exponent by maximum likelihood, and of these
the one of least Kolmogorov-Smirnov distance. C. H. Martin and M. W. Mahoney, JMLR 22 (2021), fit the eigenvalues of
W^T W so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from weighttools.core.spec import Array

LEAST = 8
"""Values that a fit needs."""

_ROWS = 64
"""Beginnings of the tail that are tried at a time: this bounds memory."""


def scaled(value: float, exponent: int) -> float | None:
    """Return ``value * 2**exponent``; None beyond float64's range."""
    try:
        return math.ldexp(float(value), exponent)
    except OverflowError:
        return None


class Tail(NamedTuple):
    """A fitted tail: density proportional to ``x**-alpha`` from `xmin` on.

    Parameters
    ----------
    alpha
        The exponent.
    ks
        The Kolmogorov-Smirnov distance of the tail from the law: the fit's quality, smaller is better.
    xmin
        Where the tail begins.
    n
        Values in it.
    """

    alpha: float
    ks: float
    xmin: float
    n: int

    def record(self, exponent: int = 0) -> dict[str, Any]:
        """Return the fit with stable keys; `xmin` is multiplied by ``2**exponent``."""
        return {
            "alpha": self.alpha,
            "alpha_ks": self.ks,
            "alpha_xmin": scaled(self.xmin, exponent),
            "alpha_n_tail": self.n,
            "alpha_std_error": (self.alpha - 1) / math.sqrt(self.n),
        }


def fit(values: Array) -> Tail | None:
    """Fit the tail of positive values; None of fewer than `LEAST`, or where all are one value.

    Parameters
    ----------
    values
        float64, in any order; zeros, and what is below 1e-12 of the largest, are left out.
    """
    x = np.sort(values[values > values.max(initial=0.0) * 1e-12])
    if x.size < LEAST or x[0] == x[-1]:
        return None
    logs = np.log(x)
    after = np.cumsum(logs[::-1])[::-1]
    counts = np.arange(x.size, 0, -1)
    sums = after - counts * logs
    usable = np.flatnonzero((sums[:-1] > 1e-12) & (logs[:-1] < logs[-1]))
    if not usable.size:
        return None
    alphas = 1.0 + counts / np.where(sums > 0, sums, np.inf)
    distances = np.concatenate(
        [_distances(logs, alphas, usable[at : at + _ROWS]) for at in range(0, usable.size, _ROWS)]
    )
    best = int(usable[int(np.argmin(distances))])
    return Tail(float(alphas[best]), float(distances.min()), float(x[best]), int(counts[best]))


def _distances(logs: Array, alphas: Array, starts: Array) -> Array:
    """Return, for each start of a tail, the largest distance between the law's distribution and the sample's.

    The sample's is taken before each step. `starts` are ascending; the work is a matrix of starts by values.
    """
    first = int(starts[0])
    tails, own = logs[first:], starts[:, None]
    law = -np.expm1((1.0 - alphas[own]) * np.maximum(tails - logs[own], 0.0))
    places = np.arange(first, logs.size) - own
    away = np.where(places >= 0, np.abs(law - places / (logs.size - own)), 0.0)
    largest: Array = away.max(axis=1)
    return largest

"""Counting bit patterns: elements of one or two bytes have at most 65,536, and the counts tell all but the order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.analyzers.extremes import Extremes
from weighttools.analyzers.kernels.careful import dot, ends, smallest_normal
from weighttools.analyzers.kernels.meanings import meanings
from weighttools.analyzers.kernels.summary import Summary
from weighttools.analyzers.moments import Moments
from weighttools.analyzers.zeros import Zeros

if TYPE_CHECKING:
    from weighttools.core.spec import Array

_PAIRS_FROM = 1 << 16
"""Bytes are counted as pairs from this many on: half the counting, for 65,536 bins to fold."""


def counts(values: Array) -> Array:
    """Return how often each bit pattern occurs (int64; 256 or 65,536 of them)."""
    bits = values.view(f"u{values.dtype.itemsize}")
    if values.dtype.itemsize == 1 and values.size >= _PAIRS_FROM:
        even = values.size - values.size % 2
        pairs = np.bincount(bits[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)
        folded: Array = pairs.sum(axis=0) + pairs.sum(axis=1) + np.bincount(bits[even:], minlength=256)
        return folded
    return np.bincount(bits, minlength=1 << 8 * values.dtype.itemsize)


def summary(found: Array, values: Array, start: int, eps: float) -> Summary:
    """Return the summary of a block from its counts; the block itself serves to find the first NaN and Inf.

    Sums are in float64, and exact but for their last bits.
    """
    known = meanings(values.dtype)
    present = np.flatnonzero(found)
    finite = present[known.finite[present]]
    x, c = known.values[finite], found[finite]
    magnitude = np.abs(x)
    small = (magnitude > 0) & (magnitude < smallest_normal(values.dtype))
    extremes = ends(x)._replace(n_subnormal=int(c[small].sum()))
    if finite.size != present.size:
        extremes = extremes.merge(_not_finite(found, values, start))
    zeros = Zeros(values.size, int(c[x == 0].sum()), int(c[magnitude <= eps].sum()))
    return Summary(_moments(x, magnitude, c, values.size), _exact(extremes, values.dtype), zeros)


def _exact(extremes: Extremes, dtype: Any) -> Extremes:
    if dtype.kind not in "iub" or extremes.least is None or extremes.greatest is None:
        return extremes
    return extremes._replace(least=int(extremes.least), greatest=int(extremes.greatest))


def _moments(x: Array, magnitude: Array, c: Array, count: int) -> Moments:
    n = int(c.sum())
    if not n:
        return Moments(count)
    weight = c.astype(np.float64)
    mean = float(x[0]) if x.size == 1 else math.fsum(x * weight) / n
    away = x - mean
    return Moments(count, n, mean, dot(away * away, weight), dot(magnitude, weight), dot(x * x, weight))


def _not_finite(found: Array, values: Array, start: int) -> Extremes:
    known = meanings(values.dtype).values
    bits = values.view(f"u{values.dtype.itemsize}")

    def told(which: Array) -> tuple[int, int | None]:
        n = int(found[which].sum())
        return n, start + int(np.argmax(which[bits])) if n else None

    (n_nan, first_nan), (n_inf, first_inf) = told(np.isnan(known)), told(np.isinf(known))
    return Extremes(n_nan=n_nan, n_inf=n_inf, first_nan=first_nan, first_inf=first_inf)

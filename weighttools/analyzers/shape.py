"""How a tensor's values are spread: skewness and kurtosis, and channels that stand out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

from weighttools.analyzers.axes import Strip, along, folded, padded
from weighttools.analyzers.base import Analyzer
from weighttools.core.spec import Spec
from weighttools.families.axes import TORCH, Axes

if TYPE_CHECKING:
    from weighttools.analyzers.run import Block, Record
    from weighttools.core.spec import Array

OUTLIER_RATIO = 6.0
"""A channel stands out whose largest magnitude is more than this many times the median channel's."""

_SAFE_EXPONENT = 200


class Powers(NamedTuple):
    """Sums of powers 2 to 4 of the distances of `n` finite values, times ``2**-scale``, from their mean.

    The mean is counted from `origin`: an integer near the values where these are integers beyond what float64 holds.
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    m3: float = 0.0
    m4: float = 0.0
    scale: int = 0
    origin: int = 0

    def merge(self, other: Powers) -> Powers:
        """Return the sums of both parts together.

        References
        ----------
        P. Pébay, "Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical
        moments", Sandia report SAND2008-6212, 2008, equations 2.1, 2.3 and 2.5 (p = 2, 3, 4).
        """
        if not (self.n and other.n):
            return self if self.n else other
        scale = max((p.scale for p in (self, other) if p.mean or p.m2 or p.origin), default=0)
        a, b = self._at(scale), other._at(scale)
        n, d = a.n + b.n, b.mean - a.mean
        if a.origin or b.origin:
            d += b.origin - a.origin
        wa, wb = a.n / n, b.n / n
        between = d * d * a.n * wb
        m3 = a.m3 + b.m3 + between * d * (wa - wb) + 3 * d * (wa * b.m2 - wb * a.m2)
        m4 = a.m4 + b.m4 + between * d * d * (wa * wa - wa * wb + wb * wb)
        m4 += 6 * d * d * (wa * wa * b.m2 + wb * wb * a.m2) + 4 * d * (wa * b.m3 - wb * a.m3)
        return Powers(n, a.mean + d * wb, a.m2 + b.m2 + between, m3, m4, scale, a.origin)

    def _at(self, scale: int) -> Powers:
        shift = self.scale - scale
        if not shift:
            return self
        if self.origin:
            return self._replace(mean=self.mean + self.origin, origin=0)._at(scale)
        mean, m2 = math.ldexp(self.mean, shift), math.ldexp(self.m2, 2 * shift)
        return Powers(self.n, mean, m2, math.ldexp(self.m3, 3 * shift), math.ldexp(self.m4, 4 * shift), scale)

    def finish(self, spec: Spec | None = None) -> Record:
        """Return ``skewness`` and ``kurtosis`` (excess: 0 for a normal distribution), both of the population.

        Null where all finite values are equal.
        """
        if not self.m2:
            return {"skewness": None, "kurtosis": None}
        variance = self.m2 / self.n
        return {
            "skewness": self.m3 / self.n / variance**1.5,
            "kurtosis": self.m4 / self.n / variance / variance - 3.0,
        }


def powers(block: Block) -> Powers:
    """Return the sums of a block's finite values, in float64; of elements of one byte by their counts."""
    from weighttools.analyzers.kernels.careful import offsets

    if block.values.dtype.itemsize == 1:
        from weighttools.analyzers.kernels.meanings import meanings

        known, counts = meanings(block.values.dtype), block.counts
        there = known.finite & (counts > 0)
        return _counted(known.values[there], counts[there])
    if (exact := offsets(block.values)) is not None:
        return _sums(exact.distances, 0)._replace(origin=exact.origin)
    return reduce(Powers.merge, map(_chunk, block.chunks()), Powers())


def _chunk(chunk: Array) -> Powers:
    import numpy as np

    finite = np.isfinite(chunk)
    x = chunk if finite.all() else chunk[finite]
    if not x.size:
        return Powers()
    least, greatest = float(x.min()), float(x.max())
    if least == greatest:
        return _constant(least, x.size)
    exponent = math.frexp(max(-least, greatest))[1]
    scale = 0 if abs(exponent) <= _SAFE_EXPONENT else exponent
    return _sums(np.ldexp(x, -scale) if scale else x, scale)


def _sums(y: Array, scale: int) -> Powers:
    """Return the sums of scaled values."""
    import numpy as np

    mean = float(np.add.reduce(y)) / y.size
    d = y - mean
    mean += float(np.add.reduce(d)) / y.size
    np.subtract(y, mean, out=d)
    d2 = d * d
    return Powers(y.size, mean, _sum(d2), _sum(d2 * d), _sum(d2 * d2), scale)


def _counted(x: Array, counts: Array) -> Powers:
    """Return the sums of distinct values that occur `counts` times; what one byte holds needs no scale."""
    n = int(counts.sum())
    if x.size < 2:
        return _constant(float(x[0]), n) if n else Powers()
    mean = _sum(x * counts) / n
    d = x - mean
    return Powers(n, mean, _sum(counts * d**2), _sum(counts * d**3), _sum(counts * d**4))


def _sum(values: Array) -> float:
    import numpy as np

    return float(np.add.reduce(values))


def _constant(value: float, n: int) -> Powers:
    exponent = math.frexp(value)[1]
    scale = 0 if abs(exponent) <= _SAFE_EXPONENT else exponent
    return Powers(n, math.ldexp(value, -scale), scale=scale)


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """The largest magnitude in each row and in each column; Inf where a channel holds NaN or Inf.

    None where the tensor has fewer than two axes, or too many channels.
    """

    rows: Strip | None
    columns: Array | None
    axes: Axes = TORCH

    def merge(self, other: Channels) -> Channels:
        """Return the maxima of both parts of one tensor together."""
        import numpy as np

        if self.rows is None or other.rows is None or self.columns is None or other.columns is None:
            return Channels(None, None)
        return Channels(self.rows.merge(other.rows), np.maximum(self.columns, other.columns), self.axes)

    def apart(self) -> Channels:
        """Return what of it holds for several tensors: nothing."""
        return Channels(None, None)

    def finish(self, spec: Spec | None = None) -> Record:
        """Return, for output channels and input channels (torch's axes 0 and 1), the largest maximum over the median.

        With each the number of channels above `OUTLIER_RATIO` times the median. Channels that hold NaN or Inf are left
        out; null without a median above zero.
        """
        rows = columns = None
        if spec is not None and self.rows is not None and self.columns is not None:
            found = (self.rows.values, self.columns, spec.shape, self.axes)
            rows, columns = along(*found, self.axes.outputs), along(*found, self.axes.inputs)
        ratios = [_ratio(rows), _ratio(columns)]
        keys = [("outlier_rows", "n_outlier_rows"), ("outlier_channels", "n_outlier_channels")]
        return dict(_pairs(zip(keys, ratios, strict=True)))


def channels(block: Block) -> Channels:
    """Return the largest magnitudes of a block's rows and columns."""
    import numpy as np

    matrix = folded(block.spec, block.axes)
    if matrix is None:
        return Channels(None, None)
    magnitudes = np.concatenate([np.abs(chunk) for chunk in block.chunks()] or [np.zeros(0)])
    magnitudes[np.isnan(magnitudes)] = np.inf
    first, rows = padded(magnitudes, block.start, matrix[1])
    return Channels(Strip(first, rows.max(axis=1, initial=0.0)), rows.max(axis=0, initial=0.0), block.axes)


def _ratio(maxima: Array | None) -> tuple[float | None, int | None]:
    import numpy as np

    finite = maxima[np.isfinite(maxima)] if maxima is not None else None
    median = float(np.median(finite)) if finite is not None and finite.size else 0.0
    if finite is None or not median:
        return None, None
    return float(finite.max()) / median, int((finite > OUTLIER_RATIO * median).sum())


def _pairs(
    found: Iterable[tuple[tuple[str, str], tuple[float | None, int | None]]],
) -> Iterable[tuple[str, float | None]]:
    for keys, values in found:
        yield from zip(keys, values, strict=True)


KURTOSIS = Analyzer(powers, ("skewness", "kurtosis"), "skewness and excess kurtosis")
OUTLIERS = Analyzer(
    channels,
    ("outlier_rows", "n_outlier_rows", "outlier_channels", "n_outlier_channels"),
    "channels whose largest magnitude is far above the median channel's",
    by_axes=True,
)

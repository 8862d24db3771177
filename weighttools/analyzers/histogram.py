"""Distributions: counts of bit patterns, exact histograms, entropy, distinct values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weighttools.analyzers.kernels.careful import FAST_DTYPES
from weighttools.core.spec import Spec

if TYPE_CHECKING:
    from weighttools.analyzers.run import Block, Record
    from weighttools.core.spec import Array

MAX_BINS = 10_000

_FEW = 40
"""Bins up to this many are counted by comparing with each edge."""

_COMPARED = 1 << 15
"""Elements compared with all edges, while they are in the cache."""


def _float32_from(value: float) -> np.float32:
    """Return the least float32 that is not below `value`."""
    near = np.float32(value)
    return near if float(near) >= value else np.nextafter(near, np.float32(np.inf))


def _float32_to(value: float) -> np.float32:
    """Return the greatest float32 that is not above `value`."""
    return -_float32_from(-value)


@dataclass(frozen=True, slots=True, eq=False)
class Patterns:
    """How often each bit pattern of a dtype of one or two bytes occurs (int64); the counts hold all but the order."""

    dtype: np.dtype[np.generic]
    counts: Array

    def merge(self, other: Patterns) -> Patterns:
        """Add up; both are of one dtype."""
        return Patterns(self.dtype, self.counts + other.counts)

    def finish(self, spec: Spec | None = None) -> Record:
        """Return ``entropy`` in bits an element, and ``n_distinct``.

        The entropy is that of the bit patterns: what an ideal coder that knows the counts would need for an element.
        Distinct are values: -0.0 is 0.0, and NaN is none.
        """
        found = self.counts[self.counts > 0]
        share = found / max(1, found.sum())
        entropy = float(-(share * np.log2(share)).sum()) + 0.0
        return {"entropy": entropy if found.size else None, "n_distinct": int(self.distinct()[0].size)}

    def distinct(self) -> tuple[Array, Array]:
        """Return the distinct values (float64, ascending, Inf among them, NaN not) and how often each occurs."""
        from weighttools.analyzers.kernels.meanings import meanings

        values = meanings(self.dtype).values
        there = (self.counts > 0) & ~np.isnan(values)
        kinds, which = np.unique(values[there] + 0.0, return_inverse=True)
        n = np.zeros(kinds.size, np.int64)
        np.add.at(n, which, self.counts[there])
        return kinds, n

    def finite(self) -> tuple[Array, Array]:
        """Return the distinct finite values, ascending, and how often each occurs."""
        values, n = self.distinct()
        kept = np.isfinite(values)
        return values[kept], n[kept]


def patterns(block: Block) -> Patterns:
    """Return the counts of a block of elements of one or two bytes."""
    return Patterns(block.values.dtype, block.counts)


@dataclass(frozen=True, slots=True, eq=False)
class BinCounts:
    """How many finite values lie in each bin (int64)."""

    bins: Bins
    counts: Array

    def merge(self, other: BinCounts) -> BinCounts:
        """Add up."""
        return BinCounts(self.bins, self.counts + other.counts)

    def finish(self, spec: Spec | None = None) -> Record:
        """Return ``hist``: ``edges`` (one more than there are bins) and ``counts``."""
        return {"hist": {"edges": self.bins.edges().tolist(), "counts": self.counts.tolist()}}


@dataclass(frozen=True, slots=True)
class Bins:
    """The statistic of a histogram: `n` bins of one width from `start` to `stop`.

    As in `numpy.histogram`, a bin holds its left edge but not its right one, and the last bin both; where `start`
    equals `stop` the range is widened by one half to each side. NaN and Inf are left out.
    """

    start: float
    stop: float
    n: int

    def edges(self) -> Array:
        """Return the edges (float64)."""
        return np.histogram_bin_edges(np.zeros(0), self.n, (self.start, self.stop))

    def __call__(self, block: Block) -> BinCounts:
        if self.n <= _FEW and block.values.dtype.name in FAST_DTYPES:
            return BinCounts(self, self._by_comparing(block.values))
        parts = (self.count(chunk) for chunk in block.chunks())
        return BinCounts(self, sum(parts, np.zeros(self.n, np.int64)))

    def count(self, values: Array) -> Array:
        """Count float64 values: as `numpy.histogram`, by place and then by the edges beside it."""
        edges = self.edges()
        first, last = edges[0], edges[-1]
        x = values[(values >= first) & (values <= last)]
        place = np.minimum((x - first) / (last - first) * self.n, self.n - 1).astype(np.intp)
        place -= x < edges[place]
        place += (x >= edges[place + 1]) & (place != self.n - 1)
        return np.bincount(place, minlength=self.n)

    def _by_comparing(self, values: Array) -> Array:
        """Count values that float32 holds, by comparing all with each edge: for a few edges that is quickest."""
        edges = self.edges()
        limits = np.array([_float32_from(edge) for edge in edges[:-1]], np.float32)
        last = _float32_to(edges[-1])
        reached = np.zeros(self.n + 1, np.int64)
        for first in range(0, values.size, _COMPARED):
            x = values[first : first + _COMPARED].astype(np.float32, copy=False)
            reached[:-1] += [np.count_nonzero(x >= limit) for limit in limits]
            reached[-1] += np.count_nonzero(x > last)  # Inf
        return -np.diff(reached)

    def of_distinct(self, values: Array, n: Array) -> BinCounts:
        """Count distinct finite values (float64) that occur `n` times each."""
        edges = self.edges()
        place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, self.n - 1)
        counts = np.zeros(self.n, np.int64)
        np.add.at(counts, place, n)
        return BinCounts(self, counts)


def bins(start: float | None, stop: float | None, n: int) -> Bins | None:
    """Return `n` bins over a range.

    None where there is no finite value, or where float64 does not hold the range or that many edges in it (as with
    values that all are 1e300).
    """
    if start is None or stop is None or not np.isfinite(float(stop) - float(start)):
        return None
    found = Bins(float(start), float(stop), n)
    try:
        edges = found.edges()
    except ValueError:  # too many bins for the range, says NumPy 2.2; before, it lays edges on each other
        return None
    return found if np.all(edges[:-1] < edges[1:]) else None

"""Distributions: counts of bit patterns, exact histograms, entropy, distinct values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weighttools.core.tensor import Spec

if TYPE_CHECKING:
    from weighttools.analyzers.run import Block, Record
    from weighttools.core.tensor import Array

MAX_BINS = 10_000


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
        from weighttools.analyzers.kernels.patterns import table

        values = table(self.dtype).values
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
        parts = (self.count(chunk) for chunk in block.chunks())
        return BinCounts(self, sum(parts, np.zeros(self.n, np.int64)))

    def count(self, values: Array) -> Array:
        """Count float64 values."""
        kept = values[np.isfinite(values)]
        return np.histogram(kept, self.n, (self.start, self.stop))[0].astype(np.int64)

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
        found.edges()
    except ValueError:  # too many bins for the range
        return None
    return found

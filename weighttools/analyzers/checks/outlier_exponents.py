"""A few values that stand many powers of two above all others, as a flipped bit leaves them.

Flipping the highest bit of an exponent multiplies a value below 2 by 2**128 in float32 and bfloat16, by 2**16 in
float16. Between such a value and all others lies a gap of exponents that no value has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weighttools.core.findings import ERROR, WARNING, Finding

if TYPE_CHECKING:
    from weighttools.analyzers.checks.values import SurveyedTensor
    from weighttools.analyzers.run import Block, Record
    from weighttools.core.spec import Array, Spec

GAP = 24
"""Empty powers of two below an outlier; training does not leave so many."""

GAP_HALF = 7
"""The same in float16, whose exponents span 30."""

CERTAIN = 60
"""A gap that nothing but a damaged bit leaves."""

_SUSPICIOUS = 64.0
"""Blocks whose largest magnitude is not so many times their mean are not looked at closer."""

_SMALL = 4096
"""Blocks smaller than this are always looked at."""

_SHARE = 1000
"""At most one value of so many is an outlier; more are another distribution."""

_KEPT = 8


class Outlier(NamedTuple):
    """A value's magnitude, as the power of two above it, and its place."""

    exponent: int
    place: int
    value: float


class Outliers(NamedTuple):
    """Candidates, and the exponent of the largest of the other values (None where there is none).

    Parameters
    ----------
    bulk
        The greatest exponent of what is no candidate.
    n
        How many candidates there are.
    first
        The first few of them.
    """

    bulk: int | None = None
    n: int = 0
    first: tuple[Outlier, ...] = ()

    def merge(self, other: Outliers) -> Outliers:
        """Return the candidates of both parts."""
        known = [bulk for bulk in (self.bulk, other.bulk) if bulk is not None]
        return Outliers(max(known, default=None), self.n + other.n, (self.first + other.first)[:_KEPT])

    def finish(self, spec: Spec | None = None) -> Record:
        """Return how many values are ``outliers``, over which ``gap`` of powers of two, and the first of them."""
        found = [outlier for outlier in self.first if self.bulk is not None]
        gap = min((outlier.exponent - (self.bulk or 0) for outlier in found), default=0)
        enough = spec is None or self.n * _SHARE <= max(spec.n_elements, _SHARE)
        least = GAP_HALF if spec is not None and spec.dtype.name == "float16" else GAP
        if not found or gap < least or not enough:
            return {"n_outliers": 0, "gap": None, "first_outlier": None}
        return {"n_outliers": self.n, "gap": gap, "first_outlier": found[0]}


def of(block: Block) -> Outliers:
    """Return the candidates of a block of floating values; integers have none."""
    if not block.spec.dtype.is_float or block.spec.dtype.bits < 16:
        return Outliers()
    extremes, moments = block.summary.extremes, block.summary.moments
    if extremes.least is None or extremes.greatest is None:
        return Outliers()
    largest = max(-extremes.least, extremes.greatest)
    shift = moments.scale
    mean = moments.l1 / moments.n
    bulk = int(np.frexp(largest)[1])
    if largest == 0.0:
        return Outliers()
    if block.values.size >= _SMALL and not shift and largest <= _SUSPICIOUS * mean:
        return Outliers(bulk)
    return _closer(block, bulk)


def _closer(block: Block, bulk: int) -> Outliers:
    """Look for a gap in a block's exponents, from the top."""
    values = block.values.astype(np.float64)
    usable = np.isfinite(values) & (values != 0)
    exponents = np.frexp(np.where(usable, values, 1.0))[1]
    present, counts = np.unique(exponents[usable], return_counts=True)
    cut = _cut(present, counts, GAP_HALF if block.spec.dtype.name == "float16" else GAP)
    if cut is None:
        return Outliers(bulk)
    places = np.flatnonzero(usable & (exponents > cut))
    first = tuple(Outlier(int(exponents[at]), block.start + int(at), float(values[at])) for at in places[:_KEPT])
    return Outliers(int(cut), places.size, first)


def _cut(present: Array, counts: Array, gap: int) -> int | None:
    """Return the exponent below the uppermost gap, if few values are above it."""
    gaps = np.flatnonzero(np.diff(present) >= gap)
    if not gaps.size:
        return None
    above = int(counts[gaps[-1] + 1 :].sum())
    return int(present[gaps[-1]]) if above <= max(1, int(counts.sum()) // _SHARE) else None


def check(seen: Sequence[SurveyedTensor]) -> Iterator[Finding]:
    """Yield a finding for each tensor of at least 64 elements with such values."""
    for tensor in seen:
        found = tensor.outliers.finish(tensor.spec)
        if not found["n_outliers"] or tensor.spec.n_elements < 64 or not tensor.is_parameter:
            continue
        first = found["first_outlier"]
        yield Finding(
            ERROR if found["gap"] >= CERTAIN else WARNING,
            "outlier-exponent",
            f"{found['n_outliers']:,} values of {tensor.name!r} are 2**{found['gap']} times the largest other one or"
            f" more, first {first.value:.4g} at {tensor.place(first.place)}",
            tensor.name,
        )

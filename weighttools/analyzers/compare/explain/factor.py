"""The one factor that a change may be: sums of both sides in float64, and what least squares makes of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from weighttools.analyzers.compare.explain.rounding import eps_of, rounding_energy
from weighttools.core.dtypes import DType

if TYPE_CHECKING:
    from weighttools.core.spec import Array

MOST_UNEXPLAINED = 1e-8
"""Of the change's energy beyond rounding: a thousand steps of decay in float32 leave less."""

LEAST_ENERGY = 20
"""Of what a factor makes, by that of rounding alone: in less, nothing can be told."""


class FactorSums(NamedTuple):
    """How many elements, and sums of squares before, of products of the change with before, of squares of the change,
    and of squares after."""

    n_elements: int = 0
    before: float = 0.0
    product: float = 0.0
    change: float = 0.0
    after: float = 0.0

    @classmethod
    def of(cls, before: Array, after: Array, change: Array) -> FactorSums:
        """Add up elements in float64."""
        products = ((before, before), (change, before), (change, change), (after, after))
        of_before, product, of_change, of_after = (float(one @ other) for one, other in products)
        return cls(before.size, of_before, product, of_change, of_after)

    def merge(self, other: FactorSums) -> FactorSums:
        """Return the sums of both."""
        n, *sums = (a + b for a, b in zip(self, other, strict=True))
        return FactorSums(int(n), *sums)


class Factor(NamedTuple):
    """A factor, how far rounding may move it, the energy that it leaves over, and all of the change's."""

    factor: float
    tolerance: float
    unexplained: float
    energy: float


def fitted(sums: FactorSums, dtype: DType) -> Factor | None:
    """Return the factor that makes a change but for rounding to a dtype, or None where none does.

    Notes
    -----
    With d = after - before and t = d · before / |before|², the factor is 1 + t; what it leaves over is
    |d|² - t² |before|². The part of t must stand well above what rounding makes by itself.
    """
    if sums.n_elements < 2 or not sums.before or not sums.after or not sums.change:
        return None
    moved = sums.product / sums.before
    along = moved * sums.product
    noise = rounding_energy(math.sqrt(sums.after), sums.n_elements, dtype)
    unexplained = max(0.0, sums.change - along)
    if unexplained > min(4 * noise + MOST_UNEXPLAINED * sums.change, 0.2 * sums.change) or along < LEAST_ENERGY * noise:
        return None
    tolerance = 1e-6 + 2 * eps_of(dtype) / math.sqrt(sums.n_elements)
    return Factor(1 + moved, tolerance, unexplained, sums.change)

"""Extremes, and what is no number: minimum, maximum, Linf, NaN and Inf with their places, subnormals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from weighttools.core.spec import Spec

if TYPE_CHECKING:
    from weighttools.analyzers.run import Block, Record


class Extremes(NamedTuple):
    """Extremes of finite values, and counts of the others.

    Parameters
    ----------
    least, greatest
        The smallest and the largest finite value, exact (int for integer dtypes); None where there is none.
    n_nan, n_inf, n_subnormal
        How many elements are NaN, infinite, or subnormal in the tensor's own dtype.
    first_nan, first_inf
        The flat index, in C order, of the first of each; None where there is none.
    """

    least: float | None = None
    greatest: float | None = None
    n_nan: int = 0
    n_inf: int = 0
    n_subnormal: int = 0
    first_nan: int | None = None
    first_inf: int | None = None

    def merge(self, other: Extremes) -> Extremes:
        """Return the extremes of both parts together, exactly."""
        return Extremes(
            _either(min, self.least, other.least),
            _either(max, self.greatest, other.greatest),
            self.n_nan + other.n_nan,
            self.n_inf + other.n_inf,
            self.n_subnormal + other.n_subnormal,
            _either(min, self.first_nan, other.first_nan),
            _either(min, self.first_inf, other.first_inf),
        )

    def finish(self, spec: Spec | None = None) -> Record:
        """Return ``min``, ``max`` and ``linf`` of the finite values, counts, and the first places as indices.

        Without a spec (several tensors together) the places are left out.
        """
        linf = None if self.least is None or self.greatest is None else max(abs(self.least), abs(self.greatest))
        places = {"first_nan": self.first_nan, "first_inf": self.first_inf}
        return {
            "min": self.least,
            "max": self.greatest,
            "linf": linf,
            "n_nan": self.n_nan,
            "n_inf": self.n_inf,
            "n_subnormal": self.n_subnormal,
            **({} if spec is None else {k: None if v is None else index(v, spec.shape) for k, v in places.items()}),
        }


def of(block: Block) -> Extremes:
    """Return the extremes of a block; -0.0 is 0.0 here, and complex numbers go by magnitude."""
    return block.summary.extremes


def index(flat: int, shape: Sequence[int]) -> list[int]:
    """Return the index along each axis of the element at `flat` in C order.

    >>> index(7, (2, 3, 2))
    [1, 0, 1]
    """
    places = []
    for length in reversed(shape):
        flat, place = divmod(flat, length)
        places.append(place)
    return places[::-1]


T = TypeVar("T", int, float)


def _either(pick: Callable[[T, T], T], a: T | None, b: T | None) -> T | None:
    """Return the pick of two, or the one that is there."""
    if a is None or b is None:
        return b if a is None else a
    return pick(a, b)

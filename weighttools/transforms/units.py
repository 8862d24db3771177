"""Units of a tensor that are kept or dropped whole: rows, columns, channels, heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from weighttools.core.spec import Array


class Units(NamedTuple):
    """How an axis of a tensor is cut into units.

    Parameters
    ----------
    inner
        Elements that one step along the axis spans.
    owner
        The unit that each step along the axis belongs to; `n_units` for one of none.
    n_units
        How many units there are.
    """

    inner: int
    owner: Array
    n_units: int

    @classmethod
    def of(cls, shape: Sequence[int], axes: Sequence[int], n_units: int | None = None) -> Units:
        """Cut axes that lie next to each other into `n_units` equal runs (default: one for each step along them)."""
        size = math.prod(shape[axis] for axis in axes)
        per = 1 if n_units is None else max(1, size // n_units)
        return cls(math.prod(shape[axes[-1] + 1 :]), np.arange(size) // per, -(-size // per))

    def at(self, start: int, stop: int) -> Array:
        """Return the unit of each element from `start` to `stop`."""
        step = max(1, self.inner)
        first, last = start // step, -(-stop // step)
        along = self.owner[np.arange(first, last) % max(1, self.owner.size)]
        return np.repeat(along, step)[start - first * step : stop - first * step]


@dataclass(frozen=True, slots=True)
class OfUnits:
    """Drop every element of some units; `dropped` has one entry more, for what belongs to none."""

    units: Units
    dropped: Array

    def __call__(self, start: int, block: Array) -> Array:
        drop: Array = self.dropped[self.units.at(start, start + block.size)]
        return drop

    def n_dropped(self, n_elements: int) -> int:
        """Return how many of a tensor's elements are dropped; no value tells more."""
        steps = self.dropped[self.units.owner]
        return int(np.count_nonzero(steps)) * (n_elements // max(1, steps.size))

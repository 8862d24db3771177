"""Counting what changed tensors hold while they are written: zeros, NaN, Inf. It costs no reading of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighttools.core.readers import Positioned
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.transforms.prune import ORDERED, Magnitude, common

if TYPE_CHECKING:
    from weighttools.core.tensor import Array


class Count(NamedTuple):
    """What some elements are."""

    n_elements: int
    n_zero: int
    n_nan: int
    n_inf: int


@dataclass(slots=True)
class Tally:
    """Counts by tensor and position, so that a block read twice counts once."""

    counts: dict[str, dict[int, Count]] = field(default_factory=dict)

    def total(self, name: str) -> Count:
        """Return the counts of a tensor."""
        return Count(
            *(sum(column) for column in zip(Count(0, 0, 0, 0), *self.counts.get(name, {}).values(), strict=True))
        )

    def record(self, names: list[str]) -> dict[str, Any]:
        """Return the counts of some tensors as a report has them."""
        rows = {name: self.total(name)._asdict() for name in names}
        keys = ("n_elements", "n_zero", "n_nan", "n_inf")
        return {**{key: sum(row[key] for row in rows.values()) for key in keys}, "tensors": rows}


@dataclass(frozen=True, slots=True)
class Watched:
    """Counts each block of a tensor as it passes."""

    tally: Tally
    name: str
    key: Magnitude

    def __call__(self, start: int, block: Array) -> Array:
        keys = self.key(start, block)
        infinite = ORDERED[self.key.dtype.name] << (self.key.dtype.bits - 16)
        n_other = int(np.count_nonzero(keys >= infinite))
        n_nan = _n_nan(block) if n_other else 0
        n_zero = block.size - int(np.count_nonzero(keys))
        self.tally.counts.setdefault(self.name, {})[start] = Count(block.size, n_zero, n_nan, n_other - n_nan)
        return block


def _n_nan(block: Array) -> int:
    with np.errstate(all="ignore"):
        return int(np.count_nonzero(np.isnan(block)))


def watched(tensor_map: TensorMap) -> tuple[TensorMap, Tally]:
    """Return the map with a tally of the tensors that its reports name; it fills as they are read."""
    tally = Tally()
    names = {name for report in tensor_map.origin.reports for name in report["names"]}

    def one(name: str, tensor: Tensor) -> Tensor:
        if name not in names or tensor.decode is None or tensor.spec.is_quantized:
            return tensor
        fn = Watched(tally, name, Magnitude(common({tensor.dtype.name})))
        return Tensor(tensor.spec, Positioned(tensor.decode, fn), None)

    return (tensor_map.map(one), tally) if names else (tensor_map, tally)


def reports(tensor_map: TensorMap, tally: Tally, written: bool) -> list[Mapping[str, Any]]:
    """Return the map's reports, and with the last one what was counted in the tensors that it names."""
    found: list[Mapping[str, Any]] = list(tensor_map.origin.reports)
    if found and written:
        found[-1] = {**found[-1], **tally.record([name for name in found[-1]["names"] if name in tally.counts])}
    return found

"""Counting what changed tensors hold while they are written: zeros, NaN, Inf. It costs no reading of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighttools.core.readers import Positioned
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import option
from weighttools.transforms.counted_report import known
from weighttools.transforms.prune import ORDERED, Magnitude, Zeroed, common

if TYPE_CHECKING:
    from weighttools.core.spec import Array


class ZeroCount(NamedTuple):
    """What some elements are, and how many of them were set to 0 here, whatever they were."""

    n_elements: int
    n_zero: int
    n_nan: int
    n_inf: int
    n_pruned: int = 0


@dataclass(slots=True)
class Tally:
    """Counts by tensor and position, so that a block read twice counts once."""

    counts: dict[str, dict[int, ZeroCount]] = field(default_factory=dict)

    def total(self, name: str) -> ZeroCount:
        """Return the counts of a tensor."""
        return ZeroCount(
            *(sum(column) for column in zip(ZeroCount(0, 0, 0, 0), *self.counts[name].values(), strict=True))
        )

    def record(self, names: list[str], keys: tuple[str, ...]) -> dict[str, Any]:
        """Return the counts of some tensors as a report has them."""
        totals = {name: self.total(name)._asdict() for name in names}
        rows = {name: {key: row[key] for key in keys} for name, row in totals.items()}
        return {**{key: sum(row[key] for row in rows.values()) for key in keys}, "tensors": rows}


@dataclass(frozen=True, slots=True)
class Watched:
    """Counts each block of a tensor as it passes; one that is pruned just here, with what is dropped of it."""

    tally: Tally
    name: str
    key: Magnitude
    zeroed: Zeroed | None = None

    def __call__(self, start: int, block: Array) -> Array:
        n_pruned = 0
        if self.zeroed is not None:
            block, n_pruned = self.zeroed.counted(start, block)
        keys = self.key(start, block)
        infinite = ORDERED[self.key.dtype.name] << (self.key.dtype.bits - 16)
        n_other = int(np.count_nonzero(keys >= infinite))
        n_nan = _n_nan(block) if n_other else 0
        n_zero = block.size - int(np.count_nonzero(keys))
        self.tally.counts.setdefault(self.name, {})[start] = ZeroCount(
            block.size, n_zero, n_nan, n_other - n_nan, n_pruned
        )
        return block


def _n_nan(block: Array) -> int:
    with np.errstate(all="ignore"):
        return int(np.count_nonzero(np.isnan(block)))


def watched(tensor_map: TensorMap) -> tuple[TensorMap, Tally]:
    """Return the map with a tally of the tensors that its reports name; it fills as they are read."""
    tally = Tally()
    names = {name for report in tensor_map.origin.reports for name in report["names"]}

    def one(name: str, tensor: Tensor) -> Tensor:
        reader = tensor.decode
        if name not in names or reader is None or tensor.spec.is_quantized:
            return tensor
        key = Magnitude(common({tensor.dtype.name}))
        if isinstance(reader, Positioned) and isinstance(reader.fn, Zeroed):
            fn = Watched(tally, name, key, reader.fn)
            return Tensor(tensor.spec, Positioned(reader.reader, fn, reader.multiple), None)
        return Tensor(tensor.spec, Positioned(reader, Watched(tally, name, key)), None)

    return (tensor_map.map(one), tally) if names else (tensor_map, tally)


def reports(tensor_map: TensorMap, tally: Tally) -> list[Mapping[str, Any]]:
    """Return the map's reports, and with the last one what was counted in the tensors that it names."""
    found: list[Mapping[str, Any]] = [known(report) for report in tensor_map.origin.reports]
    if not found:
        return found
    is_pruned = found[-1]["transform"] == "prune"
    counted = tally.record([n for n in found[-1]["names"] if n in tally.counts], COUNTS + PRUNED * is_pruned)
    found[-1] = {**found[-1], **counted, **(_shares(counted["tensors"]) if is_pruned else {})}
    return found


COUNTS = ("n_elements", "n_zero", "n_nan", "n_inf")
PRUNED = ("n_pruned",)
ALMOST_EMPTY = 0.99
"""A tensor with this share of zeros has lost what it does, whatever the share over all of them is."""


def _shares(rows: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return the least and the greatest share of zeros over tensors, each with the first tensor that has it."""
    shares = {name: row["n_zero"] / row["n_elements"] for name, row in rows.items() if row["n_elements"]}
    if not shares:
        return {}
    least, most = min(shares, key=lambda name: shares[name]), max(shares, key=lambda name: shares[name])
    return {"least_zeros": {"name": least, "share": shares[least]}, "most_zeros": {"name": most, "share": shares[most]}}


def emptied(report: Mapping[str, Any]) -> list[str]:
    """Return a line on tensors that pruning left almost empty, though less than that was asked for; or none."""
    asked = report.get("sparsity")
    rows = report.get("tensors", {}) if report["transform"] == "prune" else {}
    full = 1.0 if asked is not None and asked >= ALMOST_EMPTY else ALMOST_EMPTY
    names = [name for name, row in rows.items() if row["n_elements"] and row["n_zero"] >= full * row["n_elements"]]
    if not names or asked == 1:
        return []
    shares = [f"{name!r} ({rows[name]['n_zero'] / rows[name]['n_elements']:.2%})" for name in names[:3]]
    listed = ", ".join(shares) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
    alike = f"{option('scope')} tensor prunes all alike, " if report.get("scope") in ("global", "group") else ""
    return [f"left almost without a weight: {listed}; {alike}{option('exclude')} leaves one alone"]

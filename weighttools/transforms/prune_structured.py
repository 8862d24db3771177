"""Pruning in patterns that hardware or surgery can use: N of every M, rows, columns, channels, attention heads."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighttools.core.fold import Blocks
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import SpecError, option
from weighttools.families.axes import TORCH, Axes
from weighttools.families.kernels import Layouts
from weighttools.io.progress import Progress, silent
from weighttools.transforms.counting import Key, is_finite, planning_bytes, total, widened
from weighttools.transforms.editing import whole
from weighttools.transforms.heads import attentions
from weighttools.transforms.prune import by_magnitude, checked, pruned
from weighttools.transforms.units import OfUnits, Units

if TYPE_CHECKING:
    from weighttools.core.spec import Array

Says = Mapping[str, Any]
LARGEST_GROUP = 32


@dataclass(frozen=True, slots=True)
class OfEvery:
    """Drop the `n_dropped` smallest of every `m` consecutive elements; of equal ones the first. Inf and NaN stay."""

    key: Key
    n_dropped: int
    m: int

    def __call__(self, start: int, block: Array) -> Array:
        columns = np.ascontiguousarray(self.key(start, block).reshape(-1, self.m).T)
        rank = np.zeros(columns.shape, np.uint8)
        for i, j in combinations(range(self.m), 2):
            first = columns[i] <= columns[j]
            rank[j] += first
            rank[i] += ~first
        drop: Array = np.ascontiguousarray((rank < self.n_dropped).T).reshape(-1)
        return drop & is_finite(block)


def parse_nm(text: str) -> tuple[int, int]:
    """Return N and M of ``N:M``: at most N of every M consecutive elements stay.

    Raises
    ------
    SpecError
        It is not two integers, 0 < N < M <= 32.

    Examples
    --------
    >>> parse_nm("2:4")
    (2, 4)
    """
    match = re.fullmatch(r"([0-9]{1,3}):([0-9]{1,3})", text)
    n, m = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < n < m <= LARGEST_GROUP:
        raise SpecError(
            f"{option('nm')} {text!r} is no pattern", expected=f"N:M with 0 < N < M <= {LARGEST_GROUP}, as 2:4"
        )
    return n, m


def n_of_m(names: Sequence[str], pattern: str, says: Says) -> Transform:
    """Return a transform that keeps the N largest of every M elements along each row.

    A row is what one index of the first axis selects: of a torch Linear the inputs of one output, of a convolution
    the kernels of one output channel, in their order in memory.

    Raises
    ------
    SpecError
        There is no such pattern, or M does not divide a tensor's rows.
    """
    n, m = parse_nm(pattern)

    def transform(tensor_map: TensorMap) -> TensorMap:
        for name in names:
            row = math.prod(tensor_map[name].shape[1:])
            if row % m or len(tensor_map[name].shape) < 2:
                raise SpecError(
                    f"rows of {row:,} elements are not whole groups of {m}",
                    subject=name,
                    remedy=f"leave it alone: {option('exclude')} {name}",
                )
        drops = {name: OfEvery(by_magnitude(tensor_map, [name]).keys[0], m - n, m) for name in names}
        most = sum(tensor_map[name].n_elements for name in names) // m * (m - n)
        report = {
            "transform": "prune", "by": "n:m", "nm": [n, m], "sparsity": 1 - n / m, "n_pruned": None,
            "most_pruned": most, **says, "names": list(names),
        }  # fmt: skip
        return pruned(tensor_map, drops, report, m)

    return transform


class Cluster(NamedTuple):
    """Tensors that lose the same units together, and how each is cut into them."""

    label: str
    parts: dict[str, Units]


STRUCTURES = ("rows", "columns", "channels", "heads")
"""Rows are a layer's outputs, columns its inputs (of torch's convolutions the last axis), channels the input channels
of convolutions."""
NORMS = {"1": 1.0, "2": 2.0, "inf": math.inf}


def structured(
    names: Sequence[str],
    structure: str,
    sparsity: float,
    norm: str,
    n_heads: int | None,
    says: Says,
    progress: Progress = silent,
) -> Transform:
    """Return a transform that drops whole rows, columns, channels or heads: those of the smallest norm.

    Parameters
    ----------
    names
        Tensors to prune. Of an attention they lose a head together: rows of query, key and value (or of the tensor
        that is all three), columns of the output projection; tensors of other names are left as they are.
    structure
        One of `STRUCTURES`.
    sparsity
        The share of units of each tensor (each attention) to drop, rounded to a whole number, halves to even.
    norm
        ``"1"``, ``"2"`` or ``"inf"``; a unit that holds NaN or Inf is not dropped. Of equal units the first goes.
    n_heads
        How many heads each attention has.
    progress
        Called with the number of bytes just looked at.

    Raises
    ------
    SpecError
        There is no such structure or norm, a number is out of range, or a tensor has no such axis.
    """
    sparsity = checked(sparsity)
    if structure not in STRUCTURES or norm not in NORMS:
        raise SpecError(f"cannot prune {structure} by norm {norm}", expected=f"{STRUCTURES}, norms {tuple(NORMS)}")
    if structure == "heads" and n_heads is None:
        needs = f"{option('structure')} heads needs {option('n_heads')}"
        fact = f"{needs}: no config.json beside the weights tells how many there are"
        raise SpecError(fact, remedy="give the number of heads of queries")
    if structure != "heads" and n_heads is not None:
        raise SpecError(
            f"{option('n_heads')} goes with {option('structure')} heads, not {structure}", remedy="leave it out"
        )

    def transform(tensor_map: TensorMap) -> TensorMap:
        clusters = list(_clusters(tensor_map, names, structure, n_heads))
        if not clusters:
            raise SpecError(f"no tensor has {structure} to prune", remedy="see weighttools inspect for the names")
        drops: dict[str, OfUnits] = {}
        rows = []
        for cluster in clusters:
            dropped = _smallest_units(tensor_map, cluster, NORMS[norm], sparsity, progress)
            at = np.append(dropped, False)
            drops |= {name: OfUnits(units, at) for name, units in cluster.parts.items()}
            rows.append({"scope": cluster.label, "n_units": len(dropped), "n_units_pruned": int(dropped.sum())})
        report = {
            "transform": "prune", "by": structure, "sparsity": sparsity, "norm": norm, "scopes": rows, **says,
            "n_changed": len(drops), "names": list(drops),
            "n_pruned": sum(drop.n_dropped(tensor_map[name].n_elements) for name, drop in drops.items()),
            "planning_bytes": planning_bytes(tensor_map[name] for name in drops),
        }  # fmt: skip
        return pruned(tensor_map, drops, report)

    return transform


def _clusters(tensor_map: TensorMap, names: Sequence[str], structure: str, n_heads: int | None) -> Iterator[Cluster]:
    layouts = Layouts.of(tensor_map)
    if structure == "heads":
        for label, parts in attentions(tensor_map, names, layouts, whole(option("n_heads"), n_heads, 1)):
            yield Cluster(label, parts)
        return
    for name in names:
        shape = tensor_map[name].shape
        if structure == "channels" and len(shape) < 3:
            continue
        axes = _axes(layouts.axes(name, shape), structure, len(shape)) if len(shape) > 1 else ()
        if not axes:
            raise SpecError(
                f"a tensor of shape {shape} has no {structure}", subject=name, remedy=f"give {option('exclude')} {name}"
            )
        yield Cluster(name, {name: Units.of(shape, axes)})


def _axes(axes: Axes, structure: str, n: int) -> tuple[int, ...]:
    """Return the axes along which a structure is cut; none where the layer has no such."""
    if structure == "rows":
        return axes.outputs
    return (n - 1,) if structure == "columns" and axes == TORCH else axes.inputs


def _smallest_units(tensor_map: TensorMap, cluster: Cluster, p: float, sparsity: float, progress: Progress) -> Array:
    """Return which units of a cluster to drop."""
    n_units = next(iter(cluster.parts.values())).n_units
    scores = np.zeros(n_units)
    for name, units in cluster.parts.items():
        found = _scores(tensor_map[name], units, p, progress)
        scores = np.maximum(scores, found) if p == math.inf else scores + found
    order = np.argsort(scores, kind="stable")
    n_finite = int(np.isfinite(scores).sum())
    dropped = np.zeros(n_units, bool)
    dropped[order[: min(round(sparsity * n_units), n_finite)]] = True
    return dropped


def _scores(tensor: Tensor, units: Units, p: float, progress: Progress) -> Array:
    """Return the sum of |x|^p, or the largest |x|, of each unit; Inf where a unit holds NaN or Inf.

    A float64 weight beyond 1e154, whose square is beyond float64, counts as Inf too: its unit is kept.
    """
    merge: Callable[[Array, Array], Array] = np.maximum if p == math.inf else np.add
    return total(partial(_score, units, p), merge, tensor, progress)


def _score(units: Units, p: float, blocks: Blocks) -> Array:
    wide = np.abs(widened(blocks.values[0]))
    wide[~np.isfinite(wide)] = np.inf
    at = units.at(blocks.start, blocks.start + wide.size)
    if p == math.inf:
        largest = np.zeros(units.n_units + 1)
        np.maximum.at(largest, at, wide)
        return largest[:-1]
    with np.errstate(over="ignore", under="ignore"):
        return np.bincount(at, wide if p == 1 else wide * wide, units.n_units + 1)[:-1]

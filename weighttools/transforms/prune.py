"""Pruning single weights: by magnitude or at random, to an exact number, or all below a threshold."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.core.dtypes import DTYPES, DType
from weighttools.core.fold import Blocks, Fold
from weighttools.core.radix import DIGIT_BITS
from weighttools.core.random_numbers import Numbers
from weighttools.core.readers import Positioned
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import SpecError, option
from weighttools.io.progress import Progress, silent
from weighttools.transforms.counted_report import CountedReport
from weighttools.transforms.counting import Chosen, Key, Ranking, is_finite, over, planning_bytes, smallest
from weighttools.transforms.editing import finite, replaced, whole

if TYPE_CHECKING:
    from weighttools.core.spec import Array

DropFn = Callable[[int, "Array"], "Array"]
"""Takes the position of a block's first element and the block; returns which elements to drop, as booleans."""
Drops = Mapping[str, DropFn]

ORDERED = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F80, "float64": 0x7FF0}
"""Dtypes whose bit patterns without the sign are ordered as their magnitudes, and the high bits of their Inf."""


@dataclass(frozen=True, slots=True)
class Magnitude:
    """The bits of |x|, as `dtype` holds it exactly: unsigned integers in the order of the magnitudes."""

    dtype: DType

    def __call__(self, start: int, block: Array) -> Array:
        if block.dtype != self.dtype.numpy:
            with np.errstate(all="ignore"):
                block = block.astype(self.dtype.numpy)
        bits = block.view(f"u{block.itemsize}")
        found: Array = bits & bits.dtype.type((1 << (self.dtype.bits - 1)) - 1)
        return found


@dataclass(frozen=True, slots=True)
class RandomKey:
    """31 random bits for each element; NaN and Inf come last."""

    numbers: Numbers

    def __call__(self, start: int, block: Array) -> Array:
        keys = self.numbers.words(start, start + block.size)
        keys >>= np.uint32(1)
        keys[~is_finite(block)] = 0xFFFFFFFF
        return keys


@dataclass(frozen=True, slots=True)
class Below:
    """Drop keys less than `pattern`, and those equal to it before position `stop`."""

    key: Key
    pattern: int
    stop: int = 0

    def __call__(self, start: int, block: Array) -> Array:
        keys = self.key(start, block)
        drop: Array = keys < self.pattern
        if start < self.stop:
            n = self.stop - start
            drop[:n] |= keys[:n] == self.pattern
        return drop


@dataclass(frozen=True, slots=True)
class Zeroed:
    """Blocks with the dropped elements 0."""

    drop: DropFn

    def __call__(self, start: int, block: Array) -> Array:
        return self.counted(start, block)[0]

    def counted(self, start: int, block: Array) -> tuple[Array, int]:
        """Return the block with the dropped elements 0, and how many those are."""
        kept = np.logical_not(self.drop(start, block))
        found: Array = block.view(f"u{block.itemsize}") * kept.view(np.uint8)  # a tenth of the time of a choice
        return found.view(block.dtype), block.size - int(np.count_nonzero(kept))


@dataclass(frozen=True, slots=True)
class Kept:
    """Masks of blocks: whether an element is kept."""

    drop: DropFn

    def __call__(self, start: int, block: Array) -> Array:
        return ~self.drop(start, block)


def pruned(tensor_map: TensorMap, drops: Drops, report: Mapping[str, Any], multiple: int = 1) -> TensorMap:
    """Return the map with the dropped elements 0: +0.0, whatever their sign was.

    A `report` without `n_pruned` counts it, by reading the tensors once, when it is asked for.
    """

    def zeroed(tensor: Tensor, drop: DropFn) -> Tensor:
        return Tensor(Spec(tensor.dtype, tensor.shape), Positioned(tensor.reader, Zeroed(drop), multiple))

    changed = {name: zeroed(tensor_map[name], drop) for name, drop in drops.items()}
    if report.get("n_pruned") is None:
        report = CountedReport(report, "n_pruned", partial(_n_dropped, tuple(changed.values())))
    return replaced(tensor_map, changed, report)


def _n_dropped(zeroed: Sequence[Tensor]) -> int:
    """Return how many elements pruned tensors drop, in one pass over their values."""
    return sum(over([Fold((_mask(tensor),), _n_false) for tensor in zeroed], add))


def _n_false(blocks: Blocks) -> int:
    [block] = blocks.values
    return block.size - int(np.count_nonzero(block))


def _mask(tensor: Tensor) -> Tensor:
    """Return the mask of a tensor that was just pruned."""
    reader = tensor.decode
    assert isinstance(reader, Positioned) and isinstance(reader.fn, Zeroed)
    kept = Positioned(reader.reader, Kept(reader.fn.drop), reader.multiple)
    return Tensor(Spec(DTYPES["bool"], tensor.shape), kept)


def masks(tensor_map: TensorMap) -> TensorMap:
    """Return the masks of the last pruning: boolean tensors under the names of the pruned, true where kept.

    Raises
    ------
    SpecError
        The map was not pruned, or was changed since.
    """
    if tensor_map.report.get("transform") != "prune":
        raise SpecError("masks are to be had of a map that was just pruned", remedy="prune it last")
    found = {}
    for name in tensor_map.report["names"]:
        reader = tensor_map[name].decode
        if not isinstance(reader, Positioned) or not isinstance(reader.fn, Zeroed):
            raise SpecError("it was changed since it was pruned", subject=name, remedy="prune it last")
        found[name] = _mask(tensor_map[name])
    origin = tensor_map.origin
    others = tuple(path for path in (*origin.others, origin.path, *origin.files) if path)
    origin = origin._replace(reports=(), others=others)
    return tensor_map.replace(tensors=found, aliases={}, metadata={}, origin=origin)


def magnitude(
    names: Sequence[str],
    sparsity: float | None,
    threshold: float | None,
    scope: str,
    says: Mapping[str, Any],
    progress: Progress = silent,
) -> Transform:
    """Return a transform that drops the smallest weights by magnitude.

    Parameters
    ----------
    names
        Tensors to prune, and among which to compare.
    sparsity
        The share of elements of each scope to drop, rounded to a whole number of them, halves to even; zeros are
        the first to go. The tensors are read once or twice to find the threshold.
    threshold
        Instead: drop what is smaller than this.
    scope
        Compare all tensors (``"global"``), each by itself (``"tensor"``), or those of a layer (``"group"``: names
        alike up to their first number, else up to the last part).
    says
        What the report says of the selection.
    progress
        Called with the number of bytes just looked at, to find the threshold.

    Raises
    ------
    SpecError
        Not one of `sparsity` and `threshold` is given, or it is out of range, or there is no such scope.
    """
    if (sparsity is None) == (threshold is None):
        raise SpecError(
            "pruning is by target or by threshold", expected=f"one of {option('sparsity')} and {option('threshold')}"
        )
    head = {"transform": "prune", "by": "magnitude", **says, "names": list(names)}
    if threshold is not None:
        least = finite(option("threshold"), threshold)

        def cut(tensor_map: TensorMap) -> TensorMap:
            drops = {name: _less(least, tensor_map[name].dtype) for name in names}
            return pruned(tensor_map, drops, {**head, "threshold": threshold})

        return cut
    assert sparsity is not None
    return _ranked(names, checked(sparsity), scope, head, by_magnitude, progress)


def draw(
    names: Sequence[str],
    sparsity: float,
    scope: str,
    seed: int,
    says: Mapping[str, Any],
    progress: Progress = silent,
) -> Transform:
    """Return a transform that drops random weights: by (seed, name, position), so a higher target drops more of them.

    Parameters and errors are those of `magnitude`; a seed is an integer of 0 or more.
    """
    seed = whole(option("seed"), seed)
    head = {"transform": "prune", "by": "random", "seed": seed, **says, "names": list(names)}

    def ranking(tensor_map: TensorMap, scope_names: Sequence[str]) -> Ranking:
        return Ranking(tuple(RandomKey(Numbers(seed, name, "prune")) for name in scope_names), 32, 0x8000)

    return _ranked(names, checked(sparsity), scope, head, ranking, progress)


def checked(sparsity: float) -> float:
    """Return a sparsity that can be asked for."""
    return finite(option("sparsity"), sparsity, 0, 1)


def _ranked(
    names: Sequence[str],
    sparsity: float,
    scope: str,
    head: Mapping[str, Any],
    ranking: Callable[[TensorMap, Sequence[str]], Ranking],
    progress: Progress,
) -> Transform:
    if scope not in SCOPES:
        raise SpecError(f"{option('scope')} {scope!r} is not known", expected=f"one of {', '.join(SCOPES)}")

    def transform(tensor_map: TensorMap) -> TensorMap:
        drops: dict[str, DropFn] = {}
        scopes = []
        for label, members in SCOPES[scope](names).items():
            tensors = [tensor_map[name] for name in members]
            order = ranking(tensor_map, members)
            n_elements = sum(tensor.n_elements for tensor in tensors)
            found = smallest(tensors, order, round(sparsity * n_elements), progress)
            for name, key, cut in zip(members, order.keys, found.cuts, strict=True):
                drops[name] = Below(key, cut.pattern, cut.stop)
            scopes.append({"scope": label, "n_elements": n_elements, **_found(found, order)})
        n_pruned = sum(row["n_pruned"] for row in scopes)
        report = {
            **head, "sparsity": sparsity, "scope": scope, "n_pruned": n_pruned, "scopes": scopes,
            "planning_bytes": planning_bytes(tensor_map[name] for name in names),
        }  # fmt: skip
        return pruned(tensor_map, {name: drops[name] for name in names}, report)

    return transform


def _found(found: Chosen, order: Ranking) -> dict[str, Any]:
    """Return what a report says of a scope: how many are dropped, and the largest magnitude among them."""
    key = order.keys[0]
    value = None
    if isinstance(key, Magnitude) and found.n_chosen:
        unsigned = np.array([found.pattern], f"u{key.dtype.bits // 8}")
        value = float(unsigned.view(key.dtype.numpy)[0])
    return {"n_pruned": found.n_chosen, "largest_pruned": value}


def reading_bytes(tensors: Sequence[Tensor], scope_is_random: bool) -> int:
    """Return how many bytes it takes to look at tensors until their smallest elements are found."""
    bits = 32 if scope_is_random else common({tensor.dtype.name for tensor in tensors}).bits
    return sum(tensor.spec.nbytes for tensor in tensors) * (bits // DIGIT_BITS)


def by_magnitude(tensor_map: TensorMap, names: Sequence[str]) -> Ranking:
    """Return the order of magnitudes of tensors that may differ in dtype."""
    wide = common({tensor_map[name].dtype.name for name in names})
    return Ranking((Magnitude(wide),) * len(names), wide.bits, ORDERED[wide.name])


def common(dtypes: set[str]) -> DType:
    """Return the dtype in which magnitudes of all these can be compared exactly by their bits."""
    if len(dtypes) == 1 and dtypes <= set(ORDERED):
        return DTYPES[dtypes.pop()]
    return DTYPES["float64" if "float64" in dtypes else "float32"]


def _less(threshold: float, dtype: DType) -> Below:
    """Return the cut below a threshold: before the first pattern whose value is not less."""
    wide = common({dtype.name})
    with np.errstate(over="ignore"):
        near = np.array([threshold], np.float64).astype(wide.numpy)
    pattern = int(near.view(f"u{near.itemsize}")[0])
    return Below(Magnitude(wide), pattern + (float(near[0]) < threshold))


def _by_group(names: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        numbered = re.match(r"(?:.*?[./_])??[0-9]+(?=[./_])", name)
        groups.setdefault(numbered[0] if numbered else re.split(r"[./]", name)[0], []).append(name)
    return groups


SCOPES: dict[str, Callable[[Sequence[str]], dict[str, list[str]]]] = {
    "global": lambda names: {"": list(names)},
    "tensor": lambda names: {name: [name] for name in names},
    "group": _by_group,
}
"""How tensors are put together to be compared: the groups, by their names."""

"""Means of checkpoints: soups, weighted means, exponential moving averages over a series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.core.dtypes import DType
from weighttools.core.readers import aligned_read
from weighttools.core.tensor import Reader, Spec, Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.families.packed import packed
from weighttools.transforms.cast import cast_block
from weighttools.transforms.counting import widened
from weighttools.transforms.editing import PIECE_ELEMENTS, replaced

if TYPE_CHECKING:
    from weighttools.core.tensor import Array


@dataclass(frozen=True, slots=True)
class Averaged:
    """``sum(w x) / sum(w)`` over readers of equal lengths, added up in float64 in their order and rounded once."""

    readers: tuple[Reader, ...]
    weights: tuple[float, ...]
    n_elements: int
    dtype: DType

    @property
    def granularity(self) -> int:
        return math.lcm(*(max(1, reader.granularity) for reader in self.readers))

    @property
    def band(self) -> int:
        """The widest of the readers'; see `Strided.band`."""
        return max(getattr(reader, "band", 1) for reader in self.readers)

    @property
    def element_bytes(self) -> int:
        """What an element under way takes: once from each reader, and its mean."""
        return (len(self.readers) + 1) * self.dtype.bits // 8

    def __call__(self, start: int, stop: int) -> Array:
        blocks = [aligned_read(reader, start, stop, self.n_elements) for reader in self.readers]
        out = np.empty(stop - start, self.dtype.numpy)
        for at in range(0, out.size, PIECE_ELEMENTS):
            piece = slice(at, at + PIECE_ELEMENTS)
            out[piece] = self._mean([block[piece] for block in blocks])
        return out

    def _mean(self, blocks: Sequence[Array]) -> Array:
        with np.errstate(all="ignore"):
            total, *others = (_times(block, weight) for block, weight in zip(blocks, self.weights, strict=True))
            total = total if total.dtype == np.float64 and total is not blocks[0] else widened(total)
            for block in others:
                total += block
            total /= math.fsum(self.weights)
            return cast_block(total, self.dtype)


def _times(block: Array, weight: float) -> Array:
    """Return a block times its weight, in float64; a float32 block of weight 1 as it is, to be added so."""
    return block if block.dtype == np.float32 and weight == 1 else widened(block) * weight


def ema_weights(decay: float, n: int) -> list[float]:
    """Return each checkpoint's share in ``e <- decay e + (1 - decay) x``, begun at the first.

    >>> ema_weights(0.5, 3)
    [0.25, 0.25, 0.5]
    """
    return [decay ** (n - 1), *((1 - decay) * decay ** (n - 1 - i) for i in range(1, n))]


def checked_weights(weights: Sequence[float], n: int) -> tuple[float, ...]:
    """Return weights for `n` checkpoints: finite, with a sum that is not 0.

    Raises
    ------
    SpecError
        They are not.
    """
    total = math.fsum(weights) if all(map(math.isfinite, weights)) else 0.0
    if len(weights) != n or total == 0:
        raise SpecError(f"{len(weights)} weights for {n} checkpoints", expected="a finite one each, whose sum is not 0")
    return tuple(map(float, weights))


def without_packed(tensor_map: TensorMap, names: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Return the names but for parts of packed weights, and how many those are, by the rule that leaves them out."""
    found = packed(tensor_map)
    kept = [name for name in names if found is None or name not in found.members]
    rule = f"copied from the first: parts of weights packed as {found.title}" if found else ""
    return kept, {rule: len(names) - len(kept)} if found else {}


def average(
    maps: Sequence[TensorMap], names: Sequence[str], weights: Sequence[float], says: Mapping[str, Any]
) -> TensorMap:
    """Return the weighted mean of some tensors of several maps; all else is the first map's.

    The result has the first map's dtypes. Nothing is read yet.

    Parameters
    ----------
    maps
        At least two, with the same tensors.
    names
        Floating tensors of the first map to average.
    weights
        One a map; they are divided by their sum.
    says
        What the report says of the selection.

    Raises
    ------
    SpecError
        A map lacks a tensor, or has another shape or an encoding; or the weights do not fit.
    """
    if len(maps) < 2:
        raise SpecError("there is nothing to average with one checkpoint", expected="two or more")
    shares = checked_weights(weights, len(maps))
    changed = {name: _mean([_partner(other, maps[0], name) for other in maps], shares) for name in names}
    copied = [name for name in maps[0] if name not in changed]
    report = {
        "transform": "average", "weights": [w / math.fsum(shares) for w in shares],
        "sources": [other.origin.path for other in maps], **says, "copied": copied,
        "names": list(names),
    }  # fmt: skip
    return replaced(maps[0], changed, report)


def _partner(other: TensorMap, first: TensorMap, name: str) -> Tensor:
    where = other.origin.path or None
    if name not in other:
        raise SpecError(f"there is no tensor {name!r} to average", subject=where, remedy=f"leave it out: -x {name}")
    found, wanted = other[name], first[name]
    if found.shape != wanted.shape or not found.dtype.is_float or found.spec.is_quantized:
        fact = f"{name!r} is {found.spec.label} {found.shape}, not a float {wanted.shape}"
        raise SpecError(fact, subject=where, expected="tensors of equal shapes, decoded")
    return found


def _mean(tensors: Sequence[Tensor], weights: tuple[float, ...]) -> Tensor:
    first = tensors[0]
    readers = tuple(tensor.reader for tensor in tensors)
    return Tensor(Spec(first.dtype, first.shape), Averaged(readers, weights, first.n_elements, first.dtype))

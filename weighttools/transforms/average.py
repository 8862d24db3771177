"""Means of checkpoints: soups, weighted means, exponential moving averages over a series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.core.dtypes import DType
from weighttools.core.readers import aligned_read
from weighttools.core.spec import Reader, Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.transforms.average_plan import plan, result
from weighttools.transforms.cast import cast_block
from weighttools.transforms.counting import widened
from weighttools.transforms.editing import PIECE_ELEMENTS

if TYPE_CHECKING:
    from weighttools.core.spec import Array


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


def average(
    maps: Sequence[TensorMap],
    weights: Sequence[float],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    missing: str = "error",
    says: Mapping[str, Any] | None = None,
) -> TensorMap:
    """Return the weighted mean of the parameters of several maps, and of running statistics; all else is the first's.

    A tensor is what a name means in each map, tied there or not: names that are tied in all of them stay tied, others
    become tensors of their own. The result has the first map's dtypes. Nothing is read yet.

    Parameters
    ----------
    maps
        At least two, of one model.
    weights
        One a map; they are divided by their sum.
    include, exclude
        Name patterns of the tensors to average; default all.
    missing
        What becomes of a tensor that not all maps have: ``"error"``, ``"keep"`` (the mean over those that have it) or
        ``"drop"``.
    says
        What the report says beside.

    Raises
    ------
    SpecError
        A map lacks a tensor, or has another shape or an encoding; little of the maps fits; or the weights do not fit.
    TensorNotFoundError
        A pattern matches nothing.
    """
    if len(maps) < 2:
        raise SpecError("there is nothing to average with one checkpoint", expected="two or more")
    shares = checked_weights(weights, len(maps))
    found = plan(maps, include, exclude, missing)
    changed = {name: _shared(maps, name, found.holders[name], shares) for name in found.averaged}
    averaged = result(found, maps, changed)
    report = {
        "transform": "average", "weights": [w / math.fsum(shares) for w in shares],
        "sources": [other.origin.path for other in maps], **(says or {}), "n_changed": len(changed),
        "left_alone": found.left, "copied": [name for name in averaged if name not in changed], "names": list(changed),
        "missing": missing, "not_in_all": found.lacking, "untied": found.untied,
    }  # fmt: skip
    return averaged.reported(report).noted(*found.notes(missing))


def _shared(maps: Sequence[TensorMap], name: str, holders: Sequence[int], weights: Sequence[float]) -> Tensor:
    """Return the mean over the maps that have a tensor."""
    return _mean([maps[i][name] for i in holders], checked_weights([weights[i] for i in holders], len(holders)))


def _mean(tensors: Sequence[Tensor], weights: tuple[float, ...]) -> Tensor:
    first = tensors[0]
    readers = tuple(tensor.reader for tensor in tensors)
    return Tensor(Spec(first.dtype, first.shape), Averaged(readers, weights, first.n_elements, first.dtype))

"""Fingerprints of values that know nothing of their order: equal for a tensor and any arrangement of it.

Every element, as float64, is mixed to 128 bits, and these are added: equal sums are equal values, but for one chance in
2**100 or so, whatever the axes, the dtype and the name. NaN counts as one value, and -0.0 as 0.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighttools.analyzers.compare.casting import cast_values
from weighttools.analyzers.kernels import careful
from weighttools.core.dtypes import DType
from weighttools.core.fold import Blocks, Fold, fold_blocks
from weighttools.core.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from weighttools.core.spec import Array

Fingerprint = tuple[int, int]
_FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_MIX, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Fingerprints(NamedTuple):
    """The fingerprint of the values as they are (by ``None``), and of them rounded to other dtypes, by name.

    `varies` says whether there are two different values.
    """

    of: Mapping[str | None, Fingerprint]
    first: float | None
    varies: bool

    def merge(self, other: Fingerprints) -> Fingerprints:
        """Return those of both parts together."""
        if self.first is None or other.first is None:
            return other if self.first is None else self
        mask = (1 << 64) - 1
        of = {key: ((a + other.of[key][0]) & mask, (b + other.of[key][1]) & mask) for key, (a, b) in self.of.items()}
        varies = self.varies or other.varies or not _is_same(self.first, other.first)
        return Fingerprints(of, self.first, varies)


def _is_same(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)


@dataclass(frozen=True, slots=True)
class FingerprintsOf:
    """Makes the fingerprints of a block, also of what it is rounded to `rounded`; it pickles."""

    rounded: tuple[DType, ...] = ()

    def __call__(self, blocks: Blocks) -> Fingerprints:
        [values] = blocks.values
        if not values.size:
            return Fingerprints(dict.fromkeys((None, *(dtype.name for dtype in self.rounded)), (0, 0)), None, False)
        wide = widened(values)
        of: dict[str | None, Fingerprint] = {None: _sums(wide)}
        for dtype in self.rounded:
            of[dtype.name] = _sums(cast_values(values, dtype.numpy).astype(np.float64))
        first = float(wide[0])
        same = np.isnan(wide) if first != first else wide == first
        return Fingerprints(of, first, not bool(same.all()))


def widened(values: Array) -> Array:
    """Return values as float64; 64-bit integers and complex numbers by their bits, which are equal where they are."""
    if values.dtype.kind == "c" or (values.dtype.kind in "iu" and values.dtype.itemsize == 8):
        bits = np.ascontiguousarray(values).view(np.uint64)
        mixed = bits if values.dtype.itemsize == 8 else bits[::2] * _FIRST + bits[1::2]
        found: Array = (mixed >> np.uint64(12)).astype(np.float64) if values.dtype.kind == "c" else values.astype("f8")
        return found
    return careful.widened(values)


def _sums(wide: Array) -> Fingerprint:
    bits = mixed_bits(wide)
    second = bits * _SECOND
    second ^= second >> np.uint64(29)
    return int(np.add.reduce(bits)), int(np.add.reduce(second))


def mixed_bits(wide: Array) -> Array:
    """Return 64 bits of each value that look like chance, equal where values are.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014 (the finishing of SplitMix64).
    """
    x = wide + 0.0
    x[np.isnan(x)] = np.nan
    bits = x.view(np.uint64) + _FIRST
    bits ^= bits >> np.uint64(30)
    bits *= _MIX
    bits ^= bits >> np.uint64(27)
    bits *= _MIX2
    bits ^= bits >> np.uint64(31)
    return bits


def fingerprints(
    tensors: Sequence[Tensor],
    rounded: Sequence[tuple[DType, ...]],
    executor: Executor | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Fingerprints]:
    """Yield the fingerprints of tensors, each with those of the values rounded to some dtypes; each is read once."""
    folds: Iterable[Fold[Any]] = (
        Fold((tensor,), FingerprintsOf(dtypes)) for tensor, dtypes in zip(tensors, rounded, strict=True)
    )
    return fold_blocks(folds, Fingerprints.merge, executor=executor, progress=progress)

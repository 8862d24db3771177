"""Two tensors of the same values: by which order of axes, if any, one is the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weighttools.analyzers.compare.casting import cast_values
from weighttools.core.dtypes import DType
from weighttools.core.fold import Blocks, Fold, fold_blocks
from weighttools.core.permuted import permuted
from weighttools.core.readers import Elementwise
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor

if TYPE_CHECKING:
    from weighttools.core.spec import Array

MOST_AXES = 5
_GLANCE = 4096
_SIDES = range(2, 33)
"""Sides of a square image that is flattened before a dense layer."""


class Arrangement(NamedTuple):
    """The old tensor as the new one is arranged, and whether that moved anything."""

    tensor: Tensor
    is_moved: bool


def arranged(before: Tensor, after: Tensor) -> Arrangement | None:
    """Return `before` in the order of axes in which its values are those of `after`; None where there is none.

    Values are compared in the narrower dtype of both. Orders are those of the axes that are longer than 1, and, for a
    dense layer after a flattened square image, those of the image's axes.
    """
    for candidate, is_moved in _candidates(before, after):
        if are_equal(candidate, after):
            return Arrangement(candidate, is_moved)
    return None


def _candidates(before: Tensor, after: Tensor) -> Iterator[tuple[Tensor, bool]]:
    folded = tuple(n for n in before.shape if n != 1)
    wanted = tuple(n for n in after.shape if n != 1)
    if len(folded) <= MOST_AXES and sorted(folded) == sorted(wanted):
        for axes in permutations(range(len(folded))):
            if tuple(folded[axis] for axis in axes) == wanted:
                is_moved = axes != tuple(range(len(folded)))
                yield permuted(before, folded, axes, after.shape), is_moved
    if len(folded) == len(wanted) == 2:
        yield from _flattened(before, folded, after, wanted)


def _flattened(
    before: Tensor, folded: tuple[int, ...], after: Tensor, wanted: tuple[int, ...]
) -> Iterator[tuple[Tensor, bool]]:
    """Yield orders of a flattened image's axes: rows of a dense layer are (h, w, c) here and (c, h, w) there."""
    for turned in (False, True):
        if (folded[::-1] if turned else folded) != wanted:
            continue
        for which in (0, 1):
            n = folded[which]
            for side in _SIDES:
                if n % (side * side) == 0 and n > side * side:
                    yield from _images(before, folded, after, _Image(which, side, turned))


class _Image(NamedTuple):
    which: int
    side: int
    turned: bool


def _images(before: Tensor, folded: tuple[int, ...], after: Tensor, image: _Image) -> Iterator[tuple[Tensor, bool]]:
    n = folded[image.which] // image.side**2
    for sides in ((image.side, image.side, n), (n, image.side, image.side)):
        other = 1 - image.which
        shape = (*sides, folded[1]) if image.which == 0 else (folded[0], *sides)
        own = (0, 1, 2) if image.which == 0 else (1, 2, 3)
        rest = 3 if image.which == 0 else 0
        for order in permutations(own):
            if order == own:
                continue
            first = (image.which if not image.turned else other) == 0
            axes = (*order, rest) if first else (rest, *order)
            yield permuted(before, shape, axes, after.shape), True


def are_equal(a: Tensor, b: Tensor) -> bool:
    """Whether values are equal, one by one, in the narrower dtype of both; a first look refuses most that are not."""
    one, other = _as_narrow(a, b)
    n = min(_GLANCE, a.n_elements)
    if one.reader.granularity <= n and not _are_same(one.reader(0, n), other.reader(0, n)):
        return False
    [n_other] = fold_blocks([Fold((one, other), _count)], int.__add__)
    return n_other == 0


def _as_narrow(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.dtype == b.dtype or not (a.dtype.is_float and b.dtype.is_float):
        return a, b
    narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.bits)
    return rounded(a, narrow), rounded(b, narrow)


def rounded(tensor: Tensor, dtype: DType) -> Tensor:
    """Return a tensor rounded to a dtype when it is read."""
    if tensor.dtype == dtype:
        return tensor
    return Tensor(Spec(dtype, tensor.shape), Elementwise(tensor.reader, _To(dtype.name)))


@dataclass(frozen=True, slots=True)
class _To:
    """Rounds an array to a dtype, by name; it pickles."""

    name: str

    def __call__(self, values: Array) -> Array:
        from weighttools.core.dtypes import DTYPES

        return cast_values(values, DTYPES[self.name].numpy)


def _count(blocks: Blocks) -> int:
    a, b = blocks.values
    return int(np.count_nonzero(_differ(a, b)))


def _are_same(a: Array, b: Array) -> bool:
    return not _differ(a, b).any()


def _differ(a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        found: Array = (a != b) & ~((a != a) & (b != b))
    return found

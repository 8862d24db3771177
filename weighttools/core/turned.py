"""Reading transposed and permuted tensors in large pieces: few long reads, then one transposition in memory.

`readers.Strided` serves any view, a few elements at a time; where a view is a permutation of dense rows, this reader
takes about `PIECE_BYTES` at once, so that the runs it reads from the file are long.
"""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighttools.core.dtypes import DType
from weighttools.core.tensor import Span

if TYPE_CHECKING:
    from weighttools.core.tensor import Array

PIECE_BYTES = 8 << 20
_SHORT_BYTES = 64
"""Runs shorter than this cost more in calls than they are worth."""


@dataclass(frozen=True, slots=True)
class Turned:
    """A permuted view of dense rows: element (i, j, …) lies at ``i * strides[0] + j * strides[1] + …`` of the span.

    Parameters
    ----------
    span
        Where the view begins; it must hold all its elements.
    dtype, byteorder
        Of the stored elements; whole bytes each.
    shape, strides
        In elements; no two places are one.
    rows
        How many indices of the first axis are read at once: the granularity, in rows.
    """

    span: Span
    dtype: DType
    byteorder: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    rows: int

    @property
    def granularity(self) -> int:
        return self.rows * math.prod(self.shape[1:])

    def __call__(self, start: int, stop: int) -> Array:
        import numpy as np

        row = math.prod(self.shape[1:])
        pieces = []
        for first in range(start // row, -(-stop // row), self.rows):
            pieces.append(self._piece(first, min(first + self.rows, self.shape[0])))
        values = pieces[0] if len(pieces) == 1 else np.concatenate([*pieces, np.empty(0, self.dtype.numpy)])
        return values[: stop - start]

    def _piece(self, first: int, last: int) -> Array:
        """Read rows `first` to `last`, flat."""
        import numpy as np

        shape = (last - first, *self.shape[1:])
        order, n_outer, run = _runs(shape, self.strides)
        itemsize = self.dtype.bits // 8
        data = np.empty(math.prod(shape), self.dtype.numpy)
        target, at = data.view(np.uint8).data, 0
        begin = self.span.offset + first * self.strides[0] * itemsize
        steps = [range(0, shape[a] * self.strides[a] * itemsize, self.strides[a] * itemsize) for a in order[:n_outer]]
        for offsets in itertools.product(*steps):
            self.span.source.readinto(begin + sum(offsets), target[at : at + run * itemsize])
            at += run * itemsize
        if (self.byteorder == "<") != (sys.byteorder == "little"):
            data = data.byteswap(inplace=True)
        stored = data.reshape([shape[axis] for axis in order])
        flat: Array = stored.transpose(np.argsort(order)).reshape(-1)
        return flat


def _runs(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[list[int], int, int]:
    """Return the axes by falling stride, how many of them step from run to run, and the length of a run."""
    order = sorted(range(len(shape)), key=lambda axis: (shape[axis] == 1, strides[axis]), reverse=True)
    order = [a for a in order if shape[a] == 1] + [a for a in order if shape[a] != 1]
    run, n_outer = 1, len(order)
    while n_outer and (strides[order[n_outer - 1]] == run or shape[order[n_outer - 1]] == 1):
        n_outer -= 1
        run *= shape[order[n_outer]]
    return order, n_outer, run


def turned(span: Span, dtype: DType, byteorder: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> Turned | None:
    """Return a reader for a view that this way of reading suits: no shared places, and runs long enough; else None."""
    if not math.prod(shape) or dtype.bits < 8 or not _distinct(shape, strides):
        return None
    itemsize = dtype.bits // 8
    rows = max(1, min(shape[0], PIECE_BYTES // (itemsize * math.prod(shape[1:])))) if shape else 1
    if not shape or math.prod(shape[1:]) * itemsize > PIECE_BYTES:
        return None
    _, _, run = _runs((rows, *shape[1:]), strides)
    return Turned(span, dtype, byteorder, shape, strides, rows) if run * itemsize >= _SHORT_BYTES else None


def _distinct(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether, from the smallest stride up, each axis steps over all that the axes below it span."""
    spanned = 1
    for stride, length in sorted(zip(strides, shape, strict=True)):
        if length == 1:
            continue
        if stride < spanned:
            return False
        spanned = (length - 1) * stride + spanned
    return True

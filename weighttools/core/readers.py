"""The nodes that read runs of elements: frozen, picklable, and built without loading NumPy."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighttools.core.dtypes import DType
from weighttools.core.tensor import Reader, Span

if TYPE_CHECKING:
    from weighttools.core.tensor import Array

NEAR_ELEMENTS = 16
"""Strided reads at most this far apart become one: reading a few unwanted elements beats another system call."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Elements as they lie in a file: C order, packed to the dtype's bits.

    Parameters
    ----------
    span
        Where they lie.
    dtype
        The element type.
    byteorder
        ``"<"``, or ``">"`` for big-endian elements of whole bytes.
    """

    span: Span
    dtype: DType
    byteorder: str = "<"

    @property
    def granularity(self) -> int:
        return self.dtype.pack

    def __call__(self, start: int, stop: int) -> Array:
        import numpy as np

        return self.read_into(start, stop, np.empty(self._nbytes(start, stop), np.uint8))

    def read_into(self, start: int, stop: int, buffer: Array) -> Array:
        """Read elements `start` to `stop` by way of `buffer` (uint8, long enough for their packed bytes).

        The result is a view of the buffer, so it holds until the buffer is used again: touching the pages of a fresh
        array costs more than reading the bytes. Elements narrower than a byte are unpacked into an array of their own.
        """
        data = buffer[: self._nbytes(start, stop)]
        self.span.source.readinto(self.span.offset + start * self.dtype.bits // 8, data.data)
        if self.dtype.bits < 8:
            from weighttools.core.packing import unpack

            return unpack(data, self.dtype.bits, stop - start).view(self.dtype.numpy)
        values = data.view(self.dtype.numpy)
        stored_natively = (self.byteorder == "<") == (sys.byteorder == "little")
        return values if stored_natively else values.byteswap(inplace=True)

    def _nbytes(self, start: int, stop: int) -> int:
        return self.dtype.nbytes(stop) - start * self.dtype.bits // 8


@dataclass(frozen=True, slots=True)
class Held:
    """An array in memory."""

    array: Array

    @property
    def granularity(self) -> int:
        return 1

    def __call__(self, start: int, stop: int) -> Array:
        if self.array.flags.c_contiguous:
            return self.array.reshape(-1)[start:stop]
        return self.array.flat[start:stop]  # a copy of just the run


@dataclass(frozen=True, slots=True)
class Elementwise:
    """`fn` applied to each block of `reader`; `fn` must keep the length, and pickle (a function of a module)."""

    reader: Reader
    fn: Callable[[Array], Array]

    @property
    def granularity(self) -> int:
        return self.reader.granularity

    def __call__(self, start: int, stop: int) -> Array:
        return self.fn(self.reader(start, stop))


@dataclass(frozen=True, slots=True)
class Whole:
    """A tensor that can only be had whole: `load` returns all `n_elements`, flat and in C order."""

    load: Callable[[], Array]
    n_elements: int

    @property
    def granularity(self) -> int:
        return max(1, self.n_elements)

    def __call__(self, start: int, stop: int) -> Array:
        return self.load()[start:stop]


@dataclass(frozen=True, slots=True)
class Joined:
    """Readers laid end to end; `ends` are the running totals of their lengths in elements."""

    readers: tuple[Reader, ...]
    ends: tuple[int, ...]

    @property
    def granularity(self) -> int:
        return max((reader.granularity for reader in self.readers), default=1)

    def __call__(self, start: int, stop: int) -> Array:
        import numpy as np

        parts = []
        at = bisect_right(self.ends, start)
        while start < stop:
            base = self.ends[at - 1] if at else 0
            end = min(stop, self.ends[at])
            parts.append(aligned_read(self.readers[at], start - base, end - base, self.ends[at] - base))
            start, at = end, at + 1
        return np.concatenate(parts) if len(parts) != 1 else parts[0]


@dataclass(frozen=True, slots=True)
class Strided:
    """A view of a base reader: element (i, j, …) lies at ``offset + i * strides[0] + j * strides[1] + …``.

    Serves slices, Fortran order and strided storages alike. Near elements are read together; no more of the base
    is read than the runs that hold them.
    """

    base: Reader
    n_base: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def granularity(self) -> int:
        whole = self.base.granularity > 8
        return max(1, math.prod(self.shape)) if whole else 1

    def __call__(self, start: int, stop: int) -> Array:
        import numpy as np

        from weighttools.core.slicing import is_contiguous

        if is_contiguous(self.shape, self.strides):
            return aligned_read(self.base, self.offset + start, self.offset + stop, self.n_base)
        where = self._positions(start, stop)
        order = np.sort(where)
        cuts = np.flatnonzero(np.diff(order) > NEAR_ELEMENTS) + 1
        pieces = [(int(p[0]), int(p[-1]) + 1) for p in np.split(order, cuts) if p.size]
        values = [aligned_read(self.base, first, last, self.n_base) for first, last in pieces]
        if len(pieces) == 1:
            only: Array = values[0][where - pieces[0][0]]
            return only
        lengths = np.array([v.size for v in values])
        firsts = np.array([first for first, _ in pieces])
        piece = np.searchsorted(firsts, where, side="right") - 1
        picked: Array = np.concatenate(values)[where - firsts[piece] + (np.cumsum(lengths) - lengths)[piece]]
        return picked

    def _positions(self, start: int, stop: int) -> Array:
        """Where in the base each element from `start` to `stop` lies."""
        import numpy as np

        flat = np.arange(start, stop)
        where = np.full(stop - start, self.offset)
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            flat, index = np.divmod(flat, length)
            where += index * stride
        return where


def aligned_read(reader: Reader, start: int, stop: int, n_elements: int) -> Array:
    """Read `start` to `stop` of a reader of `n_elements`, widened to its granularity and cut back."""
    unit = max(1, reader.granularity)
    first = start // unit * unit
    last = min(n_elements, -(-stop // unit) * unit)
    return reader(first, last)[start - first : stop - first]

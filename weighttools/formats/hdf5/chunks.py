"""Readers for what HDF5 does not lay out in one run: chunks, and values that were never written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighttools.core.dtypes import DType
from weighttools.core.spec import Source, Span
from weighttools.errors import CorruptFileError, WeighttoolsError
from weighttools.formats.hdf5.filters import MOST_EXPANSION, Filter, undo

if TYPE_CHECKING:
    from weighttools.core.spec import Array

Chunk = tuple[tuple[int, ...], int, int, int]
"""A stored chunk: its first index; offset and length in bytes in the source; its filter mask."""


@dataclass(frozen=True, slots=True)
class Filled:
    """Elements that all have one value, as those of a data set that was never written.

    Parameters
    ----------
    value
        One element's bytes, as the file stores it.
    dtype
        The element type.
    byteorder
        Of `value`.
    """

    value: bytes
    dtype: DType
    byteorder: str = "<"

    @property
    def granularity(self) -> int:
        return 1

    def __call__(self, start: int, stop: int) -> Array:
        import numpy as np

        return native(np.frombuffer(self.value * (stop - start), np.uint8), self.dtype, self.byteorder)


@dataclass(frozen=True, slots=True)
class Chunked:
    """Elements in chunks, each of which may be filtered; a row of chunks along the first long axis is read at a time.

    Parameters
    ----------
    source
        Where the chunks lie.
    shape, chunk
        Of the data set and of one chunk, in elements, axes of equal number.
    rows
        The stored chunks by their row, the number of chunks before them along that axis; where a chunk is missing,
        the elements have the value `fill`.
    filters
        As they were applied.
    fill
        One element's bytes, as the file stores it.
    dtype, byteorder
        The element type.
    label
        What to call the data set in a message.
    """

    source: Source
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    rows: Mapping[int, tuple[Chunk, ...]]
    filters: tuple[Filter, ...]
    fill: bytes
    dtype: DType
    byteorder: str
    label: str

    @property
    def _row(self) -> int:
        """The elements of one index along the first long axis."""
        return math.prod(self.shape[long_axis(self.shape) + 1 :])

    @property
    def granularity(self) -> int:
        return max(1, self.chunk[long_axis(self.shape)] * self._row)

    def __call__(self, start: int, stop: int) -> Array:
        import numpy as np

        if stop <= start:
            return np.empty(0, self.dtype.numpy)
        axis, row = long_axis(self.shape), self._row
        top, bottom = start // row, -(-stop // row)
        fill = np.frombuffer(self.fill, np.dtype(("V", len(self.fill))))
        slab = np.empty((*self.shape[:axis], bottom - top, *self.shape[axis + 1 :]), fill.dtype)
        rows = range(top // self.chunk[axis], -(-bottom // self.chunk[axis]))
        chunks = [chunk for number in rows for chunk in self.rows.get(number, ())]
        if len(chunks) < len(rows) * self._chunks_a_row(axis):
            slab[...] = fill
        for chunk in chunks:
            self._place(slab, chunk, (*(0,) * axis, top, *(0,) * (len(self.shape) - axis - 1)))
        flat = slab.reshape(-1)[start - top * row : stop - top * row]
        return native(flat.view(np.uint8), self.dtype, self.byteorder)

    def places(self) -> Iterator[Span]:
        """Yield where the stored chunks lie."""
        for row in self.rows.values():
            for _, offset, length, _ in row:
                yield Span(self.source, offset, length)

    def _chunks_a_row(self, axis: int) -> int:
        return math.prod(-(-n // c) for n, c in zip(self.shape[axis + 1 :], self.chunk[axis + 1 :], strict=True))

    def _place(self, slab: Array, chunk: Chunk, corner: tuple[int, ...]) -> None:
        """Put a chunk where it belongs in the slab, whose first element is at `corner`."""
        firsts = [o - k for o, k in zip(chunk[0], corner, strict=True)]  # negative where the slab begins within it
        into = tuple(slice(max(0, f), f + n) for f, n in zip(firsts, self.chunk, strict=True))
        target = slab[into]
        begins = [max(0, -f) for f in firsts]
        values = self._values(chunk, slab.dtype.itemsize)
        target[...] = values[tuple(slice(b, b + n) for b, n in zip(begins, target.shape, strict=True))]

    def _values(self, chunk: Chunk, itemsize: int) -> Array:
        import numpy as np

        _, offset, length, mask = chunk
        n_bytes = math.prod(self.chunk) * itemsize
        try:
            if n_bytes > MOST_EXPANSION * length + 64:
                raise CorruptFileError(f"a chunk of {n_bytes:,} bytes is stored in {length:,}", offset=offset)
            data = undo(self.source.read(offset, length), self.filters, mask, n_bytes)
        except WeighttoolsError as error:
            error.fact = f"data set {self.label!r}: {error.fact}"
            error.offset = offset
            raise error.about(self.source.name) from None
        return np.frombuffer(data, np.dtype(("V", itemsize))).reshape(self.chunk)


def long_axis(shape: tuple[int, ...]) -> int:
    """Return the first axis longer than 1: before it there is only one index."""
    return next((axis for axis, length in enumerate(shape) if length != 1), 0)


def native(data: Array, dtype: DType, byteorder: str) -> Array:
    """Return stored bytes as a flat array of `dtype` in the machine's order."""
    import sys

    import numpy as np

    values = data.view(dtype.numpy)
    stored_natively = (byteorder == "<") == (sys.byteorder == "little")
    found: Array = np.ascontiguousarray(values) if stored_natively else values.byteswap()
    return found

"""The nodes that read runs of elements: frozen, picklable, and built without loading NumPy."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul
from typing import TYPE_CHECKING

from weighttools.core import plan
from weighttools.core.dtypes import DType
from weighttools.core.spec import Reader, Span
from weighttools.core.strides import is_contiguous
from weighttools.errors import SpecError

if TYPE_CHECKING:
    from weighttools.core.spec import Array

NEAR_ELEMENTS = 16
"""Elements of a slice at most this far apart are read together: a few unwanted ones beat another system call."""
BAND_ELEMENTS = 1 << 22
"""Elements worth reading at once of a tensor whose axes are permuted: 16 MiB of float32, many times a block.

Each read of such a band passes over much of the base, so fewer, larger bands pass over it less often.
"""


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
        self.span.readinto(start * self.dtype.bits // 8, data.data)
        if self.dtype.bits < 8:
            from weighttools.core.packing import unpack

            return unpack(data, self.dtype.bits, stop - start).view(self.dtype.numpy)
        values = data.view(self.dtype.numpy)
        stored_natively = (self.byteorder == "<") == (sys.byteorder == "little")
        return values if stored_natively else values.byteswap(inplace=True)

    def _nbytes(self, start: int, stop: int) -> int:
        return self.dtype.nbytes(stop) - start * self.dtype.bits // 8


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """An array in memory; equal to another if it is the very same array."""

    array: Array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self.array is other.array

    def __hash__(self) -> int:
        return id(self.array)

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

    @property
    def band(self) -> int:
        """As the reader's own; see `Strided.band`."""
        return getattr(self.reader, "band", 1)


@dataclass(frozen=True, slots=True)
class Applied:
    """`fn`, a user's, applied to each block of `reader`: what it returns is looked at.

    Raises
    ------
    SpecError
        It is not as many elements, or not of `dtype`.
    """

    reader: Reader
    fn: Callable[[Array], Array]
    dtype: DType

    @property
    def granularity(self) -> int:
        return self.reader.granularity

    def __call__(self, start: int, stop: int) -> Array:
        import numpy as np

        block = np.array(self.reader(start, stop))  # a copy, which fn may change
        n_elements, found = block.size, np.asarray(self.fn(block))
        if found.shape != (n_elements,) or found.dtype.name != self.dtype.name:
            fact = (
                f"the function gives {found.dtype.name} of shape {found.shape} for a block of {n_elements:,} elements"
            )
            raise SpecError(fact, expected=f"{self.dtype.name} of shape ({n_elements},), element by element")
        native: Array = found.astype(self.dtype.numpy, copy=False)
        return native

    @property
    def band(self) -> int:
        """As the reader's own; see `Strided.band`."""
        return getattr(self.reader, "band", 1)


def applied_dtype(fn: Callable[[Array], Array], dtype: DType) -> DType:
    """Return the dtype that a user's function makes of another, which it is asked for by a block of no elements.

    Raises
    ------
    SpecError
        It does not give as many elements, or no numbers.
    """
    import numpy as np

    from weighttools.core.arrays import array_of
    from weighttools.core.dtypes import from_numpy

    found = array_of(fn(np.empty(0, dtype.numpy)))
    if found.shape != (0,):
        fact = f"the function gives shape {found.shape} for a block of 0 elements"
        raise SpecError(fact, expected="as many elements as it is given, each for itself")
    return from_numpy(found.dtype)


@dataclass(frozen=True, slots=True)
class Positioned:
    """``fn(start, block)`` applied to each block of `reader`: as `Elementwise`, where the position matters.

    Parameters
    ----------
    reader
        Gives the blocks.
    fn
        Takes the position of the block's first element, and the block, which it must not change; keeps the length.
    multiple
        Blocks begin on multiples of this many elements.
    """

    reader: Reader
    fn: Callable[[int, Array], Array]
    multiple: int = 1

    @property
    def granularity(self) -> int:
        return math.lcm(max(1, self.reader.granularity), self.multiple)

    def __call__(self, start: int, stop: int) -> Array:
        return self.fn(start, self.reader(start, stop))

    @property
    def band(self) -> int:
        """As the reader's own; see `Strided.band`."""
        return getattr(self.reader, "band", 1)


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
        if not parts:
            return self.readers[0](0, 0)
        return np.concatenate(parts) if len(parts) != 1 else parts[0]


def joined(parts: Iterable[tuple[Reader, int]]) -> Joined:
    """Return readers laid end to end, each given with its length in elements."""
    readers, lengths = zip(*parts, strict=True)
    return Joined(readers, tuple(accumulate(lengths)))


@dataclass(frozen=True, slots=True)
class Strided:
    """A view of a base reader: element (i, j, …) lies at ``offset + i * strides[0] + j * strides[1] + …``.

    Serves slices, transposes, Fortran order and strided storages alike. Of a slice, no more of the base is read than
    the runs that hold its elements; of permuted axes, runs of which an eighth at least is wanted (`plan.pieces`).
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

    @property
    def band(self) -> int:
        """How many elements are best read at once: many, where their order differs from the base's."""
        if self._in_order():
            return 1
        n_elements, row = math.prod(self.shape), math.prod(self.shape[1:])
        return n_elements if n_elements <= BAND_ELEMENTS else BAND_ELEMENTS // row * row or BAND_ELEMENTS

    def _in_order(self) -> bool:
        """Whether the axes lie in the base's order: a slice, not a transpose."""
        steps = [abs(step) for n, step in zip(self.shape, self.strides, strict=True) if n > 1]
        return all(outer >= inner for outer, inner in pairwise(steps))

    def __call__(self, start: int, stop: int) -> Array:
        if start >= stop or is_contiguous(self.shape, self.strides):
            return aligned_read(self.base, self.offset + start, self.offset + stop, self.n_base)
        if self._in_order():
            return self._picked(start, stop)
        row = math.prod(self.shape[1:])
        first, last = start // row * row, -(-stop // row) * row
        if last - first <= 2 * (stop - start):  # parts of rows are dear: read them whole
            return self._turned(first, last)[start - first : stop - first]
        return self._turned(start, stop)

    def _picked(self, start: int, stop: int) -> Array:
        """Read elements whose order is the base's, or nearly so."""
        import numpy as np

        where = self._positions(start, stop)
        order = np.sort(where)
        near = max(NEAR_ELEMENTS, self.base.granularity)  # what is decoded together is decoded once
        cuts = np.flatnonzero(np.diff(order) > near) + 1
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

    def _turned(self, start: int, stop: int) -> Array:
        """Read elements whose axes are permuted, by runs of the base that hold many of them."""
        import numpy as np

        whole = self.base.granularity > 8
        base = Held(self.base(0, self.n_base)) if whole else self.base  # what is decoded together is decoded once
        out: Array | None = None
        for piece in self._pieces(start, stop):
            data = aligned_read(base, piece.first, piece.last, self.n_base)
            if out is None:
                out = np.empty(stop - start, data.dtype)
            _view(out, piece.dst, piece.axes, 2)[...] = _view(data, piece.src - piece.first, piece.axes, 1)
        assert out is not None, "a run that is not empty has pieces"
        return out

    def _pieces(self, start: int, stop: int) -> Iterator[plan.Piece]:
        """Plan the reads for elements `start` to `stop`."""
        done = 0
        for at, lengths in plan.boxes(start, stop, self.shape):
            steps = (math.prod(lengths[axis + 1 :]) for axis in range(len(lengths)))
            axes = [plan.Axis(*axis) for axis in zip(lengths, self.strides, steps, strict=True) if axis[0] > 1]
            axes.sort(key=lambda axis: -abs(axis.src))
            src = self.offset + sum(map(mul, at, self.strides))
            yield from plan.pieces(axes, src, done)
            done += math.prod(lengths)


def _view(data: Array, first: int, axes: Sequence[plan.Axis], end: int) -> Array:
    """Return the strided view of flat `data` that begins at `first`, by the axes' steps at one end of a copy."""
    import numpy as np

    width = data.itemsize
    shape, strides = [axis.length for axis in axes], [axis[end] * width for axis in axes]
    plain = np.ascontiguousarray(data).view(np.uint8)  # bfloat16 and its like cannot be buffers under their own name
    return np.ndarray(shape, data.dtype, plain, first * width, strides)


def aligned_read(reader: Reader, start: int, stop: int, n_elements: int) -> Array:
    """Read `start` to `stop` of a reader of `n_elements`, widened to its granularity and cut back."""
    if start >= stop:
        return reader(0, 0)  # where a view of nothing begins may lie outside
    unit = max(1, reader.granularity)
    first = start // unit * unit
    last = min(n_elements, -(-stop // unit) * unit)
    return reader(first, last)[start - first : stop - first]

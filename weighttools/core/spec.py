"""What lies below a tensor: its spec, the bytes it is stored in, and what reads runs of its elements."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from weighttools.core.dtypes import DType
from weighttools.core.encodings import block_of

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Spec:
    """A tensor's logical type.

    Parameters
    ----------
    dtype
        The element type.
    shape
        The lengths of the axes; ``()`` is a scalar.
    encoding
        How the source stores the elements: ``"raw"`` is little-endian, C order, packed to the dtype's bits; the
        names in `weighttools.core.encodings` are quantisations, whose `dtype` is the one that decoding gives.
    """

    dtype: DType
    shape: tuple[int, ...]
    encoding: str = "raw"
    n_elements: int = field(init=False, repr=False, compare=False)
    """The number of elements, exact at any size."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_elements", math.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """The size in bytes as raw, packed elements."""
        return self.dtype.nbytes(self.n_elements)

    @property
    def is_quantized(self) -> bool:
        """Whether the elements are stored as quantised blocks."""
        return block_of(self.encoding) is not None

    @property
    def encoded_bytes(self) -> int:
        """The size in bytes in this encoding, where it is a quantisation; else as raw, packed elements."""
        block = block_of(self.encoding)
        return self.nbytes if block is None else -(-self.n_elements // block.elements) * block.n_bytes

    @property
    def label(self) -> str:
        """What to call the element type in a table: the quantisation, if there is one, else the dtype."""
        return self.encoding if self.is_quantized else self.dtype.name


class Source(Protocol):
    """Bytes that can be read at any offset."""

    @property
    def name(self) -> str:
        """What to call it in a message."""

    @property
    def size(self) -> int:
        """The length in bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`."""

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`."""


class Content(Protocol):
    """A run of bytes whose CRC-32 is known, and is checked once all of it has been read: a member of an archive."""

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the source's bytes from `offset`, and remember their CRC-32."""

    def confirm(self, offset: int, length: int) -> None:
        """Hear that these bytes have been read; with the last of them, check the CRC-32 of the whole."""


class Span(NamedTuple):
    """A run of bytes: `length` bytes at `offset` of `source`, perhaps within a `content` with a CRC-32."""

    source: Source
    offset: int
    length: int
    content: Content | None = None

    def readinto(self, at: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `at` of the span on."""
        (self.content or self.source).readinto(self.offset + at, buffer)

    def part(self, at: int, length: int) -> Span:
        """Return `length` bytes from `at` on."""
        return Span(self.source, self.offset + at, length, self.content)


class Reader(Protocol):
    """Reads runs of a tensor's elements."""

    @property
    def granularity(self) -> int:
        """The smallest run, in elements, that can be read alone: 1, a packing unit, or the whole tensor."""

    def __call__(self, start: int, stop: int) -> Array:
        """Return elements `start` to `stop` in C order as a flat array; `start` on a granularity boundary."""

"""Readers of quantised tensors: they give float32 elements, or the encoded blocks as they are. No NumPy is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from weighttools.core.encodings import BlockSize, block_of
from weighttools.core.spec import Reader, Span

if TYPE_CHECKING:
    from weighttools.core.spec import Array


class BlockReader(Reader, Protocol):
    """A reader whose elements are quantised blocks."""

    def encoded(self, start: int, stop: int) -> Array:
        """Return the blocks of elements `start` to `stop`, both on block boundaries, as flat bytes (uint8)."""


def geometry(encoding: str) -> BlockSize:
    """Return the block of an encoding that is known to be a quantisation."""
    block = block_of(encoding)
    assert block is not None, "only quantised encodings have blocks"
    return block


@dataclass(frozen=True, slots=True)
class Quantized:
    """Elements stored as quantised blocks.

    Parameters
    ----------
    span
        Where whole blocks lie.
    encoding
        A name of `weighttools.core.encodings.QUANTIZED`, or one with ``_be``.
    """

    span: Span
    encoding: str

    @property
    def granularity(self) -> int:
        return geometry(self.encoding).elements

    def encoded(self, start: int, stop: int) -> Array:
        import numpy as np

        block = geometry(self.encoding)
        first, last = start // block.elements, -(-stop // block.elements)
        data = np.empty((last - first) * block.n_bytes, np.uint8)
        self.span.source.readinto(self.span.offset + first * block.n_bytes, data.data)
        return data

    def __call__(self, start: int, stop: int) -> Array:
        return decoded(self.encoded(start, stop), self.encoding)[: stop - start]


@dataclass(frozen=True, slots=True)
class Encoder:
    """Elements of `base`, floating, as they will be once they are encoded.

    The blocks hold 32 elements or more, so `base` is read on their boundaries.
    """

    base: Reader
    encoding: str

    @property
    def granularity(self) -> int:
        return math.lcm(max(1, self.base.granularity), geometry(self.encoding).elements)

    def encoded(self, start: int, stop: int) -> Array:
        from weighttools.encodings.blocks import ENCODERS

        return ENCODERS[self.encoding](self.base(start, stop))

    def __call__(self, start: int, stop: int) -> Array:
        return decoded(self.encoded(start, stop), self.encoding)


def decoded(data: Array, encoding: str) -> Array:
    """Return the float32 elements of whole blocks given as flat bytes."""
    from weighttools.encodings.blocks import decode

    return decode(data.reshape(-1, geometry(encoding).n_bytes), encoding)

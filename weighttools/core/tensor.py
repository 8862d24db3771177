"""What a tensor is before its values are read: a spec, a way to read a run of elements, a place in a file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighttools.core.dtypes import DType
from weighttools.core.spec import Reader, Span, Spec
from weighttools.errors import SpecError

if TYPE_CHECKING:
    from weighttools.core.spec import Array

BLOCK_ELEMENTS = 1 << 18
"""Elements a block holds unless told otherwise: 1 MiB of float32, which stays in the second-level cache."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor's spec and the means to read it; no value is held.

    Parameters
    ----------
    spec
        dtype, shape and encoding.
    decode
        Reads runs of elements in C order; None for raw bytes, which `stored` tells all about.
    stored
        Where the bytes lie; their meaning is ``spec.encoding``. Raw ones can be copied as they are.
    """

    spec: Spec
    decode: Reader | None = None
    stored: Span | None = None

    @property
    def reader(self) -> Reader:
        """The means to read runs of elements in C order."""
        if self.decode is not None:
            return self.decode
        from weighttools.core.readers import Raw

        assert self.stored is not None, "a tensor is decoded or stored"
        return Raw(self.stored, self.spec.dtype)

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.spec.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self.spec.shape

    @property
    def n_elements(self) -> int:
        """The number of elements."""
        return self.spec.n_elements

    @property
    def stored_bytes(self) -> int:
        """The bytes taken in the file; for a tensor that is in no file, those its encoding would take."""
        return self.spec.encoded_bytes if self.stored is None else self.stored.length

    @property
    def run_elements(self) -> int:
        """How many elements a writer best reads at once: a block, or more where the reader says so."""
        reader = self.reader
        return max(BLOCK_ELEMENTS, reader.granularity, getattr(reader, "band", 1))

    def read(self) -> Array:
        """Return the whole tensor as an array of its shape.

        Raises
        ------
        SpecError
            NumPy cannot hold such a shape: more than 64 axes, or a side of 2**63 beside one of 0.
        """
        values = self.reader(0, self.n_elements)
        confirm(self)
        try:
            return values.reshape(self.shape)
        except ValueError as error:
            shape = self.shape if len(self.shape) <= 64 else f"({', '.join(map(str, self.shape[:4]))}, …)"
            raise SpecError(f"NumPy holds no array of {len(self.shape):,} axes of shape {shape}: {error}") from None

    def blocks(self, block_elements: int = BLOCK_ELEMENTS) -> Iterator[Array]:
        """Yield the elements as flat arrays in C order, each about `block_elements` long."""
        from weighttools.core.plan import blocks

        for start, stop in blocks(self.n_elements, self.reader.granularity, block_elements):
            yield self.reader(start, stop)
        confirm(self)

    def sliced(self, key: object) -> Tensor:
        """Return the tensor that NumPy basic indexing with `key` would give; nothing is read yet.

        Raises
        ------
        SpecError
            The index is out of range, or is not made of integers, slices and ``...``.
        """
        from weighttools.core.slicing import sliced

        return Tensor(*sliced(self.reader, self.spec, key))

    def __getitem__(self, key: object) -> Array:
        """Read a slice, and only the byte ranges that it needs."""
        return self.sliced(key).read()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        import numpy as np

        return np.asarray(self.read(), dtype=dtype)


def confirm(tensor: Tensor) -> None:
    """Check, once a tensor has been read whole, the CRC-32 of what it is the last part of.

    Raises
    ------
    CorruptFileError
        The bytes are not those that the archive's writer stored.
    """
    for span in spans(tensor):
        if span.content is not None:
            span.content.confirm(span.offset, span.length)


def spans(part: object) -> Iterator[Span]:
    """Yield the spans that a tensor, or a reader and those it stands on, reads whole."""
    if isinstance(part, Span):
        yield part
        return
    if math.prod(getattr(part, "shape", ())) < getattr(part, "n_base", 0):
        return  # a slice
    fields = part if type(part) is tuple else [getattr(part, name, None) for name in getattr(part, "__slots__", ())]
    for field_ in fields:
        if type(field_) is tuple or isinstance(field_, Span) or hasattr(field_, "granularity"):
            yield from spans(field_)

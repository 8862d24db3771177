"""What a tensor is before its values are read: a spec, a way to read a run of elements, a place in a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from weighttools.core.dtypes import DType
from weighttools.core.spec import Reader, Span, Spec
from weighttools.errors import SpecError, counted, printable

if TYPE_CHECKING:
    from weighttools.core.spec import Array

BLOCK_ELEMENTS = 1 << 18
"""Elements a block holds unless told otherwise: 1 MiB of float32, which stays in the second-level cache."""


FEW_VALUES = 6
"""How many values of a small array in memory a tensor shows when it is printed."""


@dataclass(frozen=True, slots=True, repr=False)
class Tensor:
    """A named tensor's spec and the means to read it; no value is held, but for one made of an array.

    A tensor is always true, whatever its values and its length.

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

    @classmethod
    def from_array(cls, array: Any) -> Tensor:
        """Make a tensor of an array, which is held, not copied: what is changed in it later shows.

        Parameters
        ----------
        array
            A NumPy array, ml_dtypes' types too, a torch tensor on the CPU, or anything `numpy.asarray` takes.

        Raises
        ------
        SpecError
            It holds no plain numbers, or has masked elements.

        Examples
        --------
        >>> Tensor.from_array([[1, 2], [3, 4]])
        Tensor: int64, shape (2, 2), 32 bytes in memory: 1, 2, 3, 4
        """
        from weighttools.core.arrays import array_of
        from weighttools.core.dtypes import from_numpy
        from weighttools.core.readers import Held

        if isinstance(array, Tensor):
            return cls(array.spec, array.decode, array.stored)
        values = array_of(array)
        return cls(Spec(from_numpy(values.dtype), values.shape), Held(values))

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
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.spec.shape)

    @property
    def n_elements(self) -> int:
        """The number of elements."""
        return self.spec.n_elements

    @property
    def size(self) -> int:
        """The number of elements, as NumPy calls it."""
        return self.spec.n_elements

    @property
    def nbytes(self) -> int:
        """The bytes of the array that `read` gives: more than `stored_bytes` where the file packs or encodes it."""
        return self.spec.n_elements * max(8, self.spec.dtype.bits) // 8

    @property
    def is_held(self) -> bool:
        """Whether the values are an array in memory."""
        return hasattr(self.decode, "array")

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
        """Return the whole tensor as an array of its shape, which is the caller's own, to change or not.

        Raises
        ------
        SpecError
            NumPy cannot hold such a shape: more than 64 axes, or a side of 2**63 beside one of 0.
        """
        values = self.reader(0, self.n_elements)
        if _stands_on_memory(self.decode):
            values = values.copy()
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

    def apply(self, fn: Callable[[Array], Array]) -> Tensor:
        """Return the tensor of ``fn(block)`` for each block of values: nothing is read before it is asked for.

        Parameters
        ----------
        fn
            Takes a flat array of some of the elements, in C order and as many as it pleases the reader, and returns
            as many, each from the one in its place. It is called at once with an array of no elements, which tells
            the dtype, and then whenever values are read.

        Raises
        ------
        SpecError
            `fn` does not keep the number of elements, or gives no numbers; later, while reading, also another dtype.

        Examples
        --------
        >>> half = Tensor.from_array([1.0, 2.0]).apply(lambda block: block / 2)
        >>> half.read().tolist()
        [0.5, 1.0]
        """
        from weighttools.core.readers import Applied, applied_dtype

        dtype = applied_dtype(fn, self.dtype)
        return Tensor(Spec(dtype, self.shape), Applied(self.reader, fn, dtype))

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

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor of no axes has no length")
        return self.shape[0]

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Array]:
        """Read one part after another along the first axis."""
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Tensor: {', '.join(f'{what} {text}'.strip() for what, text in self.described())}"

    def described(self) -> list[tuple[str, str]]:
        """Return what is known of it without reading, a label and a text each: for people."""
        shape, spec = self.shape, self.spec
        sides = f"({', '.join(map(str, shape[:8]))}, …), {len(shape):,} axes" if len(shape) > 64 else str(shape)
        rows = [("", spec.dtype.name), ("shape", sides)]
        if spec.encoding != "raw":
            rows.append(("stored as", spec.encoding))
        size = counted(self.stored_bytes, "byte")
        if self.stored is not None:
            return [*rows, ("", f"{size} at {self.stored.offset:,} of {printable(self.stored.source.name)}")]
        if not self.is_held:
            return [*rows, ("", f"{size}, computed when read")]
        return [*rows, ("", f"{size} in memory" + (f": {self._few_values()}" if self.n_elements else ""))]

    def _few_values(self) -> str:
        values = self.reader(0, min(self.n_elements, FEW_VALUES))
        return ", ".join(map(str, values.tolist())) + (", …" if self.n_elements > FEW_VALUES else "")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        import numpy as np

        return np.asarray(self.read(), dtype=dtype)

    def _repr_html_(self) -> str:
        from weighttools.core.notebook import tensor_html

        return tensor_html(self)


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


def _stands_on_memory(reader: object) -> bool:
    """Whether a reader may give a view of an array that someone holds."""
    while reader is not None:
        if hasattr(reader, "array"):
            return True
        reader = getattr(reader, "base", None) or getattr(reader, "reader", None)
    return False


def sources(part: object, depth: int = 8) -> Iterator[str]:
    """Yield the paths of the files that a tensor, or a reader and those it stands on, reads from."""
    path = getattr(getattr(part, "source", None), "path", "")
    if path and isinstance(path, str):
        yield path
    slots = [getattr(part, name, None) for name in getattr(type(part), "__slots__", ())]
    inner = part if type(part) is tuple else part.args if isinstance(part, partial) else slots
    for one in inner if depth else ():
        yield from sources(one, depth - 1)

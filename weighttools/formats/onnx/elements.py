"""The elements of ONNX tensors: what each data type is read as, and the readers of those that do not lie plainly.

Source: ``onnx/onnx.proto``, TensorProto.DataType and the comments on float_data, int32_data and raw_data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighttools.core.dtypes import DTYPES, DType
from weighttools.core.readers import Raw, Whole, joined
from weighttools.core.spec import Reader, Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.errors import CorruptFileError

if TYPE_CHECKING:
    from weighttools.core.spec import Array


@dataclass(frozen=True, slots=True)
class Element:
    """An element type: the dtype it is read as, the bits it takes, the field its typed data lies in.

    Parameters
    ----------
    dtype
        The dtype of the values.
    bits
        The bits an element takes in raw data; fewer than the dtype's for 4- and 2-bit integers.
    field
        ``"float_data"``, ``"int32_data"``, ``"int64_data"``, ``"double_data"`` or ``"uint64_data"``.
    encoding
        ``"raw"``, or the name of the narrow integer.
    """

    dtype: DType
    bits: int
    field: str
    encoding: str = "raw"


def _plain(name: str, field_name: str) -> Element:
    return Element(DTYPES[name], DTYPES[name].bits, field_name)


# TensorProto.DataType -> element; 8 is STRING, which holds no numbers.
ELEMENTS: dict[int, Element] = {
    1: _plain("float32", "float_data"),
    2: _plain("uint8", "int32_data"),
    3: _plain("int8", "int32_data"),
    4: _plain("uint16", "int32_data"),
    5: _plain("int16", "int32_data"),
    6: _plain("int32", "int32_data"),
    7: _plain("int64", "int64_data"),
    9: _plain("bool", "int32_data"),
    10: _plain("float16", "int32_data"),
    11: _plain("float64", "double_data"),
    12: _plain("uint32", "uint64_data"),
    13: _plain("uint64", "uint64_data"),
    14: _plain("complex64", "float_data"),
    15: _plain("complex128", "double_data"),
    16: _plain("bfloat16", "int32_data"),
    17: _plain("float8_e4m3fn", "int32_data"),
    18: _plain("float8_e4m3fnuz", "int32_data"),
    19: _plain("float8_e5m2", "int32_data"),
    20: _plain("float8_e5m2fnuz", "int32_data"),
    21: Element(DTYPES["uint8"], 4, "int32_data", "uint4"),
    22: Element(DTYPES["int8"], 4, "int32_data", "int4"),
    23: _plain("float4_e2m1fn", "int32_data"),
    24: _plain("float8_e8m0fnu", "int32_data"),
    25: Element(DTYPES["uint8"], 2, "int32_data", "uint2"),
    26: Element(DTYPES["int8"], 2, "int32_data", "int2"),
    27: _plain("float6_e2m3fn", "int32_data"),
    28: _plain("float6_e3m2fn", "int32_data"),
}
STRING = 8


def of_bytes(spec: Spec, element: Element, spans: list[Span]) -> Tensor:
    """Return the tensor whose packed, little-endian elements lie at `spans`, one after the other."""
    if element.encoding != "raw":
        return Tensor(spec, Narrow(spans[0], element.encoding, element.bits), spans[0])
    if len(spans) == 1:
        return Tensor(spec, None, spans[0])
    return Tensor(spec, _joined(spans, element.dtype))


def _joined(spans: Iterable[Span], dtype: DType) -> Reader:
    """Read elements that come in pieces: floats written one field each."""
    stored = (
        {64: DTYPES["float32"], 128: DTYPES["float64"]}.get(dtype.bits, dtype) if dtype.kind == "complex" else dtype
    )
    parts = joined((Raw(span, stored), span.length * 8 // stored.bits) for span in spans)
    if dtype is stored:
        return parts
    total = parts.ends[-1]
    return Whole(_Complex(parts, total, dtype), total // 2)


@dataclass(frozen=True, slots=True)
class _Complex:
    """Complex numbers of real and imaginary parts that come in pieces."""

    parts: Reader
    n_parts: int
    dtype: DType

    def __call__(self) -> Array:
        return self.parts(0, self.n_parts).view(self.dtype.numpy)


@dataclass(frozen=True, slots=True)
class Narrow:
    """Integers of 2 or 4 bits, the first in the lowest bits of its byte, read as a byte each.

    Parameters
    ----------
    span
        Where they lie.
    name
        ml_dtypes' name of the narrow type.
    bits
        2 or 4.
    """

    span: Span
    name: str
    bits: int

    @property
    def granularity(self) -> int:
        return 8 // self.bits

    def __call__(self, start: int, stop: int) -> Array:
        import numpy as np

        per = 8 // self.bits
        data = np.empty(-(-stop // per) - start // per, np.uint8)
        self.span.source.readinto(self.span.offset + start // per, data.data)
        return widened(data, self.name, self.bits)[: stop - start]


def widened(packed: Array, name: str, bits: int) -> Array:
    """Return the 2- or 4-bit integers of packed bytes as int8 or uint8, one each."""
    import numpy as np

    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    fields = (packed[:, None] >> shifts & np.uint8((1 << bits) - 1)).reshape(-1)
    if name.startswith("u"):
        return fields
    top = np.uint8(1 << (bits - 1))
    return ((fields ^ top) - top).view(np.int8)


@dataclass(frozen=True, slots=True)
class Varints:
    """Load a tensor whose elements are varints.

    Parameters
    ----------
    spans
        Where they lie.
    n_stored
        How many there are; fewer than `n_elements` where several narrow elements share one.
    n_elements
        How many elements they make.
    element
        What they are: integers, or the bits of small floats.
    """

    spans: tuple[Span, ...]
    n_stored: int
    n_elements: int
    element: Element

    def __call__(self) -> Array:
        import numpy as np

        data = np.frombuffer(b"".join(s.source.read(s.offset, s.length) for s in self.spans), np.uint8)
        values = self._decoded(data)
        bits, dtype = self.element.bits, self.element.dtype
        if self.element.encoding != "raw":
            return widened(values.astype(np.uint8), self.element.encoding, bits)[: self.n_elements]
        if dtype.name == "float4_e2m1fn":
            return widened(values.astype(np.uint8), "uint4", 4)[: self.n_elements].view(dtype.numpy)
        if bits == 6:
            values &= np.uint64(0x3F)
        return values.astype(f"u{dtype.numpy.itemsize}").view(dtype.numpy)

    def _decoded(self, data: Array) -> Array:
        """Decode base-128 varints: seven bits a byte, the lowest first, the top bit on all but the last."""
        import numpy as np

        last = np.flatnonzero(data < 0x80)
        first = np.concatenate([[0], last[:-1] + 1]) if last.size else last
        lengths = last - first + 1
        if last.size != self.n_stored or (data.size and last[-1] != data.size - 1) or (lengths > 10).any():
            source = self.spans[0].source.name if self.spans else None
            raise CorruptFileError(
                f"a tensor has {last.size:,} whole numbers in {self.element.field}",
                subject=source,
                expected=f"{self.n_stored:,}",
            )
        values = np.zeros(self.n_stored, np.uint64)
        for place in range(int(lengths.max(initial=0))):
            longer = lengths > place
            part = (data[first[longer] + place] & np.uint8(0x7F)).astype(np.uint64)
            values[longer] |= part << np.uint64(7 * place)
        return values

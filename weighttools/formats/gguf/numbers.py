"""GGUF's numbers: `int` and `float` that keep the type, and a float its bits, that they have in the file.

Source: the GGUF specification (ggml, ``docs/gguf.md``), section "File Structure".
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple


class Integer(int):
    """A whole number with one of GGUF's types; `code` is the type's number."""

    code = 0


class UInt8(Integer):
    """An unsigned whole number of 8 bits."""

    code = 0


class Int8(Integer):
    """A signed whole number of 8 bits."""

    code = 1


class UInt16(Integer):
    """An unsigned whole number of 16 bits."""

    code = 2


class Int16(Integer):
    """A signed whole number of 16 bits."""

    code = 3


class UInt32(Integer):
    """An unsigned whole number of 32 bits."""

    code = 4


class Int32(Integer):
    """A signed whole number of 32 bits."""

    code = 5


class UInt64(Integer):
    """An unsigned whole number of 64 bits."""

    code = 10


class Int64(Integer):
    """A signed whole number of 64 bits."""

    code = 11


class Float(float):
    """A float with one of GGUF's types, and its very bits, little-endian: no float would keep a NaN's payload."""

    code = 12
    layout = "<d"
    bits: bytes

    def __new__(cls, value: float, bits: bytes | None = None) -> Float:
        self = super().__new__(cls, value)
        self.bits = struct.pack(cls.layout, value) if bits is None else bits
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (float(self), self.bits)


class Float64(Float):
    """A float of 64 bits."""


class Float32(Float):
    """A float of 32 bits."""

    code = 6
    layout = "<f"

    def __str__(self) -> str:
        """The shortest decimal that is this float32."""
        texts = (f"{float(self):.{digits}g}" for digits in range(6, 10))
        return next((text for text in texts if struct.pack("<f", float(text)) == self.bits), float.__repr__(self))


class Scalar(NamedTuple):
    """A value type of fixed width: its name, its code in `struct`, its bytes, and the class of its values."""

    name: str
    layout: str
    n_bytes: int
    make: type[Integer] | type[Float] | type[bool]


SCALARS: dict[int, Scalar] = {
    0: Scalar("uint8", "B", 1, UInt8),
    1: Scalar("int8", "b", 1, Int8),
    2: Scalar("uint16", "H", 2, UInt16),
    3: Scalar("int16", "h", 2, Int16),
    4: Scalar("uint32", "I", 4, UInt32),
    5: Scalar("int32", "i", 4, Int32),
    6: Scalar("float32", "f", 4, Float32),
    7: Scalar("bool", "?", 1, bool),
    10: Scalar("uint64", "Q", 8, UInt64),
    11: Scalar("int64", "q", 8, Int64),
    12: Scalar("float64", "d", 8, Float64),
}

"""The element types of HDF5 data sets, as h5py's low-level types tell them; for the child that lists a file.

Source: HDF5 File Format Specification 3.0, IV.A.2.d (the datatype message).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_FLOATS = {
    (8, 63, 52, 11, 0, 52, 1023): "float64",
    (4, 31, 23, 8, 0, 23, 127): "float32",
    (2, 15, 10, 5, 0, 10, 15): "float16",
    (2, 15, 7, 8, 0, 7, 127): "bfloat16",
    (1, 7, 2, 5, 0, 2, 15): "float8_e5m2",
    (1, 7, 3, 4, 0, 3, 7): "float8_e4m3fn",
}
"""Size; positions and widths of sign, exponent and mantissa; bias: HDF5 File Format 3.0, IV.A.2.d, class 1."""
_COMPLEX = {"float32": "complex64", "float64": "complex128"}

Element = tuple[str, str, str | None]
"""dtype, byte order and, if it is none of ours, what it is instead."""


class Types:
    """Describes element types by the constants of a given ``h5py.h5t``."""

    def __init__(self, h5t: Any) -> None:
        self.h5t = h5t

    def element(self, kind: Any) -> Element:
        """Describe a type; one that h5py itself cannot describe ends its data set, not the file."""
        try:
            return self._type(kind)
        except (AttributeError, TypeError, ValueError, NotImplementedError):
            return "", "<", "elements of a type that h5py does not know"

    def _type(self, kind: Any) -> Element:
        """Return dtype, byte order and, if it is none of ours, why."""
        code = kind.get_class()
        readers: dict[int, Callable[[Any], Element]] = {
            self.h5t.INTEGER: self._integer,
            self.h5t.BITFIELD: self._bits,
            self.h5t.FLOAT: self._float,
            self.h5t.ENUM: self._enum,
            self.h5t.COMPOUND: self._compound,
            self.h5t.OPAQUE: lambda kind: ("opaque", "<", None),
        }
        if getattr(self.h5t, "COMPLEX", None) == code:
            readers[code] = self._complex
        names = {
            self.h5t.STRING: "text",
            self.h5t.REFERENCE: "references",
            self.h5t.VLEN: "sequences of varying length",
        }
        if code in readers:
            return readers[code](kind)
        return "", "<", f"{names.get(code, 'elements of an array or time type')}, not numbers"

    def _order(self, kind: Any) -> str:
        return ">" if kind.get_order() == self.h5t.ORDER_BE else "<"

    def _integer(self, kind: Any) -> Element:
        size = kind.get_size()
        if size not in (1, 2, 4, 8) or kind.get_precision() != 8 * size:
            return "", "<", f"integers of {kind.get_precision()} bits in {size} bytes"
        signed = kind.get_class() == self.h5t.INTEGER and kind.get_sign() == self.h5t.SGN_2
        return f"{'' if signed else 'u'}int{8 * size}", self._order(kind), None

    def _bits(self, kind: Any) -> Element:
        """Bit fields, as h5py gives them: unsigned integers; it tells their byte order in the dtype alone."""
        name = str(kind.dtype.name)
        why = None if name in ("uint8", "uint16", "uint32", "uint64") else "bit fields of an unusual length"
        return name, ">" if kind.dtype.byteorder == ">" else "<", why

    def _float(self, kind: Any) -> Element:
        name = _FLOATS.get((kind.get_size(), *kind.get_fields(), kind.get_ebias()))
        if name is None or kind.get_order() not in (self.h5t.ORDER_LE, self.h5t.ORDER_BE):
            return "", "<", f"an unusual float type of {kind.get_size()} bytes"
        return name, self._order(kind), None

    def _enum(self, kind: Any) -> Element:
        members = {kind.get_member_name(i): kind.get_member_value(i) for i in range(min(kind.get_nmembers(), 3))}
        if members == {b"FALSE": 0, b"TRUE": 1} and kind.get_size() == 1:
            return "bool", "<", None
        return self._integer(kind.get_super())

    def _compound(self, kind: Any) -> Element:
        parts = [kind.get_member_type(i) for i in range(min(kind.get_nmembers(), 3))]
        floats = [self._float(p)[:2] for p in parts if p.get_class() == self.h5t.FLOAT]
        if len(parts) == len(floats) == 2 and floats[0] == floats[1] and floats[0][0] in _COMPLEX:
            names = (kind.get_member_name(0), kind.get_member_name(1))
            half = parts[0].get_size()
            packed = (kind.get_member_offset(0), kind.get_member_offset(1), kind.get_size()) == (0, half, 2 * half)
            if packed and names in ((b"r", b"i"), (b"real", b"imag")):
                return _COMPLEX[floats[0][0]], floats[0][1], None
        return "", "<", "records of several fields, a compound type"

    def _complex(self, kind: Any) -> Element:
        name = str(kind.dtype.name)
        why = None if name in _COMPLEX.values() else "an unusual complex type"
        return name, self._order(kind), why

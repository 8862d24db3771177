"""The header of an NPY file, and what it says of the elements behind it; HDF5, msgpack and pickles say the same.

Source: NumPy's ``numpy/lib/_format_impl.py``, "Format Version 1.0" to "3.0".

NumPy has no name for bfloat16 or the 8-, 6- and 4-bit floats: it writes ``|V2`` or ``|V1``. So do we, and name the
true dtype in a comment behind the header's dictionary, which NumPy's own reader passes over.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

from weighttools.core.dtypes import DTYPES, DType, dtype
from weighttools.core.spec import Spec
from weighttools.errors import CorruptFileError, SpecError, UnsafeFileError, UnsupportedError

MAGIC = b"\x93NUMPY"
MAX_HEADER = 1 << 16
ALIGN = 64
MAX_AXES = 64
"""NumPy's, since 2.0; it was 32."""

CODES = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "|i1",
    "uint64": "<u8",
    "uint32": "<u4",
    "uint16": "<u2",
    "uint8": "|u1",
    "bool": "|b1",
    "complex128": "<c16",
    "complex64": "<c8",
}
_NAMES = {code[1:]: name for name, code in CODES.items()}
_FIELD = re.compile(
    r"""\s*(?P<quote>['"])(?P<key>\w+)(?P=quote)\s*:\s*
    (?P<value>'[^'\\]*'|"[^"\\]*"|True|False|\([\d\sL,]*\)|\[.*\])\s*(?:,|(?=\}))""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_SIDE = r"(?:0|[1-9]\d{0,18})L?\s*"  # Python 2 wrote long integers with an L
_SHAPE = re.compile(rf"\(\s*(?:(?:{_SIDE},\s*)+(?:{_SIDE})?)?\)", re.ASCII)
_CHECKS = {
    "descr": re.compile(r"['\"\[].*", re.DOTALL),
    "fortran_order": re.compile("True|False"),
    "shape": _SHAPE,
}
_OBJECTS = re.compile(r"O|object", re.IGNORECASE)
_TRUE_DTYPE = re.compile(r"\s*#\s*dtype:\s*(\w+)\s*")


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What an NPY header says.

    Parameters
    ----------
    descr
        NumPy's type string, e.g. ``"<f4"``.
    fortran
        Whether the elements lie in Fortran order.
    shape
        The lengths of the axes.
    true_dtype
        The dtype behind a void type string, if the header names it.
    length
        Bytes before the data.
    """

    descr: str
    fortran: bool
    shape: tuple[int, ...]
    true_dtype: str | None
    length: int


def parse_header(head: Callable[[int], bytes], subject: str) -> NpyHeader:
    """Parse an NPY header; ``head(n)`` gives up to the first n bytes.

    Raises
    ------
    CorruptFileError
        It is not a header as NumPy writes one.
    """
    start = head(12)
    if not start.startswith(MAGIC) or len(start) < 10 or start[6] not in (1, 2, 3):
        raise CorruptFileError(
            "does not begin with an NPY header", subject=subject, expected="version 1 to 3", offset=0
        )
    wide = start[6] > 1
    begin = 12 if wide else 10
    length = int.from_bytes(start[8:begin], "little")
    if length > MAX_HEADER:
        raise CorruptFileError(
            f"its NPY header is {length:,} bytes long", subject=subject, expected=f"at most {MAX_HEADER:,}"
        )
    data = head(begin + length)
    if len(data) < begin + length:
        raise CorruptFileError("the file ends in its NPY header", subject=subject, offset=len(data))
    try:
        text = data[begin:].decode("utf-8" if start[6] == 3 else "latin-1")
    except UnicodeDecodeError:
        raise CorruptFileError("its NPY header is not UTF-8", subject=subject, offset=begin) from None
    return _fields(text, begin + length, subject)


def _fields(text: str, length: int, subject: str) -> NpyHeader:
    """Read the dictionary literal without evaluating anything."""
    values: dict[str, str] = {}
    at = len(text) - len(text.lstrip()) + 1
    while (field := _FIELD.match(text, at)) and field["key"] not in values:
        values[field["key"]] = field["value"]
        at = field.end()
    tail = text[at:].strip()
    true_dtype = _TRUE_DTYPE.fullmatch(tail[1:]) if tail.startswith("}") else None
    whole = text.lstrip().startswith("{") and (tail == "}" or true_dtype)
    if not whole or values.keys() != _CHECKS.keys() or not all(_CHECKS[k].fullmatch(v) for k, v in values.items()):
        raise CorruptFileError(
            "its NPY header is not a dictionary of descr, fortran_order and shape", subject=subject, offset=10
        )
    shape = tuple(int(n) for n in re.findall(r"[0-9]+", values["shape"])[:65])
    descr, fortran = values["descr"], values["fortran_order"] == "True"
    descr = descr if descr.startswith("[") else descr[1:-1]  # one pair of quotes: what is inside may have others
    return NpyHeader(descr, fortran, shape, true_dtype[1] if true_dtype else None, length)


def element_type(header: NpyHeader, subject: str, assume: str | None = None) -> tuple[DType, str]:
    """Return the dtype that a header means, and the byte order.

    Raises
    ------
    UnsafeFileError
        The array holds Python objects, that is a pickle.
    UnsupportedError
        It holds no numbers, or bytes of unknown meaning and nothing is assumed of them.
    """
    descr = header.descr
    order, code = (descr[:1], descr[1:]) if descr[:1] in "<>|=" else ("|", descr)
    if code == "O" or "'O'" in descr or "|O" in descr:
        raise UnsafeFileError(
            "holds Python objects, which only unpickling could read", subject=subject, expected="numbers",
            remedy="save it again as plain arrays: numpy.savez(path, **arrays)", code="python-objects",
        )  # fmt: skip
    if code in _NAMES:
        native = "<" if sys.byteorder == "little" else ">"
        return DTYPES[_NAMES[code]], {"<": "<", ">": ">", "=": native}.get(order, "<")
    if re.fullmatch(r"V[1-9]", code):
        return _void_type(header, int(code[1:]), subject, assume), "<"
    raise UnsupportedError(f"has the type {descr!r}, which holds no plain numbers", subject=subject, expected="numbers")


def _void_type(header: NpyHeader, itemsize: int, subject: str, assume: str | None) -> DType:
    named = header.true_dtype or assume
    if named is None:
        raise UnsupportedError(
            f"holds {itemsize}-byte elements whose type it does not name",
            subject=subject,
            remedy=f"say what they are, e.g. --assume {'bfloat16' if itemsize == 2 else 'float8_e4m3fn'}",
        )
    try:
        found = dtype(named)
    except SpecError as error:
        raise error.about(subject) from None
    if -(-found.bits // 8) != itemsize:
        raise SpecError(f"{found} does not take {itemsize} bytes an element", subject=subject)
    return found


def layout(header: NpyHeader, subject: str, available: int, assume: str | None) -> tuple[Spec, str, int]:
    """Return spec, byte order and data length, held against the bytes available.

    Raises
    ------
    CorruptFileError
        The shape needs more bytes than there are.
    """
    element, order = element_type(header, subject, assume)
    if len(header.shape) > MAX_AXES or any(n >= 1 << 63 for n in header.shape):
        raise CorruptFileError(f"its shape {header.shape} is not possible", subject=subject)
    needed = math.prod(header.shape) * -(-element.bits // 8)
    if needed > available:
        raise CorruptFileError(
            f"truncated: {needed - available:,} bytes are missing of {header.length + needed:,}",
            subject=subject, offset=header.length + available, remedy="fetch the file again", code="truncated",
        )  # fmt: skip
    scattered = header.fortran and sum(n > 1 for n in header.shape) > 1
    raw = element.bits >= 8 and order == "<" and not scattered
    encoding = "raw" if raw else "fortran" if scattered else "big-endian" if order == ">" else "byte-each"
    return Spec(element, header.shape, encoding), order, needed


def stored_type(element: DType) -> DType:
    """The dtype whose bytes lie in the file: 4- and 6-bit elements take a byte each."""
    return element if element.bits >= 8 else DTYPES["uint8"]


def encode_header(spec: Spec) -> bytes:
    """Return an NPY header (version 1.0, or 2.0 for a very long shape), padded so that the data is 64-aligned."""
    itemsize = -(-spec.dtype.bits // 8)
    native = CODES.get(spec.dtype.name)
    shape = f"({spec.shape[0]},)" if len(spec.shape) == 1 else f"({', '.join(map(str, spec.shape))})"
    text = f"{{'descr': '{native or f'|V{itemsize}'}', 'fortran_order': False, 'shape': {shape}, }}"
    text += "" if native else f" # dtype: {spec.dtype.name}"
    wide = len(text) + 1 + 10 + ALIGN >= 1 << 16
    prefix = 12 if wide else 10
    text += " " * (-(prefix + len(text) + 1) % ALIGN) + "\n"
    version, size = (b"\x02\x00", "<I") if wide else (b"\x01\x00", "<H")
    return MAGIC + version + struct.pack(size, len(text)) + text.encode("ascii")


def data_bytes(spec: Spec) -> int:
    """The length of a tensor's data as NPY stores it."""
    return spec.n_elements * -(-spec.dtype.bits // 8)


def holds_objects(header: NpyHeader) -> bool:
    """Whether the elements may be Python objects, that is a pickle: NumPy has several words for them."""
    code = header.descr.lstrip("<>|=")
    return code not in _NAMES and not re.fullmatch(r"[VSU][0-9]+|[mM]8.*", code) and bool(_OBJECTS.search(code))

"""NPY: one array, or several one after the other.

Source: NumPy's ``numpy/lib/_format_impl.py``, "Format Version 1.0" to "3.0"; Equinox's ``_serialisation.py``.

NumPy has no name for bfloat16 or the 8-, 6- and 4-bit floats: it writes ``|V2`` or ``|V1``. So do we, and name the
true dtype in a comment behind the header's dictionary, which NumPy's own reader passes over. 4- and 6-bit elements
take one byte each, as in ml_dtypes. Python objects are pickles, and refused.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from weighttools.core.dtypes import DTYPES, DType, dtype
from weighttools.core.findings import Finding
from weighttools.core.readers import Elementwise, Raw, Strided
from weighttools.core.tensor import Reader, Source, Span, Spec, Tensor
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import CorruptFileError, SpecError, UnsafeFileError, UnsupportedError
from weighttools.formats import trailing
from weighttools.formats.base import Format, ReadBack, ReadOptions, WriteOptions, refuse_shapes
from weighttools.formats.raw import write_raw

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from weighttools.core.tensor import Array
    from weighttools.io.sink import Sink

MAGIC = b"\x93NUMPY"
MAX_HEADER = 1 << 16
ALIGN = 64
MAX_AXES = 64
"""NumPy's, since 2.0; it was 32."""

_CODES = {
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
_NAMES = {code[1:]: name for name, code in _CODES.items()}
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
class Header:
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


def matches(head: bytes) -> bool:
    """Whether a file begins with NPY's magic."""
    return head.startswith(MAGIC)


def parse_header(head: Callable[[int], bytes], subject: str) -> Header:
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


def _fields(text: str, length: int, subject: str) -> Header:
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
    return Header(descr, fortran, shape, true_dtype[1] if true_dtype else None, length)


def element_type(header: Header, subject: str, assume: str | None = None) -> tuple[DType, str]:
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
            remedy="save it again as plain arrays: numpy.savez(path, **arrays)",
        code="python-objects")  # fmt: skip
    if code in _NAMES:
        native = "<" if sys.byteorder == "little" else ">"
        return DTYPES[_NAMES[code]], {"<": "<", ">": ">", "=": native}.get(order, "<")
    if re.fullmatch(r"V[1-9]", code):
        return _void_type(header, int(code[1:]), subject, assume), "<"
    raise UnsupportedError(f"has the type {descr!r}, which holds no plain numbers", subject=subject, expected="numbers")


def _void_type(header: Header, itemsize: int, subject: str, assume: str | None) -> DType:
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


def layout(header: Header, subject: str, available: int, assume: str | None) -> tuple[Spec, str, int]:
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
            subject=subject, offset=header.length + available, remedy="fetch the file again",
        code="truncated")  # fmt: skip
    scattered = header.fortran and sum(n > 1 for n in header.shape) > 1
    raw = element.bits >= 8 and order == "<" and not scattered
    encoding = "raw" if raw else "fortran" if scattered else "big-endian" if order == ">" else "byte-each"
    return Spec(element, header.shape, encoding), order, needed


def tensor_of(spec: Spec, elements: Reader, span: Span | None) -> Tensor:
    """Return the tensor whose stored elements `elements` reads, undoing Fortran order and byte-wide packing."""
    if spec.dtype.bits < 8:
        elements = Elementwise(elements, partial(_as_dtype, name=spec.dtype.name))
    if spec.encoding == "fortran":
        strides = tuple(math.prod(spec.shape[:axis]) for axis in range(len(spec.shape)))
        elements = Strided(elements, spec.n_elements, spec.shape, strides, 0)
    return Tensor(spec, elements, span)


def stored_type(element: DType) -> DType:
    """The dtype whose bytes lie in the file: 4- and 6-bit elements take a byte each."""
    return element if element.bits >= 8 else DTYPES["uint8"]


def _as_dtype(block: Array, name: str) -> Array:
    return block.view(DTYPES[name].numpy)


def _as_bytes(block: Array) -> Array:
    return block.view("u1")


def read(source: Source, options: ReadOptions | None = None) -> TensorMap:
    """Read the header of an NPY file; its one tensor is named after the file.

    Several arrays one after the other, as repeated `numpy.save` to one file and Equinox's
    ``tree_serialise_leaves`` write them, are named by their numbers: ``0``, ``1``, …

    An array of objects is a pickle: the arrays in it are read as data, under the names of what holds them.
    """
    header = parse_header(lambda n: source.read(0, min(n, source.size)), source.name)
    assume = options.assume if options else None
    if header.descr == "|O" and source.read(header.length, min(1, source.size - header.length)) == b"\x80":
        from weighttools.formats.pickles.arrays import read_objects

        return read_objects(source, header.length, options.root if options else None)
    tensors, end = _stream(source, header, assume)
    if len(tensors) == 1 and not source.name.lower().endswith(".eqx"):
        name = os.path.splitext(os.path.basename(source.name))[0] if source.name != "-" else "array"
        tensors = {name: tensors["0"]}
    extra = source.size - end
    notes = (f"{extra:,} bytes follow the array{'s' if len(tensors) > 1 else ''} and are not read",) if extra else ()
    return TensorMap(tensors, origin=Origin(source.name, "npy", (source.name,), notes))


def _stream(source: Source, header: Header, assume: str | None = None) -> tuple[dict[str, Tensor], int]:
    """Return the arrays that follow one another in a file, by their numbers, and where the last one ends."""
    tensors: dict[str, Tensor] = {}
    end = 0
    while True:
        spec, order, length = layout(header, source.name, source.size - end - header.length, assume)
        span = Span(source, end + header.length, length)
        tensors[str(len(tensors))] = tensor_of(spec, Raw(span, stored_type(spec.dtype), order), span)
        end += header.length + length
        if source.read(end, min(len(MAGIC), source.size - end)) != MAGIC:
            return tensors, end
        header = parse_header(partial(_head, source, end), source.name)


def _head(source: Source, offset: int, n_bytes: int) -> bytes:
    return source.read(offset, min(n_bytes, source.size - offset))


def encode_header(spec: Spec) -> bytes:
    """Return an NPY header (version 1.0, or 2.0 for a very long shape), padded so that the data is 64-aligned."""
    itemsize = -(-spec.dtype.bits // 8)
    native = _CODES.get(spec.dtype.name)
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


def byte_wide(tensor: Tensor) -> Tensor:
    """Return the tensor whose raw bytes are those NPY stores: itself, but a byte an element at 4 and 6 bits."""
    if tensor.dtype.bits >= 8:
        return tensor
    return Tensor(Spec(DTYPES["uint8"], tensor.shape), Elementwise(tensor.reader, _as_bytes))


def losses(tensor_map: TensorMap) -> list[str]:
    """Return what NPY cannot hold; raise unless there is exactly one tensor.

    Raises
    ------
    SpecError
        There are none or several tensors, or it is one of a shape that NumPy has not.
    """
    if len(tensor_map) != 1:
        raise SpecError(
            f"an NPY file holds one array, not {len(tensor_map):,}",
            remedy="choose one with -i, or write .npz",
            code="cannot-hold",
        )
    refuse_shapes(tensor_map, "NPY", MAX_AXES)
    lost = [("metadata", tensor_map.metadata), ("tied names", tensor_map.aliases)]
    return [f"NPY holds no {what}: {', '.join(names)} will be lost" for what, names in lost if names]


def write(tensor_map: TensorMap, sink: Sink, options: WriteOptions | None = None) -> None:
    """Write the one tensor of a map; its name becomes the file's."""
    losses(tensor_map)
    tensor = next(iter(tensor_map.values()))
    header = encode_header(tensor.spec)
    sink.reserve(len(header) + data_bytes(tensor.spec))
    sink.write(header)
    write_raw([byte_wide(tensor)], sink, options or WriteOptions())


def check(source: Source) -> Iterator[Finding]:
    """Yield what loading the file with ``allow_pickle=True`` could run, for Python objects; bytes behind its arrays."""
    header = parse_header(partial(_head, source, 0), source.name)
    if holds_objects(header):
        from weighttools.formats.pickles.scan import of_npy

        yield from of_npy(source)
        return
    with contextlib.suppress(SpecError, UnsupportedError):  # said where it is read
        tensors, end = _stream(source, header)
        yield from trailing.behind(
            source, end, f"the last of {len(tensors):,} arrays" if len(tensors) > 1 else "the array"
        )


def holds_objects(header: Header) -> bool:
    """Whether the elements may be Python objects, that is a pickle: NumPy has several words for them."""
    code = header.descr.lstrip("<>|=")
    return code not in _NAMES and not re.fullmatch(r"[VSU][0-9]+|[mM]8.*", code) and bool(_OBJECTS.search(code))


def read_back(path: Path, tensor_map: TensorMap) -> AbstractContextManager[ReadBack]:
    """Open what was written with the reference reader."""
    from weighttools.formats.numpy.readback import read_array as opened

    return opened(path, tensor_map)


FORMAT = Format(matches=matches, read=read, write=write, losses=losses, check=check, read_back=read_back)

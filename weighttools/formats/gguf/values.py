"""GGUF metadata values: exact, typed, and arrays that are read only when they are looked at.

Source: the GGUF specification (ggml, ``docs/gguf.md``), section "File Structure". A value keeps its type, so that a
file's metadata is written again just as it was: unsigned and signed integers of each width and both floats are
subclasses of `int` and `float`; text and truth values are `str` and `bool`; an array stays in its file.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, overload

from weighttools.core.budgets import GGUF_DEPTH as MAX_DEPTH
from weighttools.core.budgets import GGUF_STRING as MAX_STRING
from weighttools.core.spec import Source, Span
from weighttools.errors import CorruptFileError, SpecError
from weighttools.formats.gguf.numbers import SCALARS, Float, Float32, Float64, Int64, Integer, Scalar
from weighttools.io.source import Bytes

WINDOW = 1 << 20

BOOL, STRING, ARRAY = 7, 8, 9


_LEAST = {**{code: scalar.n_bytes for code, scalar in SCALARS.items()}, STRING: 8, ARRAY: 12}
"""The fewest bytes that an element of each type takes."""
_ARRAY_HEAD = 12
"""Bytes before an array's elements: their type and their count."""


class Cursor:
    """Reads a header front to back through a window, never past the end of the file.

    Parameters
    ----------
    source
        The file.
    at
        Where to begin, in bytes.
    order
        ``"<"`` or ``">"``.
    end
        Where to end, in bytes; None is the end of the file.
    """

    def __init__(self, source: Source, at: int = 0, order: str = "<", end: int | None = None) -> None:
        self.source, self.at, self.order = source, at, order
        self.end = source.size if end is None else end
        self._window, self._base = b"", 0

    @property
    def left(self) -> int:
        """Bytes to the end."""
        return self.end - self.at

    def behind(self, start: int) -> Span:
        """Return the bytes from `start` to here: from memory where they are in the window, so that nothing is read
        again for each of an array's arrays."""
        n_bytes = self.at - start
        if not self._base <= start <= self.at <= self._base + len(self._window):
            return Span(self.source, start, n_bytes)
        held = self._window[start - self._base : self.at - self._base]
        return Span(Bytes(held, self.source.name), 0, n_bytes)

    def window(self, n_bytes: int, what: str) -> tuple[bytes, int]:
        """Return bytes that hold the next `n_bytes`, and where in them these begin.

        Raises
        ------
        CorruptFileError
            The file ends before.
        """
        if n_bytes > self.left:
            raise self.corrupt(f"{what} needs {n_bytes:,} bytes where {self.left:,} are left", "a whole header")
        if self.at + n_bytes > self._base + len(self._window):
            self._window = self.source.read(self.at, min(self.left, max(n_bytes, WINDOW)))
            self._base = self.at
        return self._window, self.at - self._base

    def take(self, n_bytes: int, what: str) -> bytes:
        """Return the next `n_bytes` and step over them."""
        window, at = self.window(n_bytes, what)
        self.at += n_bytes
        return window[at : at + n_bytes]

    def number(self, layout: str, what: str) -> Any:
        """Return the next number, laid out as `struct` calls it."""
        return struct.unpack(self.order + layout, self.take(struct.calcsize(layout), what))[0]

    def text(self, what: str, most: int = MAX_STRING) -> str:
        """Return the next string; bytes that are not UTF-8 become lone surrogates, which turn back into them."""
        length = self.number("Q", what)
        if length > most:
            raise self.corrupt(f"{what} is {length:,} bytes long", f"at most {min(most, self.left):,}")
        return self.take(length, what).decode("utf-8", "surrogateescape")

    def bounded(self, n: int, least_bytes: int, what: str) -> int:
        """Return a count that the bytes left can hold.

        Raises
        ------
        CorruptFileError
            They cannot.
        """
        if n * least_bytes > self.left:
            raise self.corrupt(f"claims {n:,} {what}", f"at most {self.left // least_bytes:,} in {self.left:,} bytes")
        return n

    def skip(self, n_bytes: int) -> None:
        """Step over bytes that are there."""
        self.at += n_bytes

    def corrupt(self, fact: str, expected: str) -> CorruptFileError:
        """Return the error for what stands here."""
        return CorruptFileError(fact, subject=self.source.name, expected=expected, offset=self.at)


def value(cursor: Cursor, key: str) -> Any:
    """Read a value, its type first; `key` is for messages."""
    code = cursor.number("I", f"the type of {key!r}")
    if code == STRING:
        return cursor.text(f"the value of {key!r}")
    if code == ARRAY:
        return _array(cursor, key)
    if code not in SCALARS:
        raise cursor.corrupt(f"{key!r} has the value type {code}", "0 to 12")
    return _scalar(cursor, code, key)


def _scalar(cursor: Cursor, code: int, key: str) -> Any:
    scalar = SCALARS[code]
    data = cursor.take(scalar.n_bytes, f"the value of {key!r}")
    if code == BOOL and data not in (b"\0", b"\1"):
        raise cursor.corrupt(f"{key!r} is a bool of value {data[0]}", "0 or 1")
    return _made(scalar, data, cursor.order)


def _made(scalar: Scalar, data: bytes, order: str) -> Any:
    number = struct.unpack(order + scalar.layout, data)[0]
    if issubclass(scalar.make, Float):
        return scalar.make(number, data if order == "<" else data[::-1])
    return scalar.make(number)


def _array(cursor: Cursor, key: str) -> MetadataArray:
    start = cursor.at
    code, n = _skip_array(cursor, key, 0)
    return MetadataArray(code, n, Span(cursor.source, start, cursor.at - start), cursor.order)


def _array_head(cursor: Cursor, key: str) -> tuple[int, int]:
    """Read an array's element type and count, which the bytes left must be able to hold."""
    window, at = cursor.window(_ARRAY_HEAD, f"the element type and the length of {key!r}")
    code, n = struct.unpack_from(f"{cursor.order}IQ", window, at)
    cursor.skip(_ARRAY_HEAD)
    if code not in _LEAST:
        raise cursor.corrupt(f"the array {key!r} has the element type {code}", "0 to 12")
    return code, cursor.bounded(n, _LEAST[code], f"elements of {key!r}")


def _skip_array(cursor: Cursor, key: str, depth: int) -> tuple[int, int]:
    """Step over an array, checked; return its element type and count."""
    if depth >= MAX_DEPTH:
        raise cursor.corrupt(f"the arrays of {key!r} are nested too deeply", f"at most {MAX_DEPTH}")
    code, n = _array_head(cursor, key)
    if code == STRING:
        _skip_strings(cursor, key, n)
    elif code == ARRAY:
        for _ in range(n):
            _skip_array(cursor, key, depth + 1)
    else:
        cursor.skip(n * SCALARS[code].n_bytes)
    return code, n


def _skip_strings(cursor: Cursor, key: str, n: int) -> None:
    """Step over `n` strings: a vocabulary has hundreds of thousands, so the loop is as short as can be."""
    unpack = struct.Struct(f"{cursor.order}Q").unpack_from
    while n:
        window, at = cursor.window(8, f"a string of {key!r}")
        begin, end = at, len(window) - 8
        while n and at <= end:
            at += 8 + unpack(window, at)[0]
            n -= 1
        if at - begin > cursor.left:
            raise cursor.corrupt(f"a string of {key!r} ends past the file", f"at most {cursor.left:,} bytes")
        cursor.skip(at - begin)


@dataclass(frozen=True, slots=True, eq=False)
class MetadataArray(Sequence[Any]):
    """An array of metadata, left in its file until it is looked at.

    Parameters
    ----------
    code
        The element type.
    n
        The number of elements.
    span
        The element type, the count and the elements, as they lie in the file.
    order
        The file's byte order.
    """

    code: int
    n: int
    span: Span
    order: str

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Any]:
        begin = self.span.offset + _ARRAY_HEAD
        cursor = Cursor(self.span.source, begin, self.order, self.span.offset + self.span.length)
        return (_element(cursor, self.code) for _ in range(self.n))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return list(self)[index]
        at = range(self.n)[index]
        if self.code not in SCALARS:
            return next(islice(iter(self), at, None))
        n_bytes = SCALARS[self.code].n_bytes
        begin = self.span.offset + _ARRAY_HEAD + at * n_bytes
        return _element(Cursor(self.span.source, begin, self.order, begin + n_bytes), self.code)

    def __reversed__(self) -> Iterator[Any]:
        yield from list(self)[::-1]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MetadataArray):
            return self.code == other.code and list(self) == list(other)
        return isinstance(other, list) and list(self) == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The first elements, and how many there are."""
        shown = ", ".join(repr(item) if isinstance(item, str) else str(item) for item in islice(iter(self), 6))
        return f"[{shown}]" if self.n <= 6 else f"[{shown}, … {self.n:,} in all]"


def _element(cursor: Cursor, code: int) -> Any:
    if code == STRING:
        return cursor.text("a string")
    if code == ARRAY:
        start = cursor.at
        inner, n = _skip_array(cursor, "array", 0)
        return MetadataArray(inner, n, cursor.behind(start), cursor.order)
    scalar = SCALARS[code]
    return _made(scalar, cursor.take(scalar.n_bytes, "an element"), cursor.order)


Piece = bytes | Span


def encoded_text(text: str) -> bytes:
    """Return a string as GGUF stores it: its length, then its bytes.

    Raises
    ------
    SpecError
        It holds half of a surrogate pair, which no encoding can store.
    """
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise SpecError(f"{text[:60]!r} is not valid Unicode", expected="text without lone surrogates") from None
    return struct.pack("<Q", len(data)) + data


def encoded(value: Any) -> list[Piece]:
    """Return a value as GGUF stores it, little-endian, its type first; arrays in a file are spans to copy.

    Plain Python values get the type that llama.cpp's own keys have: whole numbers uint32, int32 or the first wider
    type that holds them, floats float32 where that is exact, else float64. A mapping, or None, becomes JSON text.
    """
    if isinstance(value, MetadataArray) and value.order == "<":
        return [struct.pack("<I", ARRAY), value.span]
    code, data = _encoded(value)
    return [struct.pack("<I", code) + data]


def _encoded(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return BOOL, bytes([value])
    if isinstance(value, int):
        code = value.code if isinstance(value, Integer) else _width(value)
        return code, struct.pack("<" + SCALARS[code].layout, value)
    if isinstance(value, float):
        number = value if isinstance(value, Float) else _precision(value)
        return number.code, number.bits
    if isinstance(value, (list, tuple, MetadataArray)):
        return _encoded_array(value)
    return STRING, encoded_text(value if isinstance(value, str) else _json(value))


def _encoded_array(items: Sequence[Any]) -> tuple[int, bytes]:
    if isinstance(items, MetadataArray):
        code = items.code
        parts = [_encoded(item) for item in items]
    else:
        parts = _alike(items)
        code = parts[0][0] if parts else STRING
    return ARRAY, struct.pack("<IQ", code, len(parts)) + b"".join(data for _, data in parts)


def _alike(items: Sequence[Any]) -> list[tuple[int, bytes]]:
    """Encode elements that must share one type: as they are, else as float64 or int64, else as JSON text."""
    parts = [_encoded(item) for item in items]
    if len({code for code, _ in parts}) <= 1:
        return parts
    numbers = not any(isinstance(item, bool) or not isinstance(item, (int, float)) for item in items)
    if numbers and all(isinstance(item, int) and -(1 << 63) <= item < 1 << 63 for item in items):
        return [_encoded(Int64(item)) for item in items]
    if numbers:
        return [_encoded(Float64(float(item))) for item in items]
    return [_encoded(item if isinstance(item, str) else _json(item)) for item in items]


def _width(number: int) -> int:
    for code, low, high in ((4, 0, 1 << 32), (5, -(1 << 31), 1 << 31), (11, -(1 << 63), 1 << 63), (10, 0, 1 << 64)):
        if low <= number < high:
            return code
    raise SpecError(f"the metadata number {number} is too large for GGUF", expected="at most 64 bits")


def _precision(number: float) -> Float:
    single = struct.unpack("<f", struct.pack("<f", number))[0] if abs(number) < 3.4e38 else None
    return Float32(number) if single == number or not math.isfinite(number) else Float64(number)


def _json(value: Any) -> str:
    import json

    return json.dumps(value, sort_keys=True, default=list)

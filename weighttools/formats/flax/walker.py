"""The walk over the msgpack headers of a Flax file: maps as dictionaries, arrays as records of where they lie.

Source: the MessagePack specification for the wire; flax, ``flax/serialization.py`` for the extension types 1, 2 and 3
and for chunked arrays.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from weighttools.core.budgets import FLAX_DEPTH as MAX_DEPTH
from weighttools.core.budgets import FLAX_PLAIN as MAX_PLAIN
from weighttools.core.budgets import FLAX_VALUES as MAX_VALUES
from weighttools.core.dtypes import DTYPES
from weighttools.core.spec import Source
from weighttools.errors import CorruptFileError
from weighttools.io.window import Window

CHUNKED = "__msgpack_chunked_array__"
_NDARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_MAX_AXES = 64

NARROW_INTS = {"int4": "int8", "uint4": "uint8", "int2": "int8", "uint2": "uint8", "int1": "int8", "uint1": "uint8"}
"""ml_dtypes integers that take a byte each; they are read as the integer type that holds them."""

# First byte of a value whose length follows it -> (kind, bytes that hold the length).
_SIZED = {
    0xC4: ("bytes", 1), 0xC5: ("bytes", 2), 0xC6: ("bytes", 4),
    0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4),
    0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4),
    0xDC: ("array", 2), 0xDD: ("array", 4),
    0xDE: ("map", 2), 0xDF: ("map", 4),
}  # fmt: skip
# First byte of a number -> how struct unpacks what follows.
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d",
    0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_FIXED_EXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


class Item(NamedTuple):
    """One msgpack header.

    Parameters
    ----------
    kind
        ``"map"``, ``"array"``, ``"text"``, ``"bytes"``, ``"ext"`` or ``"plain"``.
    at
        Where it begins.
    body
        Where what it is made of begins.
    length
        Entries of a map or array, bytes of text, bytes or an extension.
    value
        The value of a plain one, the code of an extension.
    """

    kind: str
    at: int
    body: int
    length: int = 0
    value: Any = None

    @property
    def stop(self) -> int:
        """Where the bytes of text, bytes, an extension or a plain value end."""
        return self.body + self.length


@dataclass(frozen=True, slots=True)
class Record:
    """An array as its header tells it; `dtype_name` is NumPy's name, the bytes lie at `offset`."""

    dtype_name: str
    shape: tuple[int, ...]
    offset: int
    length: int


@dataclass(slots=True)
class Frame:
    """A map or array that is being walked: the items still to come, and those that have."""

    is_map: bool
    n_left: int
    at: int
    entries: dict[str, Any] = field(default_factory=dict)
    key: str = ""


class Walker:
    """Walks msgpack headers with a stack of its own, so that no nesting exhausts Python's."""

    def __init__(self, source: Source) -> None:
        self.source, self.window = source, Window(source)
        self.n_values = self.n_plain = 0

    def root(self) -> Any:
        """Return the whole content: maps as dictionaries, arrays as records, nothing of their values."""
        stack: list[Frame] = []
        at = 0
        while True:
            if stack and stack[-1].n_left == 0:
                value = self._closed(stack.pop())
            else:
                if stack and stack[-1].is_map:
                    at = self._key(stack[-1], at)
                item = self._item(at)
                if item.kind in ("map", "array"):
                    stack.append(self._opened(item, len(stack)))
                    at = item.body
                    continue
                value, at = self._leaf(item), item.stop
            if not stack:
                break
            self._put(stack[-1], value)
        if at != self.source.size:
            raise self._corrupt(f"{self.source.size - at:,} bytes follow the content", at, "the end of the file")
        return value

    def _opened(self, item: Item, depth: int) -> Frame:
        """Begin a map or an array, whose every entry takes at least a byte."""
        is_map = item.kind == "map"
        if depth >= MAX_DEPTH:
            raise self._corrupt("is nested too deeply", item.at, f"at most {MAX_DEPTH} levels")
        if item.length * (1 + is_map) > self.source.size - item.body:
            fact = f"a {item.kind} claims {item.length:,} entries, more than the file has bytes left"
            raise self._corrupt(fact, item.at, f"at most {self.source.size - item.body:,}")
        self._check_count(self.n_values + item.length, item.at)  # before as many are looked at
        return Frame(is_map, item.length, item.at)

    def _key(self, frame: Frame, at: int) -> int:
        """Read the next key of a map and return where its value begins."""
        item = self._item(at)
        if item.kind in ("text", "bytes"):
            frame.key = self._text(item)
        elif item.kind == "plain" and type(item.value) is int:
            frame.key = str(item.value)
        else:
            raise self._corrupt("a key is neither text nor a whole number", at, "text")
        if frame.key in frame.entries:
            raise self._corrupt(f"the key {frame.key!r} stands twice in a map", at, "each key once")
        return item.stop

    def _put(self, frame: Frame, value: Any) -> None:
        """Give a map or array its next entry; those of an array are called 0, 1, … as Flax's state dicts do."""
        frame.entries[frame.key if frame.is_map else str(len(frame.entries))] = value
        frame.n_left -= 1
        self.n_values += 1
        self._check_count(self.n_values, frame.at)

    def _check_count(self, n: int, at: int) -> None:
        if n > MAX_VALUES:
            raise self._corrupt("holds too many values", at, f"at most {MAX_VALUES:,}")

    def _closed(self, frame: Frame) -> Any:
        return self._chunked(frame) if CHUNKED in frame.entries else frame.entries

    def _chunked(self, frame: Frame) -> list[Any]:
        """Return a chunked array as its shape and its chunks' records, which together must fill the shape."""
        shape, chunks = (_in_order(frame.entries.get(key)) for key in ("shape", "chunks"))
        if shape is None or not chunks or not all(isinstance(c, Record) for c in chunks) or not _is_shape(shape):
            raise self._corrupt("a chunked array is not well formed", frame.at, "shape and chunks, numbered from 0")
        names = {chunk.dtype_name for chunk in chunks}
        n_elements = sum(math.prod(chunk.shape) for chunk in chunks)
        if len(names) > 1 or n_elements != math.prod(shape):
            fact = f"the chunks of an array of shape {shape} hold {n_elements:,} elements of {', '.join(names)}"
            raise self._corrupt(fact, frame.at, f"{math.prod(shape):,} of one dtype")
        return [tuple(shape), chunks]

    def _leaf(self, item: Item) -> Any:
        if item.kind == "ext" and item.value in (_NDARRAY, _SCALAR):
            return self._record(item)
        self.n_plain += 1
        if self.n_plain > MAX_PLAIN:
            raise self._corrupt("holds too many values that are no arrays", item.at, f"at most {MAX_PLAIN:,}")
        if item.kind == "text":
            return self._text(item)
        if item.kind == "plain":
            return item.value if item.value == item.value and abs(item.value or 0) != math.inf else str(item.value)
        if item.kind == "ext" and item.value == _COMPLEX:
            return self._complex(item)
        return f"<{item.length:,} bytes>"

    def _complex(self, item: Item) -> str:
        """Read a Python complex number: an extension around msgpack(real, imag)."""
        head = self._within(item.body, item)
        real = self._within(head.body, item)
        imag = self._within(real.stop, item)
        numbers = (real.value, imag.value)
        if (head.kind, head.length) != ("array", 2) or not all(type(n) in (int, float) for n in numbers):
            raise self._corrupt("a complex number is not well formed", item.at, "(real, imag)")
        return str(complex(*numbers))

    def _record(self, item: Item) -> Record:
        """Read an array's own header: msgpack(shape, dtype name, bytes) within an extension."""
        head = self._within(item.body, item)
        axes = self._within(head.body, item)
        if (head.kind, head.length, axes.kind) != ("array", 3, "array") or axes.length > _MAX_AXES:
            raise self._corrupt("an array is not well formed", item.at, "(shape, dtype name, bytes)")
        shape, at = [], axes.body
        for _ in range(axes.length):
            axis = self._within(at, item)
            shape.append(axis.value)
            at = axis.stop
        name = self._within(at, item)
        data = self._within(name.stop, item)
        of_bytes = name.kind in ("text", "bytes") and data.kind in ("bytes", "text")
        if not of_bytes or not _is_shape(shape) or name.length > 64 or data.stop != item.stop:
            raise self._corrupt("an array is not well formed", item.at, "(shape, dtype name, bytes)")
        self._check_length(shape, self._text(name), data)
        return Record(self._text(name), tuple(shape), data.body, data.length)

    def _check_length(self, shape: list[int], dtype_name: str, data: Item) -> None:
        width = element_bytes(dtype_name)
        if width is not None and math.prod(shape) * width != data.length:
            fact = f"an array of {dtype_name} and shape {tuple(shape)} has {data.length:,} bytes"
            raise self._corrupt(fact, data.at, f"{math.prod(shape) * width:,}")

    def _within(self, at: int, outer: Item) -> Item:
        """Read a header inside an extension, which must not run over its end."""
        item = self._item(at) if at < outer.stop else None
        if item is None or (item.kind not in ("map", "array") and item.stop > outer.stop) or item.body > outer.stop:
            raise self._corrupt("an array or number runs over its own end", outer.at, f"an end at {outer.stop:,}")
        return item

    def _item(self, at: int) -> Item:
        """Read one header; the bytes that it claims must be there."""
        first = self.window.byte(at)
        if first in _SIZED:
            kind, width = _SIZED[first]
            length = int.from_bytes(self.window.bytes(at + 1, width), "big")
            code = self.window.byte(at + 1 + width) if kind == "ext" else None
            item = Item(kind, at, at + 1 + width + (kind == "ext"), length, code)
        elif first in _FIXED_EXT:
            item = Item("ext", at, at + 2, _FIXED_EXT[first], self.window.byte(at + 1))
        else:
            item = self._short(first, at)
        if item.kind not in ("map", "array") and item.stop > self.source.size:
            missing = item.stop - self.source.size
            raise self._corrupt(f"truncated: {missing:,} bytes are missing of at least {item.stop:,}", at, None)
        return item

    def _short(self, first: int, at: int) -> Item:
        """Read a header that is one byte, or a number."""
        if first < 0x80 or first >= 0xE0:
            return Item("plain", at, at + 1, 0, first if first < 0x80 else first - 256)
        if first < 0xC0:
            kind = "map" if first < 0x90 else "array" if first < 0xA0 else "text"
            return Item(kind, at, at + 1, first & (0x1F if kind == "text" else 0x0F))
        if first in _CONSTANTS:
            return Item("plain", at, at + 1, 0, _CONSTANTS[first])
        if first not in _NUMBERS:
            raise self._corrupt("a value begins with the unused byte c1", at, "msgpack")
        code = _NUMBERS[first]
        width = struct.calcsize(code)
        (value,) = struct.unpack(code, self.window.bytes(at + 1, width))
        return Item("plain", at, at + 1 + width, 0, value)

    def _text(self, item: Item) -> str:
        try:
            return self.window.bytes(item.body, item.length).decode("utf-8")
        except UnicodeDecodeError:
            raise self._corrupt("a text is not UTF-8", item.body, "UTF-8") from None

    def _corrupt(self, fact: str, at: int, expected: str | None) -> CorruptFileError:
        return CorruptFileError(fact, subject=self.source.name, offset=at, expected=expected)


def _in_order(entries: Any) -> list[Any] | None:
    """Return what a map with the keys 0, 1, … holds, in that order; None for anything else."""
    if not isinstance(entries, dict) or any(str(i) not in entries for i in range(len(entries))):
        return None
    return [entries[str(i)] for i in range(len(entries))]


def _is_shape(shape: list[Any]) -> bool:
    return len(shape) <= _MAX_AXES and all(type(n) is int and 0 <= n < 1 << 63 for n in shape)


def element_bytes(dtype_name: str) -> int | None:
    """Bytes an element takes, or None for a dtype that holds no plain numbers."""
    found = DTYPES.get(NARROW_INTS.get(dtype_name, dtype_name))
    return None if found is None else -(-found.bits // 8)

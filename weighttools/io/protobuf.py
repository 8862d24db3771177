"""The protobuf wire format, walked field by field without a schema and without touching long values.

Source: "Protocol Buffers Encoding", sections "Message Structure" and "Base 128 Varints".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from weighttools.core.budgets import PROTOBUF_FIELDS as MAX_FIELDS
from weighttools.core.spec import Source
from weighttools.errors import CorruptFileError
from weighttools.io.window import Window

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_FIXED = {FIXED64: 8, FIXED32: 4}
_KINDS = {VARINT: "a varint", FIXED64: "8 bytes", BYTES: "a length and bytes", FIXED32: "4 bytes"}


class Field(NamedTuple):
    """One field of a message.

    Parameters
    ----------
    number
        The field's number in the schema.
    wire
        `VARINT`, `FIXED64`, `BYTES` or `FIXED32`.
    offset, length
        Where its value lies in the source: the bytes of a string or message without their length prefix.
    value
        The value of a varint, unsigned; 0 for the others.
    """

    number: int
    wire: int
    offset: int
    length: int
    value: int = 0

    @property
    def stop(self) -> int:
        """Where the value ends."""
        return self.offset + self.length

    @property
    def signed(self) -> int:
        """A varint's value as a 64-bit two's complement number (int32, int64)."""
        return self.value - (1 << 64) if self.value >= 1 << 63 else self.value


class Wire:
    """Walks messages of one source.

    Parameters
    ----------
    source
        The file.
    """

    def __init__(self, source: Source) -> None:
        self.source, self._window, self._n_fields = source, Window(source), 0

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """Yield the fields of the message that lies at bytes `start` to `stop`.

        Raises
        ------
        CorruptFileError
            A field is malformed, or runs over the message's end.
        """
        at = start
        while at < stop:
            tag, value_at = self._varint(at, stop)
            found = self._field(tag >> 3, tag & 7, value_at, stop)
            if not 0 < found.number < 1 << 29:
                raise self.corrupt(f"a field has the number {found.number}", at, "1 to 536,870,911")
            self._n_fields += 1
            if self._n_fields > MAX_FIELDS:
                raise self.corrupt("has too many fields", at, f"at most {MAX_FIELDS:,}")
            yield found
            at = found.stop

    def _field(self, number: int, wire: int, at: int, stop: int) -> Field:
        if wire == VARINT:
            value, end = self._varint(at, stop)
            return Field(number, wire, at, end - at, value)
        if wire == BYTES:
            length, at = self._varint(at, stop)
        elif wire in _FIXED:
            length = _FIXED[wire]
        else:
            raise self.corrupt(f"field {number} has the wire type {wire}", at, "0, 1, 2 or 5")
        if length > stop - at:
            missing = at + length - stop
            fact = f"field {number} is {length:,} bytes long, {missing:,} more than its message holds (truncated?)"
            raise self.corrupt(fact, at, f"at most {stop - at:,}")
        return Field(number, wire, at, length)

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        """Return a varint's unsigned value and where it ends."""
        value = shift = 0
        while at < stop and shift < 70:
            byte = self._window.byte(at)
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
        raise self.corrupt("a varint does not end", at, "at most 10 bytes, within its message")

    def text(self, found: Field, most: int) -> str:
        """Return a string field of at most `most` bytes.

        Raises
        ------
        CorruptFileError
            It is no string, longer, or not UTF-8.
        """
        self.expect(found, BYTES)
        if found.length > most:
            raise self.corrupt(f"a text is {found.length:,} bytes long", found.offset, f"at most {most:,}")
        try:
            return self._window.bytes(found.offset, found.length).decode("utf-8") if found.length else ""
        except UnicodeDecodeError:
            raise self.corrupt("a text is not UTF-8", found.offset, "UTF-8") from None

    def varints(self, found: Field, most: int) -> list[int]:
        """Return a repeated integer field's part, packed or not, as signed 64-bit numbers; at most `most` of them."""
        if found.wire == VARINT:
            return [found.signed]
        self.expect(found, BYTES)
        values, at = [], found.offset
        while at < found.stop:
            value, at = self._varint(at, found.stop)
            values.append(Field(0, VARINT, at, 0, value).signed)
            if len(values) > most:
                raise self.corrupt(f"field {found.number} holds too many numbers", at, f"at most {most}")
        return values

    def expect(self, found: Field, wire: int) -> Field:
        """Return the field if it has this wire type; else it is another message than it should be."""
        if found.wire != wire:
            raise self.corrupt(f"field {found.number} is {_KINDS[found.wire]}", found.offset, _KINDS[wire])
        return found

    def corrupt(self, fact: str, offset: int, expected: str) -> CorruptFileError:
        """Return the error for what is wrong at `offset`."""
        return CorruptFileError(fact, subject=self.source.name, offset=offset, expected=expected)

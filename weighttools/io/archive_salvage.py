"""The members of a zip archive whose directory is damaged or lies: found by their local headers, to be looked into.

Source: APPNOTE 6.3, section 4.3.7. Readers differ in what of a damaged archive they believe; so nothing is believed
here but the signature, the lengths of name and extra field, and the method. What is found is for checks only.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise

from weighttools.core.budgets import (
    LEAST_SCANNED_BYTES,
    MOST_INFLATION,
    MOST_SALVAGED_MEMBERS,
    MOST_SCANNED_BYTES,
    opcodes,
)
from weighttools.core.spec import Source, Span
from weighttools.errors import SourceError, UnsafeFileError
from weighttools.io.archive import DEFLATED, Member
from weighttools.io.source import Bytes

_SIGNATURE = b"PK\x03\x04"
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_WINDOW = 1 << 20


def salvaged(source: Source, allowance: Allowance) -> Iterator[Member]:
    """Yield a member for each local header in a file, its content up to the next one.

    Flags are passed over: one that says a member is encrypted, or has its lengths behind it, may be a lie. What is
    compressed is inflated at once, for nothing else tells its length.
    """
    starts = list(_starts(source))
    for start, stop in pairwise([*starts, source.size]):
        if stop - start < _LOCAL.size:
            continue
        _, _, _, method, _, _, crc, _, _, n_name, n_extra = _LOCAL.unpack(source.read(start, _LOCAL.size))
        begin = start + _LOCAL.size + n_name + n_extra
        if begin < stop:
            name = source.read(start + _LOCAL.size, n_name).decode("utf-8", "replace")
            found = Member(name, Span(source, begin, stop - begin), stop - begin, method == DEFLATED, crc)
            yield _inflated(found, allowance) if found.deflated else found


def _inflated(member: Member, allowance: Allowance) -> Member:
    name = member.span.source.name
    data = Inflated(member, allowance, f"{name}: {member.name}").whole()
    return Member(member.name, Span(Bytes(data, name), 0, len(data)), len(data), False, member.crc)


class SpentError(UnsafeFileError):
    """An archive's allowance is used up: this member, and those behind it, are not looked into."""


class Allowance:
    """What may still be inflated, over all the members of an archive and the archives in it.

    Parameters
    ----------
    source
        The archive: what it may inflate to, and how many opcodes the pickles in that may run, follow from its size.
    """

    def __init__(self, source: Source) -> None:
        self.left = min(MOST_SCANNED_BYTES, LEAST_SCANNED_BYTES + MOST_INFLATION * source.size)
        self.opcodes = opcodes(source.size)

    def spend(self, n_bytes: int, subject: str) -> None:
        """Take off bytes that were inflated.

        Raises
        ------
        SpentError
            There were not so many left.
        """
        self.left -= n_bytes
        self.refuse_if_spent(subject)

    def refuse_if_spent(self, subject: str) -> None:
        """Raise `SpentError` where nothing may be inflated, or no opcode run, any more."""
        if self.left < 0 or self.opcodes <= 0:
            raise SpentError("inflates too far to be looked into", subject=subject)


class Inflated:
    """A compressed member as a source, inflated as far as it is read; neither its length nor its CRC-32 is checked."""

    def __init__(self, member: Member, allowance: Allowance, name: str) -> None:
        self.name, self.size = name, member.size
        self._allowance, self._data = allowance, bytearray()
        self._pieces = _pieces(member)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`."""
        while len(self._data) < offset + length:
            piece = next(self._pieces, b"")
            if not piece:
                raise SourceError("ends early", subject=self.name, offset=len(self._data), code="ends-early")
            self._allowance.spend(len(piece), self.name)
            self._data += piece
        return bytes(self._data[offset : offset + length])

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`."""
        if buffer.nbytes:
            buffer.cast("B")[:] = self.read(offset, buffer.nbytes)

    def whole(self) -> bytes:
        """Return all of it."""
        for piece in self._pieces:
            self._allowance.spend(len(piece), self.name)
            self._data += piece
        return bytes(self._data)


def head(member: Member, n_bytes: int) -> bytes:
    """Return up to the first `n_bytes` of a member; of one that does not inflate, none."""
    if not member.deflated:
        return member.span.source.read(member.span.offset, min(n_bytes, member.span.length))
    return next(_pieces(member, n_bytes), b"")


def _pieces(member: Member, piece: int = 1 << 16) -> Iterator[bytes]:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    source, start, length, _ = member.span
    for at in range(0, length, _WINDOW):
        data = source.read(start + at, min(_WINDOW, length - at))
        while data and not inflate.eof:
            try:
                out = inflate.decompress(data, piece)
            except zlib.error:
                return
            yield out
            data = inflate.unconsumed_tail


def _starts(source: Source) -> Iterator[int]:
    """Yield where local headers begin, as many as are looked at."""
    n_found = 0
    for at in range(0, source.size, _WINDOW):
        window = source.read(at, min(_WINDOW + len(_SIGNATURE) - 1, source.size - at))
        found = window.find(_SIGNATURE)
        while found >= 0 and n_found < MOST_SALVAGED_MEMBERS:
            n_found += 1
            yield at + found
            found = window.find(_SIGNATURE, found + 1)

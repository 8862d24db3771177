"""Zip archives as a table of byte ranges, checked before anything is read: NPZ, PyTorch and Keras files are zips.

The central directory is parsed by the standard library; what it says is then held against the local headers and
against the file, so that no member hides, overlaps another, is encrypted, or inflates past its declared size.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from weighttools.core import budgets
from weighttools.core.crc32 import crc32, crc32_of
from weighttools.core.spec import Source, Span
from weighttools.errors import CorruptFileError, SourceError, UnsafeFileError, UnsupportedError
from weighttools.io.contents import Checked, damaged

if TYPE_CHECKING:
    import zipfile

STORED, DEFLATED = 0, 8
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_END = struct.Struct("<4sHHHHIIH")
_INFLATE_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive.

    Parameters
    ----------
    name
        As the archive spells it; it is never used as a path.
    span
        Its bytes as they lie in the archive, compressed or not.
    size
        Its length in bytes once decompressed.
    deflated
        Whether it must be inflated.
    crc
        The CRC-32 of its content.
    header_offset
        Where its local header begins.
    is_bomb
        Whether it, or all members together, would inflate to more than the bytes that are there allow.
    """

    name: str
    span: Span
    size: int
    deflated: bool
    crc: int
    header_offset: int = 0
    is_bomb: bool = False

    def head(self, n_bytes: int) -> bytes:
        """Return up to the first `n_bytes` of the content."""
        n = min(n_bytes, self.size)
        if not self.deflated:
            return self.span.source.read(self.span.offset, n)
        return next(self._inflated(n), b"")[:n] if n else b""

    def content(self) -> bytearray:
        """Return the whole content, its length and its CRC-32 checked.

        Raises
        ------
        CorruptFileError
            The content does not inflate to what the archive declares.
        """
        data = bytearray()  # grown, not reserved: the declared size is only believed once it is there
        for piece in self.chunks():
            data += piece
        if len(data) != self.size:
            raise self._corrupt("its content does not match its declared size")
        found = crc32(data)
        if found != self.crc:
            raise damaged(self.span.source, self.name, self.span.offset, found, self.crc)
        return data

    def check(self) -> None:
        """Read the whole content, and compare its length and CRC-32; no more than a piece of it is held.

        Raises
        ------
        CorruptFileError
            They are not what the archive declares.
        UnsafeFileError
            It would inflate without measure.
        """
        if isinstance(self.span.content, Checked):
            self.span.content.check()
            return
        found = crc32_of(map(memoryview, self.chunks()))
        if found != self.crc:
            raise damaged(self.span.source, self.name, self.span.offset, found, self.crc)

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces, never more in all than its declared size."""
        if self.is_bomb:
            raise UnsafeFileError(
                f"archive member {self.name!r} would inflate to {self.size:,} bytes from {self.span.length:,}",
                subject=self.span.source.name,
                expected=f"at most {budgets.INFLATED_TIMES} for each stored byte, and {budgets.INFLATED_FREE:,}",
                remedy="if it is meant to be so, save it again without compression",
                code="inflates-without-measure",
            )
        if self.deflated:
            yield from self._inflated(_INFLATE_CHUNK)
            return
        for at in range(0, self.size, _INFLATE_CHUNK):
            yield self.span.source.read(self.span.offset + at, min(_INFLATE_CHUNK, self.size - at))

    def _inflated(self, piece: int) -> Iterator[bytes]:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        left = self.size
        for at in range(0, self.span.length, _INFLATE_CHUNK):
            data = self.span.source.read(self.span.offset + at, min(_INFLATE_CHUNK, self.span.length - at))
            while data:
                try:
                    out = inflate.decompress(data, piece)
                except zlib.error as error:
                    raise self._corrupt(f"its content does not inflate: {error}") from None
                left -= len(out)
                if left < 0:
                    raise self._corrupt(f"it inflates past its declared {self.size:,} bytes")
                yield out
                data = inflate.unconsumed_tail
        if left > 0:
            yield from self._tail(inflate.flush(), left)

    def _tail(self, out: bytes, left: int) -> Iterator[bytes]:
        if len(out) != left:
            raise self._corrupt(f"it inflates to {self.size - left + len(out):,} of its declared {self.size:,} bytes")
        yield out

    def _corrupt(self, fact: str) -> CorruptFileError:
        return CorruptFileError(
            f"archive member {self.name!r}: {fact}",
            subject=self.span.source.name,
            offset=self.span.offset,
            code="damaged-member",
        )


def needs(member: Member, n_bytes: int) -> None:
    """Say how many bytes the tensors in a member take of it: once they have been read, its CRC-32 is checked."""
    if isinstance(member.span.content, Checked):
        member.span.content.n_needed = n_bytes


def is_zip(head: bytes) -> bool:
    """Whether the first bytes are those of a zip archive with members, or of an empty one."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def first_member(head: bytes) -> tuple[bytes, bytes] | None:
    """Return the name of a zip's first member and what `head` has of its content; None if it begins no such zip."""
    if not is_zip(head) or len(head) < _LOCAL.size:
        return None
    n_name, n_extra = int.from_bytes(head[26:28], "little"), int.from_bytes(head[28:30], "little")
    return head[_LOCAL.size : _LOCAL.size + n_name], head[_LOCAL.size + n_name + n_extra :]


def members(source: Source) -> dict[str, Member]:
    """Return the members of a zip archive by name, in the order of its directory.

    Raises
    ------
    CorruptFileError
        The directory is damaged, cut off, or contradicts the local headers.
    UnsafeFileError
        Members overlap, share a name, or are encrypted.
    UnsupportedError
        A member uses a compression other than deflate.
    """
    import zipfile

    from weighttools.io.source import SourceStream

    broken = (OSError, zipfile.BadZipFile, struct.error, ValueError, OverflowError, NotImplementedError, EOFError)
    try:
        with zipfile.ZipFile(SourceStream(source)) as archive:
            listed = archive.infolist()
            infos = [info for info in listed if info.file_size or not info.orig_filename.endswith("/")]
            end_of_data = archive.start_dir
    except SourceError:
        raise
    except broken as error:
        if isinstance(error.__context__, SourceError):  # zipfile calls a failing read "not a zip file"
            raise error.__context__ from None
        raise CorruptFileError(
            f"the zip directory at its end cannot be read ({error})",
            subject=source.name,
            remedy="the file is probably cut short: fetch it again",
        ) from None
    _refuse_miscount(source, len(listed))
    found: dict[str, Member] = {}
    for info in infos:
        if info.orig_filename in found:
            raise UnsafeFileError(
                f"two archive members are called {info.orig_filename!r}", subject=source.name, code="names-collide"
            )
        found[info.orig_filename] = _member(source, info, end_of_data)
    _refuse_overlap(source, found.values(), infos)
    return found | {name: replace(found[name], is_bomb=True) for name in _bombs(found.values())}


def _bombs(found: Collection[Member]) -> set[str]:
    """Return the names of deflated members that would inflate to more than the bytes that are there allow."""
    deflated = [member for member in found if member.deflated]
    allowed = budgets.inflated(sum(member.span.length for member in deflated))
    is_too_much = sum(member.size for member in deflated) > allowed
    least = budgets.INFLATED_SMALL
    return {
        member.name
        for member in deflated
        if (is_too_much and member.size > least) or member.size > budgets.inflated(member.span.length)
    }


def _end_record(source: Source) -> tuple[int, tuple[Any, ...]]:
    """Return where an archive's end record lies, and its fields."""
    size = min(source.size, _END.size + 0xFFFF)
    tail = source.read(source.size - size, size)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > size:
        raise CorruptFileError("has no end of a zip archive", subject=source.name)
    return source.size - size + at, _END.unpack_from(tail, at)


def _refuse_miscount(source: Source, n_read: int) -> None:
    """Hold the directory's entries against their number in the end record: a damaged length passes some over."""
    declared = _end_record(source)[1][4]
    if declared not in (n_read, 0xFFFF):  # the latter stands in another record, of 64 bits
        raise CorruptFileError(
            f"the zip directory holds {n_read:,} members",
            subject=source.name,
            expected=f"{declared:,}, as its end record says",
            remedy="the file is damaged: fetch it again",
        )


def extent(source: Source) -> tuple[int, int]:
    """Return where an archive's first member begins and where its end record ends, as `zipfile` finds them.

    Raises
    ------
    CorruptFileError
        It has no end record.
    """
    at, record = _end_record(source)
    end = at + _END.size + record[-1]
    begin = min((member.header_offset for member in members(source).values()), default=end)
    return begin, min(end, source.size)


def directory(source: Source) -> tuple[int, int]:
    """Return where the directory begins of an archive whose `members` are known, and where its end record ends."""
    at, record = _end_record(source)
    begin = at - record[5]
    if record[5] == 0xFFFFFFFF or source.read(max(0, begin), 4) != b"PK\x01\x02":  # its length stands elsewhere
        import zipfile

        from weighttools.io.source import SourceStream

        with zipfile.ZipFile(SourceStream(source)) as archive:
            begin = archive.start_dir
    return begin, min(at + _END.size + record[-1], source.size)


def _member(source: Source, info: zipfile.ZipInfo, end_of_data: int) -> Member:
    name, offset, method = info.orig_filename, info.header_offset, info.compress_type
    stored, size = info.compress_size, info.file_size
    if info.flag_bits & 0x1:
        raise UnsafeFileError(f"archive member {name!r} is encrypted", subject=source.name, code="encrypted")
    if method not in (STORED, DEFLATED):
        raise UnsupportedError(
            f"archive member {name!r} uses compression method {method}",
            subject=source.name,
            expected="stored or deflated",
            code="unsupported-compression",
        )
    start = _data_offset(source, name, offset, method, info.flag_bits)
    if start + stored > end_of_data or (method == STORED and stored != size):
        raise CorruptFileError(
            f"archive member {name!r} claims {stored:,} bytes, more than the file holds",
            subject=source.name,
            offset=offset,
            code="truncated",
        )
    content = None if method == DEFLATED else Checked(source, name, start, stored, info.CRC)
    return Member(name, Span(source, start, stored, content), size, method == DEFLATED, info.CRC, offset)


def _data_offset(source: Source, name: str, offset: int, method: int, flags: int) -> int:
    """Read the local header, hold it against the directory, and return where the member's bytes begin."""
    if not 0 <= offset <= source.size - _LOCAL.size:
        raise CorruptFileError(f"archive member {name!r} begins outside the file", subject=source.name, offset=offset)
    magic, _, local_flags, local_method, _, _, _, _, _, n_name, n_extra = _LOCAL.unpack(
        source.read(offset, _LOCAL.size)
    )
    begin = offset + _LOCAL.size
    if magic != b"PK\x03\x04" or begin + n_name > source.size:
        raise CorruptFileError(f"archive member {name!r} has no local header", subject=source.name, offset=offset)
    codec = "utf-8" if flags & 0x800 else "cp437"
    local = source.read(begin, n_name).decode(codec, "replace")
    if local != name or local_method != method or (local_flags ^ flags) & 0x801:
        raise CorruptFileError(
            f"archive member {name!r} is {local!r} in its local header", subject=source.name, offset=offset
        )
    return int(begin + n_name + n_extra)


def _refuse_overlap(source: Source, found: Iterable[Member], infos: Iterable[zipfile.ZipInfo]) -> None:
    ranges = sorted(
        (info.header_offset, member.span.offset + member.span.length, member.name)
        for info, member in zip(infos, found, strict=True)
    )
    for (_, end, first), (start, _, second) in pairwise(ranges):
        if start < end:
            raise UnsafeFileError(
                f"archive members {first!r} and {second!r} overlap", subject=source.name, offset=start, code="overlap"
            )

"""Where in a zip archive its members lie, and what lies between them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

from weighttools.core.spec import Source
from weighttools.io.archive import Member, directory, members

_DESCRIPTOR = b"PK\x07\x08"


def archive_places(source: Source) -> Iterator[tuple[int, int, str]]:
    """Yield offset, length and kind of an archive's parts: local headers, members, descriptors, the directory.

    Raises
    ------
    CorruptFileError, UnsafeFileError, UnsupportedError
        As of `members`.
    """
    found = sorted(members(source).values(), key=lambda member: member.header_offset)
    start, end = directory(source)
    begins = [*(member.header_offset for member in found), start]
    for member, (begin, after) in zip(found, pairwise(begins), strict=True):
        yield begin, member.span.offset - begin, "local headers"
        yield member.span.offset, member.span.length, "members"
        stop = member.span.offset + member.span.length
        if n_bytes := _descriptor_bytes(source, member, stop, after - stop):
            yield stop, n_bytes, "data descriptors"
    yield start, end - start, "zip directory"


def _descriptor_bytes(source: Source, member: Member, at: int, room: int) -> int:
    """Return the length of the descriptor behind a member: none, 16, or 24 where its sizes are of 64 bits."""
    if room < 16 or source.read(at, 4) != _DESCRIPTOR:
        return 0
    is_wide = room >= 24 and struct.unpack("<QQ", source.read(at + 8, 16)) == (member.span.length, member.size)
    return 24 if is_wide else 16

"""HDF5's chunk filters, undone by us: deflate, shuffle, Fletcher-32 and LZF, each held to the length it must give.

Sources: HDF5 File Format Specification 3.0, IV.A.2.l (filter pipeline message); libhdf5 `H5Zshuffle.c` and
`H5checksum.c` for the layouts; Marc Lehmann's LibLZF, format of `lzf_d.c`, for LZF.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighttools.errors import CorruptFileError, UnsupportedError

if TYPE_CHECKING:
    from weighttools.core.spec import Array

DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000
MOST_EXPANSION = 1032
"""Deflate's largest ratio, and far above LZF's."""
_WORDS = 1 << 20
_WIDEST = 16


@dataclass(frozen=True, slots=True)
class Filter:
    """One step of a pipeline.

    Parameters
    ----------
    code
        The filter's registered number.
    values
        Its parameters.
    name
        What the file calls it.
    """

    code: int
    values: tuple[int, ...]
    name: str = ""


def undo(data: bytes, pipeline: tuple[Filter, ...], mask: int, n_bytes: int) -> bytes:
    """Return a chunk's `n_bytes` of elements from its stored bytes.

    Parameters
    ----------
    data
        As stored.
    pipeline
        The filters, in the order they were applied.
    mask
        Bit i set: filter i was left out for this chunk.
    n_bytes
        What a chunk takes unfiltered.

    Raises
    ------
    CorruptFileError
        A step gives another length, or a checksum does not match.
    UnsupportedError
        A filter is none of ours.
    """
    steps = [step for i, step in enumerate(pipeline) if not mask >> i & 1]
    for at in range(len(steps) - 1, -1, -1):
        inverse = _INVERSES.get(steps[at].code)
        if inverse is None:
            raise unsupported(steps[at])
        data = inverse(data, steps[at], n_bytes + 4 * sum(step.code == FLETCHER32 for step in steps[:at]))
    if len(data) != n_bytes:
        raise CorruptFileError(f"a chunk holds {len(data):,} bytes", expected=f"{n_bytes:,}")
    return data


def unsupported(step: Filter) -> UnsupportedError:
    """Return the error for a filter that is not read."""
    return UnsupportedError(
        f"is compressed with the HDF5 filter {step.name or step.code}",
        expected="gzip, lzf, shuffle or fletcher32",
        remedy="repack it with: h5repack -f GZIP=4",
        code="unsupported-compression",
    )


def _inflate(data: bytes, step: Filter, n_bytes: int) -> bytes:
    machine = zlib.decompressobj()
    try:
        found = machine.decompress(data, n_bytes + 1)
    except zlib.error as error:
        raise CorruptFileError(f"a chunk does not inflate: {error}") from None
    if len(found) != n_bytes:
        more = "more than " if len(found) > n_bytes else ""
        raise CorruptFileError(f"a chunk inflates to {more}{min(len(found), n_bytes):,} bytes", expected=f"{n_bytes:,}")
    return found


def _unshuffle(data: bytes, step: Filter, n_bytes: int) -> bytes:
    """Gather the bytes of each element again; a rest that fills no element stays at the end."""
    import numpy as np

    width = step.values[0] if step.values else 1
    n = len(data) // width if width > 1 else 0
    if n < 2:
        return data
    planes = np.frombuffer(data, np.uint8, n * width).reshape(width, n)
    if width > _WIDEST:
        return planes.T.tobytes() + data[n * width :]
    elements = np.empty((n, width), np.uint8)
    for byte in range(width):  # six times as fast as transposing at once
        elements[:, byte] = planes[byte]
    return elements.tobytes() + data[n * width :]


def _checked(data: bytes, step: Filter, n_bytes: int) -> bytes:
    if len(data) < 4:
        raise CorruptFileError(f"a chunk of {len(data)} bytes has no room for its checksum")
    content, stored = data[:-4], int.from_bytes(data[-4:], "little")
    found = fletcher32(content)
    swapped = (found & 0x00FF00FF) << 8 | found >> 8 & 0x00FF00FF  # as HDF5 before 1.6.3 wrote it
    if stored not in (found, swapped):
        raise CorruptFileError(f"a chunk's Fletcher-32 checksum is {found:08x}", expected=f"{stored:08x}, as stored")
    return content


def fletcher32(data: bytes) -> int:
    """Return HDF5's Fletcher-32 of `data`: big-endian words, sums modulo 65,535 in which zero is written 65,535.

    >>> hex(fletcher32(b"abcde"))
    '0x4ff029c7'
    """
    import numpy as np

    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2")
    first = second = 0
    for at in range(0, words.size, _WORDS):
        block = words[at : at + _WORDS].astype(np.uint64)
        second += first * block.size + int(np.dot(block, np.arange(block.size, 0, -1, dtype=np.uint64)))
        first += int(block.sum())
    low, high = ((total - 1) % 65_535 + 1 if total else 0 for total in (first, second))
    return high << 16 | low


def _unlzf(data: bytes, step: Filter, n_bytes: int) -> bytes:
    """Undo LZF: a control byte below 32 copies that many bytes and one, any other goes back into what was made."""
    made = bytearray()
    at, end = 0, len(data)
    try:
        while at < end and len(made) <= n_bytes:
            control = data[at]
            at += 1
            if control < 32:
                made += data[at : at + control + 1]
                if at + control + 1 > end:
                    break
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[at]
                at += 1
            start = len(made) - ((control & 31) << 8 | data[at]) - 1
            at += 1
            _repeat(made, start, length + 2)
    except IndexError:
        raise CorruptFileError("a chunk's LZF stream is cut off or points before its beginning") from None
    if len(made) != n_bytes:
        raise CorruptFileError(f"a chunk's LZF stream gives {len(made):,} bytes", expected=f"{n_bytes:,}")
    return bytes(made)


def _repeat(made: bytearray, start: int, length: int) -> None:
    """Append `length` bytes from `start` on; the run may reach into what it appends."""
    if start < 0:
        raise IndexError
    run = made[start : start + length]
    while len(run) < length:
        run += run[: length - len(run)]
    made += run


_INVERSES: dict[int, Callable[[bytes, Filter, int], bytes]] = {
    DEFLATE: _inflate,
    SHUFFLE: _unshuffle,
    FLETCHER32: _checked,
    LZF: _unlzf,
}


def shuffled(values: Array) -> bytes:
    """Return the bytes of a flat array with the first bytes of all elements first, then the second, …"""
    import numpy as np

    return np.ascontiguousarray(values).view(np.uint8).reshape(values.size, -1).T.tobytes()

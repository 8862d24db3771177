"""CRC-32 as zip archives have it, several times as fast as zlib's, and of parts that are joined later.

A CRC is the remainder of the message, as a polynomial over GF(2), by P = x**32 + x**26 + … + 1. P divides the trinomial
x**91639 + x**41678 + 1, hence also its eighth power x**(8 * 91639) + x**(8 * 41678) + 1: a byte of the message may be
taken away if it is added (by exclusive or) to the bytes 49,961 and 91,639 behind it. Two long exclusive ors, which
NumPy does with the widest instructions of the machine, so leave 91,639 bytes of any message for zlib to divide.
Parts are joined as zlib's ``crc32_combine`` joins them: the first's remainder times x**(8 * length of the second).

References
----------
Koopman, "32-bit cyclic redundancy codes for internet applications" (2002), for the weights of P's multiples; zlib,
``crc32.c``, for `multiplied`.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable
from functools import lru_cache, reduce
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weighttools.core.tensor import Array

_POLYNOMIAL = 0xEDB88320
"""P without x**32; the highest bit is the coefficient of x**0."""
_ONE = 1 << 31
_FAR, _NEAR = 91_639, 91_639 - 41_678
_REST = _FAR - _NEAR
_ROOM = 1 << 19
"""Bytes of what is under way: half a usual second-level cache."""
_WORTH = 1 << 19
"""Fewer bytes are zlib's: what is left of them in the end would take it as long."""
_IS_FAST = "zlib-ng" in zlib.ZLIB_RUNTIME_VERSION
"""zlib-ng multiplies without carry, which is faster yet."""

_LOCAL = threading.local()


def crc32(data: memoryview) -> int:
    """Return the CRC-32 of bytes, as `zlib.crc32`."""
    return crc32_of([data], data.nbytes)


def crc32_of(pieces: Iterable[memoryview], n_bytes: int) -> int:
    """Return the CRC-32 of pieces that follow one another, `n_bytes` in all; each is used before the next."""
    if n_bytes < _WORTH or _IS_FAST:
        return reduce(lambda found, piece: zlib.crc32(piece, found), pieces, 0)
    return zlib.crc32(_folded(pieces, n_bytes).data, 0xFFFFFFFF)


def _folded(pieces: Iterable[memoryview], n_bytes: int) -> Array:
    """Return the last bytes of a message with all others added to them; valid until the next call of this thread."""
    import numpy as np

    room = _room()
    room[:_FAR] = 0
    at, done, stop = _FAR, 0, n_bytes - _REST  # the bytes behind `stop` are the result: they stay where they are
    for piece in pieces:
        data = np.frombuffer(piece, np.uint8)
        first = 0
        while first < data.size:
            length = min(_NEAR, data.size - first, stop - done if done < stop else n_bytes)
            if at + length > room.size:
                room[:_FAR] = room[at - _FAR : at]
                at = _FAR
            out = room[at : at + length]
            np.bitwise_xor(data[first : first + length], room[at - _FAR : at - _FAR + length], out=out)
            if done < stop:
                np.bitwise_xor(out, room[at - _NEAR : at - _NEAR + length], out=out)
            if not done:
                out[:4] ^= 0xFF  # a CRC-32 begins with ones in the register, which zlib then is told to leave out
            first, done, at = first + length, done + length, at + length
    return room[at - _FAR : at]


def _room() -> Array:
    """Return this thread's memory: fresh pages would cost as much as the work."""
    import numpy as np

    if not hasattr(_LOCAL, "room"):
        _LOCAL.room = np.empty(_ROOM, np.uint8)
    room: Array = _LOCAL.room
    return room


def joined(first: int, second: int, n_second: int) -> int:
    """Return the CRC-32 of two runs of bytes one after the other, from theirs.

    >>> joined(zlib.crc32(b"ab"), zlib.crc32(b"c"), 1) == zlib.crc32(b"abc")
    True
    """
    return multiplied(first, _power(8 * n_second)) ^ second


def multiplied(a: int, b: int) -> int:
    """Return the product of two polynomials modulo P."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


@lru_cache(256)
def _power(n: int) -> int:
    """Return x**n modulo P."""
    found, factor = _ONE, _ONE >> 1
    while n:
        if n & 1:
            found = multiplied(found, factor)
        factor = multiplied(factor, factor)
        n >>= 1
    return found

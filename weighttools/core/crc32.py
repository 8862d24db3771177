"""CRC-32 as zip archives have it: of bytes, and of parts that are joined later.

ISA-L's (the package isal) multiplies without carry and is eight times as fast as zlib's; where it is not installed,
zlib's does. Parts are joined as zlib's ``crc32_combine`` joins them: the first's remainder times x**(8 * length of the
second).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, reduce

try:
    from isal.isal_zlib import crc32 as crc32
except ImportError:  # a platform without a wheel
    from zlib import crc32 as crc32

_POLYNOMIAL = 0xEDB88320
"""The polynomial without x**32; the highest bit is the coefficient of x**0."""
_ONE = 1 << 31


def crc32_of(pieces: Iterable[memoryview]) -> int:
    """Return the CRC-32 of pieces that follow one another; each is used before the next is asked for."""
    return reduce(lambda found, piece: crc32(piece, found), pieces, 0)


def joined(first: int, second: int, n_second: int) -> int:
    """Return the CRC-32 of two runs of bytes one after the other, from theirs.

    >>> joined(crc32(b"ab"), crc32(b"c"), 1) == crc32(b"abc")
    True
    """
    return multiplied(first, _power(8 * n_second)) ^ second


def multiplied(a: int, b: int) -> int:
    """Return the product of two polynomials modulo the CRC's."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


@lru_cache(256)
def _power(n: int) -> int:
    """Return x**n modulo the CRC's."""
    found, factor = _ONE, _ONE >> 1
    while n:
        if n & 1:
            found = multiplied(found, factor)
        factor = multiplied(factor, factor)
        n >>= 1
    return found

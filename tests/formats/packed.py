"""Packing of 4- and 6-bit elements by plain integers: an oracle that shares nothing with the package."""

from __future__ import annotations

from typing import Any

import numpy as np


def pack_bits(elements: Any, bits: int) -> bytes:
    """Lay elements (ints below 2**bits) end to end, the first in the lowest bits, little-endian."""
    values = [int(v) for v in np.asarray(elements).view("u1").reshape(-1)]
    word = sum(value << (i * bits) for i, value in enumerate(values))
    return word.to_bytes(-(-len(values) * bits // 8), "little")


def unpack_bits(data: bytes, bits: int, n: int) -> np.ndarray[Any, Any]:
    """Undo `pack_bits`: n elements, one a byte."""
    word = int.from_bytes(data, "little")
    return np.array([(word >> (i * bits)) & ((1 << bits) - 1) for i in range(n)], np.uint8)

"""Elements narrower than a byte: from packed bytes to one element a byte, and back.

Bits fill each byte from the lowest up, so the first 4-bit element is the low nibble, as in torch's
``float4_e2m1fn_x2``; four 6-bit elements fill three bytes likewise, read as one little-endian number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from weighttools.core.spec import Array


def unpack(packed: Array, bits: int, n_elements: int) -> Array:
    """Return `n_elements` of `bits` bits each (uint8, one a byte) from little-endian packed bytes (uint8)."""
    unit = _unit_bytes(bits)
    whole = np.zeros((-(-packed.size // unit), unit), np.uint8)
    whole.reshape(-1)[: packed.size] = packed
    words = whole.astype(np.uint32) @ (np.uint32(1) << (np.uint32(8) * np.arange(unit, dtype=np.uint32)))
    shifts = np.arange(unit * 8 // bits, dtype=np.uint32) * np.uint32(bits)
    elements = (words[:, None] >> shifts) & np.uint32((1 << bits) - 1)
    flat: Array = elements.astype(np.uint8).reshape(-1)
    return flat[:n_elements]


def pack(elements: Array, bits: int) -> Array:
    """Return packed bytes (uint8) of elements given one a byte (uint8, the low `bits` bits of each)."""
    unit = _unit_bytes(bits)
    per = unit * 8 // bits
    whole = np.zeros((-(-elements.size // per), per), np.uint32)
    whole.reshape(-1)[: elements.size] = elements & np.uint8((1 << bits) - 1)
    shifts = np.arange(per, dtype=np.uint32) * np.uint32(bits)
    words = np.bitwise_or.reduce(whole << shifts, axis=1)
    packed = (words[:, None] >> (np.uint32(8) * np.arange(unit, dtype=np.uint32))) & np.uint32(255)
    flat: Array = packed.astype(np.uint8).reshape(-1)
    return flat[: -(-elements.size * bits // 8)]


def _unit_bytes(bits: int) -> int:
    """Bytes in the smallest run of whole bytes: 1 at 4 bits, 3 at 6 bits."""
    return {4: 1, 6: 3}[bits]

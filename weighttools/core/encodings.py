"""Quantised encodings: runs of elements stored as blocks of bytes. One table; importing this loads no NumPy.

Source: ggml, ``ggml-common.h`` (the block structures) and ``ggml.h`` (their names). Every block of `elements` values
takes `n_bytes` bytes: its scales, and the small integers that they scale.
"""

from __future__ import annotations

from typing import NamedTuple


class BlockSize(NamedTuple):
    """The geometry of an encoding: how many elements a block holds, and how many bytes it takes."""

    elements: int
    n_bytes: int


QUANTIZED: dict[str, BlockSize] = {
    "q4_0": BlockSize(32, 18),
    "q4_1": BlockSize(32, 20),
    "q5_0": BlockSize(32, 22),
    "q5_1": BlockSize(32, 24),
    "q8_0": BlockSize(32, 34),
    "q8_1": BlockSize(32, 40),
    "q2_k": BlockSize(256, 84),
    "q3_k": BlockSize(256, 110),
    "q4_k": BlockSize(256, 144),
    "q5_k": BlockSize(256, 176),
    "q6_k": BlockSize(256, 210),
    "q8_k": BlockSize(256, 292),
    "iq2_xxs": BlockSize(256, 66),
    "iq2_xs": BlockSize(256, 74),
    "iq3_xxs": BlockSize(256, 98),
    "iq1_s": BlockSize(256, 50),
    "iq4_nl": BlockSize(32, 18),
    "iq3_s": BlockSize(256, 110),
    "iq2_s": BlockSize(256, 82),
    "iq4_xs": BlockSize(256, 136),
    "iq1_m": BlockSize(256, 56),
    "tq1_0": BlockSize(256, 54),
    "tq2_0": BlockSize(256, 66),
    "mxfp4": BlockSize(32, 17),
    "nvfp4": BlockSize(64, 36),
    "q1_0": BlockSize(128, 18),
}
"""Encodings by name: ggml's type names in lower case."""

BITMASK = "bitmask"
"""Elements stored as a bit each and the values that are not zero; see `weighttools.encodings.bitmask`."""
BITMASK_BLOCK = 1 << 16
"""Elements of a block of a bitmask."""

BIG_ENDIAN = "_be"
"""The suffix of an encoding whose blocks hold big-endian numbers; such blocks are read, never copied."""


def block_of(encoding: str) -> BlockSize | None:
    """Return the block of a quantised encoding; None for any other.

    >>> block_of("q4_k"), block_of("raw")
    (BlockSize(elements=256, n_bytes=144), None)
    """
    return QUANTIZED.get(encoding.removesuffix(BIG_ENDIAN))


def bitmask_bytes(n_elements: int, n_kept: int, bits: int) -> int:
    """Return the bytes of `n_elements` as a bitmask and the `n_kept` values of `bits` bits that are not zero.

    >>> bitmask_bytes(65536, 100, 32)
    8600
    """
    return 8 * -(-n_elements // BITMASK_BLOCK) + -(-n_elements // 8) + n_kept * (bits // 8)

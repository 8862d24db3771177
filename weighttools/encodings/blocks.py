"""Quantised blocks to float32 and back, a run of blocks at a time in NumPy.

Source: ggml, ``ggml-quants.c`` (``dequantize_row_*``, ``quantize_row_q8_0_ref``). The commonest encodings are decoded
here, on eight packed bytes at once; the others by the ``gguf`` package, whose results these equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from weighttools.core.encodings import BIG_ENDIAN, block_of
from weighttools.core.registry import need
from weighttools.errors import SpecError, UnsupportedError

if TYPE_CHECKING:
    from weighttools.core.spec import Array

PIECE_ELEMENTS = 1 << 17
"""Elements decoded at a time: their scratch stays in the second-level cache."""

_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
_PAIRS = np.uint64(0x0303030303030303)
_ONES = np.uint64(0x0101010101010101)
_FOUR = np.uint64(4)


def decode(blocks: Array, encoding: str) -> Array:
    """Return the elements of whole blocks.

    Parameters
    ----------
    blocks
        uint8, shape (n_blocks, bytes of a block).
    encoding
        A name of `weighttools.core.encodings.QUANTIZED`, with ``_be`` where the blocks' numbers are big-endian.

    Returns
    -------
    Array
        float32, flat, n_blocks times the elements of a block.

    Raises
    ------
    MissingDependencyError
        This encoding is decoded by the ``gguf`` package, which is not installed.
    UnsupportedError
        Nothing here decodes it.
    """
    block = block_of(encoding)
    assert block is not None, "only quantised encodings have blocks"
    out = np.empty((len(blocks), block.elements), np.float32)
    decoder = _DECODERS.get(encoding.removesuffix(BIG_ENDIAN)) or _from_package(encoding)
    swapped = _swapped(encoding)
    step = PIECE_ELEMENTS // block.elements
    with np.errstate(all="ignore"):  # Inf and NaN scales are data
        for at in range(0, len(blocks), step):
            piece = blocks[at : at + step]
            decoder(piece[:, swapped] if swapped else piece, out[at : at + step])
    return out.reshape(-1)


def _halves(blocks: Array, start: int, n: int) -> Array:
    """Return `n` float16 numbers a block, from byte `start` on, as float32 of shape (n_blocks, n)."""
    halves: Array = np.ascontiguousarray(blocks[:, start : start + 2 * n]).view("<f2").astype(np.float32)
    return halves


def _words(blocks: Array, start: int, n_bytes: int) -> Array:
    """Return bytes of each block eight at a time: uint64 of shape (n_blocks, n_bytes / 8)."""
    return np.ascontiguousarray(blocks[:, start : start + n_bytes]).view(np.uint64)


def _nibbles(blocks: Array, start: int, n_groups: int, group_bytes: int) -> Array:
    """Return 4-bit numbers: of each group of bytes first all low halves, then all high ones.

    The result is uint64 of shape (n_blocks, n_groups, 2, group_bytes / 8), eight numbers in each.
    """
    words = _words(blocks, start, n_groups * group_bytes).reshape(len(blocks), n_groups, group_bytes // 8)
    out = np.empty((len(blocks), n_groups, 2, group_bytes // 8), np.uint64)
    np.bitwise_and(words, _NIBBLES, out=out[:, :, 0])
    np.right_shift(words, _FOUR, out=out[:, :, 1])
    out[:, :, 1] &= _NIBBLES
    return out


def _scaled(numbers: Array, scales: Array, out: Array) -> Array:
    """Put integers times their scales into `out`; each scale serves an equal run. Return `out`, flat."""
    flat = out.reshape(-1)
    np.copyto(flat, numbers.reshape(-1))
    flat *= _spread(scales, out)
    return flat


def _spread(scales: Array, out: Array) -> Array:
    return np.repeat(scales.reshape(-1), out.size // scales.size) if scales.size else scales.reshape(-1)


def _q4_0(blocks: Array, out: Array) -> None:
    numbers = _nibbles(blocks, 2, 1, 16).view(np.int8)
    numbers -= 8
    _scaled(numbers, _halves(blocks, 0, 1), out)


def _q4_1(blocks: Array, out: Array) -> None:
    halves = _halves(blocks, 0, 2)
    flat = _scaled(_nibbles(blocks, 4, 1, 16).view(np.uint8), halves[:, 0], out)
    flat += _spread(halves[:, 1], out)


def _fifth_bits(blocks: Array, start: int, numbers: Array) -> Array:
    """Add to 32 4-bit numbers a block their fifth bits, four bytes from `start` on; return bytes (n_blocks, 32)."""
    bits = np.unpackbits(np.ascontiguousarray(blocks[:, start : start + 4]), axis=1, bitorder="little")
    bits <<= 4
    bits |= numbers.view(np.uint8).reshape(bits.shape)
    return bits


def _q5_0(blocks: Array, out: Array) -> None:
    numbers = _fifth_bits(blocks, 2, _nibbles(blocks, 6, 1, 16)).view(np.int8)
    numbers -= 16
    _scaled(numbers, _halves(blocks, 0, 1), out)


def _q5_1(blocks: Array, out: Array) -> None:
    halves = _halves(blocks, 0, 2)
    flat = _scaled(_fifth_bits(blocks, 4, _nibbles(blocks, 8, 1, 16)), halves[:, 0], out)
    flat += _spread(halves[:, 1], out)


def _q8_0(blocks: Array, out: Array) -> None:
    numbers = np.ascontiguousarray(blocks[:, 2:]).view(np.int8)
    _scaled(numbers, _halves(blocks, 0, 1), out)


def _scales_and_minima(blocks: Array) -> tuple[Array, Array]:
    """Return the eight scales and minima of each K block, unpacked from 12 bytes at byte 4 and multiplied out.

    The first four of each are the low 6 bits of bytes 0-3 and 4-7; the last four have their low 4 bits in bytes 8-11
    and their high 2 bits in the high bits of bytes 0-7.
    """
    head, minimum, tail = (blocks[:, at : at + 4] for at in (4, 8, 12))
    scale = np.concatenate([head & 0x3F, (tail & 0x0F) | ((head >> 2) & 0x30)], axis=1)
    least = np.concatenate([minimum & 0x3F, (tail >> 4) | ((minimum >> 2) & 0x30)], axis=1)
    halves = _halves(blocks, 0, 2)
    return halves[:, :1] * scale, halves[:, 1:] * least


def _q4_k(blocks: Array, out: Array) -> None:
    scales, minima = _scales_and_minima(blocks)
    flat = _scaled(_nibbles(blocks, 16, 4, 32).view(np.uint8), scales, out)
    flat -= _spread(minima, out)


def _q5_k(blocks: Array, out: Array) -> None:
    scales, minima = _scales_and_minima(blocks)
    numbers = _nibbles(blocks, 48, 4, 32).reshape(len(blocks), 8, 4)
    high = _words(blocks, 16, 32)
    for run in range(8):  # bit `run` of each high byte belongs to that run of 32
        numbers[:, run] |= ((high >> np.uint64(run)) & _ONES) << _FOUR
    flat = _scaled(numbers.view(np.uint8), scales, out)
    flat -= _spread(minima, out)


def _q6_k(blocks: Array, out: Array) -> None:
    numbers = _nibbles(blocks, 0, 2, 64).reshape(len(blocks), 2, 4, 4)
    high = _words(blocks, 128, 64).reshape(len(blocks), 2, 4)
    for run in range(4):
        numbers[:, :, run] |= ((high >> np.uint64(2 * run)) & _PAIRS) << _FOUR
    signed = numbers.view(np.int8)
    signed -= 32
    scales = _halves(blocks, 208, 1) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    _scaled(signed, scales, out)


_DECODERS: dict[str, Callable[[Array, Array], None]] = {
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q5_0": _q5_0,
    "q5_1": _q5_1,
    "q8_0": _q8_0,
    "q4_k": _q4_k,
    "q5_k": _q5_k,
    "q6_k": _q6_k,
}


def _from_package(encoding: str) -> Callable[[Array, Array], None]:
    """Return the ``gguf`` package's decoder."""
    name = encoding.removesuffix(BIG_ENDIAN)
    need("gguf", f"decoding {name}", "gguf")
    from gguf import GGMLQuantizationType, quants

    kind = getattr(GGMLQuantizationType, name.upper(), None)
    if kind not in quants._type_traits:
        known = ", ".join(sorted({*_DECODERS, *(k.name.lower() for k in quants._type_traits)} - {"bf16"}))
        raise UnsupportedError(f"{name} blocks are listed and copied, not decoded", expected=f"one of {known}")

    def decoder(blocks: Array, out: Array) -> None:
        out.reshape(-1)[:] = quants.dequantize(np.ascontiguousarray(blocks).reshape(1, -1), kind).reshape(-1)

    return decoder


_HALVES = {"q4_0": (0,), "q8_0": (0,), "q4_k": (0, 2), "q6_k": (208,), "mxfp4": (), "nvfp4": ()}
"""Where the 2-byte numbers of a block begin, for the encodings that ``gguf-py/gguf/scripts/gguf_convert_endian.py``
swaps; the rest of these blocks is bytes, alike in either byte order."""


def _swapped(encoding: str) -> list[int] | None:
    """Return the order of bytes that makes a big-endian block a little-endian one; None for little-endian blocks."""
    block, name = block_of(encoding), encoding.removesuffix(BIG_ENDIAN)
    if name == encoding or block is None:
        return None
    if name not in _HALVES:
        raise UnsupportedError(
            f"big-endian {name} blocks are listed, not decoded",
            expected=f"one of {', '.join(_HALVES)}, or a little-endian file",
        )
    order = list(range(block.n_bytes))
    for at in _HALVES[name]:
        order[at : at + 2] = at + 1, at
    return order


def encode_q8_0(values: Array) -> Array:
    """Return Q8_0 blocks: a float16 scale, the largest magnitude over 127, and 32 signed bytes.

    Parameters
    ----------
    values
        Floating, flat, a multiple of 32 long.

    Returns
    -------
    Array
        uint8, flat, 34 bytes for every 32 elements.

    Raises
    ------
    SpecError
        A value is NaN or Inf, or too large for a float16 scale: no block can hold it.
    """
    rows = values.astype(np.float32, copy=False).reshape(-1, 32)
    with np.errstate(all="ignore"):
        scale = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
        half = scale.astype("<f2")
        if not np.isfinite(half).all():
            raise SpecError(
                "values that are NaN, Inf or beyond 8.3e6 do not fit q8_0 blocks", remedy="keep it as it is"
            )
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
        blocks = np.empty((len(rows), 34), np.uint8)
        blocks[:, :2] = half.view(np.uint8)
        blocks[:, 2:] = _half_away(rows * inverse).astype(np.int8).view(np.uint8)
    return blocks.reshape(-1)


def _half_away(values: Array) -> Array:
    """Round to nearest, halves away from zero, as C's roundf does."""
    magnitude = np.abs(values)
    whole = np.floor(magnitude)
    whole += np.floor(np.float32(2) * (magnitude - whole))
    rounded: Array = np.copysign(whole, values)
    return rounded


ENCODERS: dict[str, Callable[[Array], Array]] = {"q8_0": encode_q8_0}
"""Encodings that can be written, by name: floating elements to bytes."""

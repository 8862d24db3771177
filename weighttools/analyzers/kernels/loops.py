"""The loops of the compiled kernel, as numba takes them; importing this loads numba.

Sums are made as in the NumPy kernel, to the same exactness: rows of 256 elements in float32, their sums in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import njit, types

from weighttools.analyzers.kernels import native

ROW = 256
CHUNK = 4096

_f32, _i32, _u32 = np.float32, np.int32, np.uint32
_HOW = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "nsz", "contract", "arcp"}}
_njit: Callable[..., Any] = njit
_array: Any = numba.carray  # type: ignore[attr-defined]
_compiled: Callable[..., Any] = _njit(cache=True, **_HOW)


@_compiled
def _float32(values: Any, buffer: Any, eps: Any, tiny: Any, ints: Any, totals: Any) -> None:
    _start(ints)
    for first in range(0, values.size, CHUNK):
        _add(values[first : min(first + CHUNK, values.size)], eps, tiny, ints, totals)


@_compiled
def _bfloat16(values: Any, buffer: Any, eps: Any, tiny: Any, ints: Any, totals: Any) -> None:
    _start(ints)
    bits = buffer.view(np.uint32)
    for first in range(0, values.size, CHUNK):
        part = values[first : min(first + CHUNK, values.size)]
        for i in range(part.size):
            bits[i] = _u32(_u32(part[i]) << _u32(16))
        _add(buffer[: part.size], eps, tiny, ints, totals)


@_compiled
def _float16(values: Any, buffer: Any, eps: Any, tiny: Any, ints: Any, totals: Any) -> None:
    """Move the bits into place and make up for the exponent bias, as the NumPy kernel does."""
    _start(ints)
    for first in range(0, values.size, CHUNK):
        part = values[first : min(first + CHUNK, values.size)]
        for i in range(part.size):
            bits = _u32(_u32(_i32(part[i]) << _i32(13)) & _u32(0x8FFFE000))
            buffer[i] = bits.view(np.float32) * _f32(2.0**112)
        _add(buffer[: part.size], eps, tiny, ints, totals)


@_compiled
def _start(ints: Any) -> None:
    ints[0], ints[1], ints[2] = 0x7FFFFFFF, -0x80000000, 0


@_compiled
def _add(x: Any, eps: Any, tiny: Any, ints: Any, totals: Any) -> None:
    """Add a chunk that stays in the first-level cache: least, greatest, largest magnitude and counts; sums by rows.

    A float's bits, all but the sign flipped where the sign is set, sort as integers do, NaN and Inf at the ends:
    so these vectorise, and no comparison with NaN is made.
    """
    eps_bits, tiny_bits = _f32(eps).view(np.uint32), _f32(tiny).view(np.uint32)
    least, greatest, largest = _i32(0x7FFFFFFF), _i32(-0x80000000), _u32(0)
    n_zero, n_near, n_small = _u32(0), _u32(0), _u32(0)
    for i in range(x.size):
        bits = _f32(x[i]).view(np.uint32)
        magnitude = _u32(bits & _u32(0x7FFFFFFF))
        key = _u32(bits).view(np.int32)
        key = _i32(key ^ _i32(_u32(key >> _i32(31)) >> _u32(1)))
        least, greatest, largest = min(least, key), max(greatest, key), max(largest, magnitude)
        n_zero = _u32(n_zero + _u32(magnitude == _u32(0)))
        n_near = _u32(n_near + _u32(magnitude <= eps_bits))
        n_small = _u32(n_small + _u32(magnitude < tiny_bits))
    ints[0], ints[1], ints[2] = min(ints[0], least), max(ints[1], greatest), max(ints[2], largest)
    ints[3] += n_zero
    ints[4] += n_near
    ints[5] += n_small
    for first in range(0, x.size, ROW):
        row = x[first : min(first + ROW, x.size)]
        total, sq, l1 = _f32(0), _f32(0), _f32(0)
        for i in range(row.size):
            total += row[i]
            sq += row[i] * row[i]
            l1 += abs(row[i])
        totals[0] += total
        totals[1] += sq
        totals[2] += l1


KERNELS: dict[str, tuple[Callable[..., Any], Any]] = {
    "float32": (_float32, types.float32),
    "bfloat16": (_bfloat16, types.uint16),
    "float16": (_float16, types.int16),
}
"""Each of (values, buffer, eps, tiny, ints, totals), and how it takes the elements."""


def code(dtype: str) -> native.Code:
    """Compile the kernel of a dtype to machine code that takes addresses (and the number of elements) for arrays."""
    kernel, element = KERNELS[dtype]
    pointer: Callable[[Any], Any] = types.CPointer
    signature = types.void(
        pointer(element), types.int64, pointer(types.float32), types.float32, types.float32,
        pointer(types.int64), pointer(types.float64),
    )  # fmt: skip

    def by_address(at: Any, n: Any, buffer: Any, eps: Any, tiny: Any, ints: Any, totals: Any) -> None:
        arrays = _array(at, (n,)), _array(buffer, (CHUNK,)), _array(ints, (6,)), _array(totals, (3,))
        kernel(arrays[0], arrays[1], eps, tiny, arrays[2], arrays[3])

    [result] = _njit(signature, **_HOW)(by_address).overloads.values()
    symbol = result.fndesc.llvm_func_name
    return native.stripped(symbol, result.library.get_llvm_str())

"""The loops of the compiled kernel, as numba takes them; importing this loads numba.

Sums are made as in the NumPy kernel, to the same exactness: rows of 64 elements in float32, their sums in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import njit, types

from weighttools.analyzers.kernels import native

ROW = 64
"""So few that each lane of a vector register adds up at most four or so, however wide the machine has them: more, and a
constant rounds the same way each time, which is beyond 1e-7 with eight lanes and rows of 256."""

_f32, _i32, _u32 = np.float32, np.int32, np.uint32
_HOW = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "nsz", "contract", "arcp"}}
_njit: Callable[..., Any] = njit
view_array: Any = numba.carray  # type: ignore[attr-defined]
compiled_loops: Callable[..., Any] = _njit(cache=True, **_HOW)
inlined_loops: Callable[..., Any] = _njit(inline="always")


def typed_loops(signature: Any) -> Callable[..., Any]:
    """Return what compiles a function for a signature, at once."""
    found: Callable[..., Any] = _njit(signature, **_HOW)
    return found


@inlined_loops
def _same(value: Any) -> Any:
    return value


@inlined_loops
def load_bfloat16(bits: Any) -> Any:
    """Return bfloat16's bits as float32."""
    return _u32(_u32(bits) << _u32(16)).view(np.float32)


@inlined_loops
def load_half(bits: Any) -> Any:
    """Return float16's bits as float32: move them into place and make up for the exponent bias, as NumPy's kernel."""
    moved = _u32(_u32(_i32(bits) << _i32(13)) & _u32(0x8FFFE000))
    return moved.view(np.float32) * _f32(2.0**112)


@inlined_loops
def magnitude_bits(value: Any) -> Any:
    """Return the bits of a float32's magnitude, which sort as magnitudes do, NaN last."""
    return _u32(_f32(value).view(np.uint32) & _u32(0x7FFFFFFF))


def _kernel(load: Callable[[Any], Any]) -> Callable[..., Any]:
    """Make the loops for elements that `load` takes to float32.

    A float's bits, all but the sign flipped where the sign is set, sort as integers do, NaN and Inf at the ends: so
    these vectorise, and no comparison with NaN is made. One loop does what every row needs and keeps it in registers;
    magnitudes near zero are rare, and counted in a second one only where the row's least says that there are any.
    """

    def kernel(values: Any, eps: Any, tiny: Any, ints: Any, totals: Any) -> None:
        eps_bits, tiny_bits = _f32(eps).view(np.uint32), _f32(tiny).view(np.uint32)
        least, greatest = _i32(0x7FFFFFFF), _i32(-0x80000000)
        total: Any = 0.0
        sq: Any = 0.0
        l1: Any = 0.0
        n_zero: Any = 0
        n_near: Any = 0
        n_small: Any = 0
        for first in range(0, values.size, ROW):
            row = values[first : min(first + ROW, values.size)]
            row_least, row_greatest, nearest = _i32(0x7FFFFFFF), _i32(-0x80000000), _u32(0xFFFFFFFF)
            row_total, row_sq, row_l1 = _f32(0), _f32(0), _f32(0)
            for i in range(row.size):
                x = load(row[i])
                magnitude, key = magnitude_bits(x), _f32(x).view(np.int32)
                key = _i32(key ^ _i32(_u32(key >> _i32(31)) >> _u32(1)))
                row_least, row_greatest = min(row_least, key), max(row_greatest, key)
                nearest = min(nearest, magnitude)
                row_total += x
                row_sq += x * x
                row_l1 += magnitude.view(np.float32)
            least, greatest = min(least, row_least), max(greatest, row_greatest)
            total += row_total
            sq += row_sq
            l1 += row_l1
            if nearest <= eps_bits or nearest < tiny_bits:
                row_zero, row_near, row_small = _u32(0), _u32(0), _u32(0)
                for i in range(row.size):
                    magnitude = magnitude_bits(load(row[i]))
                    row_zero = _u32(row_zero + _u32(magnitude == _u32(0)))
                    row_near = _u32(row_near + _u32(magnitude <= eps_bits))
                    row_small = _u32(row_small + _u32(magnitude < tiny_bits))
                n_zero += row_zero
                n_near += row_near
                n_small += row_small
        ints[0], ints[1], ints[2], ints[3], ints[4] = least, greatest, n_zero, n_near, n_small
        totals[0], totals[1], totals[2] = total, sq, l1

    compiled: Callable[..., Any] = compiled_loops(kernel)
    return compiled


KERNELS: dict[str, tuple[Callable[..., Any], Any]] = {
    "float32": (_kernel(_same), types.float32),
    "bfloat16": (_kernel(load_bfloat16), types.uint16),
    "float16": (_kernel(load_half), types.int16),
}
"""Each of (values, eps, tiny, ints, totals), and how it takes the elements."""


def code(dtype: str) -> native.MachineCode:
    """Compile the kernel of a dtype to machine code that takes addresses (and the number of elements) for arrays."""
    kernel, element = KERNELS[dtype]
    pointer: Callable[[Any], Any] = types.CPointer
    signature = types.void(
        pointer(element), types.int64, types.float32, types.float32, pointer(types.int64), pointer(types.float64)
    )

    def by_address(at: Any, n: Any, eps: Any, tiny: Any, ints: Any, totals: Any) -> None:
        kernel(view_array(at, (n,)), eps, tiny, view_array(ints, (5,)), view_array(totals, (3,)))

    [result] = typed_loops(signature)(by_address).overloads.values()
    symbol = result.fndesc.llvm_func_name
    return native.stripped(symbol, result.library.get_llvm_str())

"""The loops of the compiled kernel of pairs, as numba takes them; importing this loads numba.

Sums are made as in `weighttools.analyzers.kernels.loops`: rows of 64 elements in float32, their sums in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from weighttools.analyzers.kernels import native
from weighttools.analyzers.kernels.loops import (
    ROW,
    compiled_loops,
    inlined_loops,
    load_bfloat16,
    load_half,
    magnitude_bits,
    typed_loops,
    view_array,
)

_f32, _f64, _i64, _u32 = np.float32, np.float64, np.int64, np.uint32
"""What a kernel gives: greatest magnitudes of both sides as float32's bits, elements that differ, zeros of both, such
as were none before, zeros whose bits differ, and where the greatest difference is; squares of the difference and of
both sides, their products, and the greatest difference."""


@inlined_loops
def _from_bits(bits: Any) -> Any:
    return _u32(bits).view(np.float32)


def _count_zeros(load_before: Callable[[Any], Any], load_after: Callable[[Any], Any]) -> Callable[..., Any]:
    """Make what counts, in a row: zeros of both sides, such as were none before, and those whose bits differ."""

    @inlined_loops
    def count(row_a: Any, row_b: Any) -> Any:
        n_a, n_b, n_zeroed, n_signs = _u32(0), _u32(0), _u32(0), _u32(0)
        for i in range(row_a.size):
            is_zero_a = magnitude_bits(load_before(row_a[i])) == _u32(0)
            is_zero_b = magnitude_bits(load_after(row_b[i])) == _u32(0)
            n_a = _u32(n_a + _u32(is_zero_a))
            n_b = _u32(n_b + _u32(is_zero_b))
            n_zeroed = _u32(n_zeroed + _u32(is_zero_b & (not is_zero_a)))
            n_signs = _u32(n_signs + _u32(is_zero_a & is_zero_b & (row_a[i] != row_b[i])))
        return n_a, n_b, n_zeroed, n_signs

    found: Callable[..., Any] = count
    return found


def _find_greatest(load_before: Callable[[Any], Any], load_after: Callable[[Any], Any]) -> Callable[..., Any]:
    """Make what finds a greater difference in a row than before, in float64, by its bits: they sort as magnitudes do.

    Most rows have none, and are passed over by a loop without branches.
    """

    @inlined_loops
    def distance(a: Any, b: Any) -> Any:
        return _f64(_f64(load_after(b)) - _f64(load_before(a))).view(np.int64) & _i64(0x7FFFFFFFFFFFFFFF)

    @inlined_loops
    def find(row_a: Any, row_b: Any, first: Any, before: Any, before_at: Any) -> Any:
        greatest, at = _i64(before), _i64(before_at)
        for i in range(row_a.size):
            greatest = max(greatest, distance(row_a[i], row_b[i]))
        if greatest > before:
            for i in range(row_a.size - 1, -1, -1):
                if distance(row_a[i], row_b[i]) == greatest:
                    at = _i64(first + i)
        return greatest, at

    found: Callable[..., Any] = find
    return found


def _kernel(load_before: Callable[[Any], Any], load_after: Callable[[Any], Any]) -> Callable[..., Any]:
    """Make the loops for elements that the two functions take to float32.

    One loop does what every row needs. What is rare has loops of its own: zeros, where the row's least magnitude tells
    that there are any; and the greatest difference in float64, where the row's in float32 is as great as any before.
    """
    count_zeros, find_greatest = _count_zeros(load_before, load_after), _find_greatest(load_before, load_after)

    def kernel(before: Any, after: Any, ints: Any, totals: Any) -> None:
        ints[:] = 0
        totals[:] = 0
        top_d, greatest, at = _u32(0), _i64(0), _i64(0)
        for first in range(0, before.size, ROW):
            row_a = before[first : min(first + ROW, before.size)]
            row_b = after[first : min(first + ROW, before.size)]
            row_top_a, row_top_b, row_top_d, row_least = _u32(0), _u32(0), _u32(0), _u32(0xFFFFFFFF)
            row_d, row_sq_a, row_sq_b, row_dot = _f32(0), _f32(0), _f32(0), _f32(0)
            row_changed = _u32(0)
            for i in range(row_a.size):
                a, b = load_before(row_a[i]), load_after(row_b[i])
                d = _f32(b - a)
                bits_a, bits_b, bits_d = magnitude_bits(a), magnitude_bits(b), magnitude_bits(d)
                row_top_a, row_top_b, row_top_d = max(row_top_a, bits_a), max(row_top_b, bits_b), max(row_top_d, bits_d)
                row_least = min(row_least, min(bits_a, bits_b))
                row_changed = _u32(row_changed + _u32(bits_d != _u32(0)))
                row_d += d * d
                row_sq_a += a * a
                row_sq_b += b * b
                row_dot += a * b
            ints[0], ints[1] = max(_i64(ints[0]), _i64(row_top_a)), max(_i64(ints[1]), _i64(row_top_b))
            ints[2] += _i64(row_changed)
            totals[0] += row_d
            totals[1] += row_sq_a
            totals[2] += row_sq_b
            totals[3] += row_dot
            if row_top_d >= top_d and row_top_d != _u32(0):
                top_d = row_top_d
                greatest, at = find_greatest(row_a, row_b, first, greatest, at)
            if row_least == _u32(0):
                zeros = count_zeros(row_a, row_b)
                for k in range(4):
                    ints[3 + k] += _i64(zeros[k])
        ints[7] = at
        totals[4] = _i64(greatest).view(np.float64)

    found: Callable[..., Any] = compiled_loops(kernel)
    return found


_LOADS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "float32": (_from_bits, types.uint32),
    "bfloat16": (load_bfloat16, types.uint16),
    "float16": (load_half, types.int16),
}


def kernel_of(before: str, after: str) -> Callable[..., Any]:
    """Return the loops of two dtypes: of both sides' bits, and two arrays to fill."""
    return _kernel(_LOADS[before][0], _LOADS[after][0])


def code_of(before: str, after: str) -> native.MachineCode:
    """Compile it to machine code that takes addresses (and the number of elements) for arrays."""
    kernel = kernel_of(before, after)
    at: Callable[[Any], Any] = types.CPointer
    one_type, other_type = (at(_LOADS[name][1]) for name in (before, after))
    signature = types.void(one_type, other_type, types.int64, at(types.int64), at(types.float64))

    def by_address(one: Any, other: Any, n: Any, ints: Any, totals: Any) -> None:
        kernel(view_array(one, (n,)), view_array(other, (n,)), view_array(ints, (8,)), view_array(totals, (5,)))

    [result] = typed_loops(signature)(by_address).overloads.values()
    return native.stripped(result.fndesc.llvm_func_name, result.library.get_llvm_str())

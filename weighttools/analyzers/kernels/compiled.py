"""The compiled kernel (extra ``[fast]``): one pass over each block by numba, without the interpreter's lock.

numba compiles it once; see `weighttools.analyzers.kernels.native` for how it is kept and loaded without numba, and
`weighttools.analyzers.kernels.choice` for when it pays.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.analyzers.kernels import native
from weighttools.analyzers.kernels.blocked import GREATEST_SAFE, LEAST_SAFE, LIMITS, float32_below
from weighttools.analyzers.kernels.summary import Sums
from weighttools.core.registry import need
from weighttools.core.scratch import Scratch

if TYPE_CHECKING:
    from weighttools.core.spec import Array

    Kernel = Callable[[Array, Any, Any, Array, Array], None]

_BITS = {"float32": np.float32, "bfloat16": np.uint16, "float16": np.int16}
_AT, _NUMBER = ctypes.c_void_p, ctypes.c_float
_ARGUMENTS = (_AT, ctypes.c_int64, _NUMBER, _NUMBER, _AT, _AT)
LOOPS_TEXT = Path(__file__).with_name("loops.py")
_LOCK = threading.Lock()
_KERNELS: dict[str, Kernel] = {}


def sums(values: Array, eps: float, tiny: float, scratch: Scratch) -> Sums | None:
    """Return the sums of float32, bfloat16 or float16 values; None where float64 is needed; as the NumPy kernel."""
    name = values.dtype.name
    ints, totals = np.zeros(5, np.int64), np.zeros(3)
    bits = values.view(_BITS[name])
    _kernel(name)(bits, np.float32(float32_below(eps)), np.float32(tiny), ints, totals)
    least, greatest, largest = _values(ints)
    if not LEAST_SAFE <= largest <= LIMITS.get(name, GREATEST_SAFE):
        return None
    total, sq, l1 = totals.tolist()
    n_zero, n_near, n_subnormal = ints[2:].tolist()
    return Sums(least, greatest, total, sq, l1, n_zero, n_near, n_subnormal - n_zero if n_subnormal else 0)


def _values(ints: Array) -> tuple[float, float, float]:
    """Return the extremes and the largest magnitude from their sortable integers."""
    bits = [key if key >= 0 else key ^ 0x7FFFFFFF for key in ints[:2].tolist()]
    largest_bits = max(one & 0x7FFFFFFF for one in bits)  # as bits, NaN is the largest
    least, greatest, largest = struct.unpack("=fff", struct.pack("=iii", *bits, largest_bits))
    return least, greatest, largest


def _kernel(dtype: str) -> Kernel:
    with _LOCK:
        if dtype not in _KERNELS:
            _KERNELS[dtype] = _native(dtype) or _by_numba(dtype)
        return _KERNELS[dtype]


def _by_numba(dtype: str) -> Kernel:
    need("numba", "the compiled kernel", "fast")
    from weighttools.analyzers.kernels.loops import KERNELS

    kernel: Kernel = KERNELS[dtype][0]
    return kernel


def _native(dtype: str) -> Kernel | None:
    """Return the kernel as machine code, or None where it cannot be had so."""
    run = native.function(native.Loops(dtype, (LOOPS_TEXT,), _ARGUMENTS), partial(_compile, dtype))
    if run is None:
        return None

    def kernel(values: Array, eps: Any, tiny: Any, ints: Array, totals: Array) -> None:
        run(values.ctypes.data, values.size, eps, tiny, ints.ctypes.data, totals.ctypes.data)

    return kernel


def _compile(dtype: str) -> native.MachineCode:
    from weighttools.analyzers.kernels.loops import code

    return code(dtype)

"""The compiled kernel (extra ``[fast]``): one pass over each block by numba, without the interpreter's lock.

numba compiles it once; see `weighttools.analyzers.kernels.native` for how it is kept and loaded without numba, and
`weighttools.analyzers.kernels.choice` for when it pays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.analyzers.kernels import native
from weighttools.analyzers.kernels.blocked import GREATEST_SAFE, LEAST_SAFE, LIMITS, float32_below
from weighttools.analyzers.kernels.scratch import Scratch
from weighttools.analyzers.kernels.summary import Sums
from weighttools.core.registry import need

if TYPE_CHECKING:
    from weighttools.core.tensor import Array

    Kernel = Callable[[Array, Array, Any, Any, Array, Array], None]

CHUNK = 4096
"""Elements that are widened at a time: they stay in the first-level cache."""

_BITS = {"float32": np.float32, "bfloat16": np.uint16, "float16": np.int16}
_LOCK = threading.Lock()
_KERNELS: dict[str, Kernel] = {}


def sums(values: Array, eps: float, tiny: float, scratch: Scratch) -> Sums | None:
    """Return the sums of float32, bfloat16 or float16 values; None where float64 is needed; as the NumPy kernel."""
    name = values.dtype.name
    buffer = scratch.get("chunk", np.float32, CHUNK)
    ints, totals = np.zeros(6, np.int64), np.zeros(3)
    bits = values.view(_BITS[name])
    _kernel(name)(bits, buffer, np.float32(float32_below(eps)), np.float32(tiny), ints, totals)
    least, greatest, largest = _values(ints)
    if not LEAST_SAFE <= largest <= LIMITS.get(name, GREATEST_SAFE):
        return None
    total, sq, l1 = totals.tolist()
    n_zero, n_near, n_subnormal = ints[3:].tolist()
    return Sums(least, greatest, total, sq, l1, n_zero, n_near, n_subnormal - n_zero if n_subnormal else 0)


def _values(ints: Array) -> tuple[float, float, float]:
    """Return the extremes and the largest magnitude from their sortable integers."""
    keys = ints[:3].astype(np.int32)
    keys ^= (keys >> 31) & 0x7FFFFFFF
    least, greatest, largest = keys.view(np.float32).tolist()
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
    run = native.function(dtype, _compile)
    if run is None:
        return None

    def kernel(values: Array, buffer: Array, eps: Any, tiny: Any, ints: Array, totals: Array) -> None:
        n, addresses = values.size, [array.ctypes.data for array in (values, buffer, ints, totals)]
        run(addresses[0], n, addresses[1], eps, tiny, addresses[2], addresses[3])

    return kernel


def _compile(dtype: str) -> native.Code:
    from weighttools.analyzers.kernels.loops import code

    return code(dtype)

"""The compiled kernel of pairs (extra ``[fast]``): one pass over both blocks, without the interpreter's lock.

See `weighttools.analyzers.kernels.compiled`, whose ways of keeping and loading machine code it shares.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from weighttools.analyzers.compare.state import PairState, PairSums
from weighttools.analyzers.kernels import native
from weighttools.analyzers.kernels.blocked import GREATEST_SAFE, LEAST_SAFE, LIMITS
from weighttools.analyzers.kernels.compiled import LOOPS_TEXT
from weighttools.core.registry import need

if TYPE_CHECKING:
    from weighttools.core.spec import Array

    Kernel = Callable[[Array, Array, Array, Array], None]

_BITS = {"float32": np.uint32, "bfloat16": np.uint16, "float16": np.int16}
_AT = ctypes.c_void_p
_ARGUMENTS = (_AT, _AT, ctypes.c_int64, _AT, _AT)
_TEXTS = (LOOPS_TEXT, Path(__file__).with_name("loops.py"))
_LOCK = threading.Lock()
_KERNELS: dict[tuple[str, str], Kernel] = {}


def compiled_state(before: Array, after: Array, start: int) -> PairState | None:
    """Return the state of float32, bfloat16 or float16 values, in any two of them; None where float64 is needed.

    It tells what `weighttools.analyzers.compare.quick.quick_state` does.
    """
    names = before.dtype.name, after.dtype.name
    ints, totals = np.zeros(8, np.int64), np.zeros(5)
    _kernel(names)(before.view(_BITS[names[0]]), after.view(_BITS[names[1]]), ints, totals)
    top_a, top_b, n_changed, zeros_a, zeros_b, zeroed, n_signs, at = ints.tolist()
    squares_d, squares_a, squares_b, dot, top = totals.tolist()
    if not (_is_safe(top_a, names[0]) and _is_safe(top_b, names[1])) or 0 < top < LEAST_SAFE:
        return None
    n_bits = n_changed + n_signs if names[0] == names[1] else None
    sums = PairSums(squares_d, squares_a, squares_b, dot)
    return PairState(before.size, n_bits, n_changed, n_changed, 0, zeros_a, zeros_b, zeroed, top, start + at, sums)


def _is_safe(bits: int, dtype: str) -> bool:
    [top] = struct.unpack("=f", struct.pack("=I", bits))
    return bits == 0 or LEAST_SAFE <= top <= LIMITS.get(dtype, GREATEST_SAFE)


def _kernel(dtypes: tuple[str, str]) -> Kernel:
    with _LOCK:
        if dtypes not in _KERNELS:
            _KERNELS[dtypes] = native_kernel(*dtypes) or numba_kernel(*dtypes)
        return _KERNELS[dtypes]


def numba_kernel(before: str, after: str) -> Kernel:
    """Return the kernel as numba itself runs it."""
    need("numba", "the compiled kernel", "fast")
    from weighttools.analyzers.compare.loops import kernel_of

    return kernel_of(before, after)


def native_kernel(before: str, after: str) -> Kernel | None:
    """Return the kernel as machine code, or None where it cannot be had so."""
    loops = native.Loops(f"pair-{before}-{after}", _TEXTS, _ARGUMENTS)
    run = native.function(loops, partial(_compile, before, after))
    if run is None:
        return None

    def kernel(one: Array, other: Array, ints: Array, totals: Array) -> None:
        run(one.ctypes.data, other.ctypes.data, one.size, ints.ctypes.data, totals.ctypes.data)

    return kernel


def _compile(before: str, after: str) -> native.MachineCode:
    from weighttools.analyzers.compare.loops import code_of

    return code_of(before, after)

"""The NumPy kernel: float32 arithmetic on blocks that stay in the cache, its sums carried on in float64.

Rows of 256 elements are summed in float32 by the BLAS dot product behind `numpy.vecdot`. It adds many elements side by
side, so that few additions follow one another: the error stays near 1e-7 of a row whatever it holds, and is far less
for all rows together, whose sums are added in float64. The rows are too short for BLAS to start threads of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from weighttools.analyzers.kernels.summary import Sums
from weighttools.core.scratch import Scratch

if TYPE_CHECKING:
    from weighttools.core.spec import Array

ROW = 256
LEAST_SAFE, GREATEST_SAFE = 1e-12, 1e15
"""Between these magnitudes of a block's largest value, float32 squares neither overflow nor vanish."""

_ONES = np.ones(ROW, np.float32)


def sums(values: Array, eps: float, tiny: float, scratch: Scratch) -> Sums | None:
    """Return the sums of float32, bfloat16 or float16 values; None where float64 is needed.

    That is where a value is NaN or Inf, or the largest magnitude is not from 1e-12 to 1e15.
    """
    x = DECODERS[values.dtype.name](values, scratch)
    least, greatest = float(np.minimum.reduce(x)), float(np.maximum.reduce(x))
    if not LEAST_SAFE <= max(-least, greatest) <= LIMITS.get(values.dtype.name, GREATEST_SAFE):
        return None
    total, sq = _total(x), sum_of_products(x, x)
    a = scratch.get("magnitudes", np.float32, x.size)
    np.abs(x, out=a)
    return Sums(least, greatest, total, sq, _total(a), *_small(a, eps, tiny, scratch))


def _total(x: Array) -> float:
    cut = x.size - x.size % ROW
    rows = np.vecdot(x[:cut].reshape(-1, ROW), _ONES)
    return float(np.add.reduce(rows, dtype=np.float64) + x[cut:].astype(np.float64).sum())


def sum_of_products(x: Array, y: Array) -> float:
    """Return the sum of x * y, of float32: rows in float32, what is left over and the rows' sums in float64."""
    cut = x.size - x.size % ROW
    rows = np.vecdot(x[:cut].reshape(-1, ROW), y[:cut].reshape(-1, ROW))
    tail = np.dot(x[cut:].astype(np.float64), y[cut:].astype(np.float64))
    return float(np.add.reduce(rows, dtype=np.float64) + tail)


def _small(a: Array, eps: float, tiny: float, scratch: Scratch) -> tuple[int, int, int]:
    """Count zeros, near-zeros and subnormals among magnitudes; without any, only the minimum is looked at."""
    least = float(np.minimum.reduce(a))
    mask = scratch.get("mask", np.bool_, a.size)

    def count(compare: np.ufunc, limit: float) -> int:
        return int(np.count_nonzero(compare(a, np.float32(limit), out=mask)))

    n_zero = count(np.equal, 0.0) if least == 0.0 else 0
    n_near = (count(np.less_equal, float32_below(eps)) if eps else n_zero) if least <= eps else 0
    n_subnormal = count(np.less, tiny) - n_zero if least < tiny else 0
    return n_zero, n_near, n_subnormal


def float32_below(value: float) -> float:
    """Return the largest float32 that is not above `value`, so that a comparison in float32 comes out as in float64."""
    near = np.float32(min(value, 3e38))
    return float(near if float(near) <= value else np.nextafter(near, np.float32(-math.inf)))


def _as_is(values: Array, scratch: Scratch, room: str = "decoded") -> Array:
    return values


def _widened(values: Array, scratch: Scratch, room: str = "decoded") -> Array:
    x = scratch.get(room, np.float32, values.size)
    np.copyto(x, values)
    return x


_HALF_MASK = np.int32(-0x70002000)  # 0x8fffe000: sign, exponent and mantissa after the shift


def _half(values: Array, scratch: Scratch, room: str = "decoded") -> Array:
    """Return float16 as float32: move the bits into place, and make up for the smaller exponent bias by 2**112.

    Inf and NaN come out as finite numbers from 65,536 on.
    """
    x = scratch.get(room, np.float32, values.size)
    bits = x.view(np.int32)
    np.copyto(bits, values.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _HALF_MASK, out=bits)
    return np.multiply(x, np.float32(2.0**112), out=x)


DECODERS: dict[str, Callable[..., Array]] = {"float32": _as_is, "bfloat16": _widened, "float16": _half}
"""Each of (values, scratch, room): what gives them as float32, in the buffer called `room` where they are not yet."""
LIMITS = {"float16": 65504.0}

"""The state of a block of a pair of ordinary numbers by float32 arithmetic, in which counts are exact all the same."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.analyzers.compare.state import PairState, PairSums
from weighttools.analyzers.kernels import blocked
from weighttools.analyzers.kernels.meanings import meanings
from weighttools.core.scratch import Scratch

if TYPE_CHECKING:
    from weighttools.core.spec import Array


def quick_state(before: Array, after: Array, start: int, n_bits: int | None, scratch: Scratch) -> PairState | None:
    """Return the state of finite values by float32 arithmetic; None where a magnitude does not allow it.

    Sums are those of `weighttools.analyzers.kernels.blocked`, within 1e-7 of themselves. Counts and the greatest
    difference are exact: a difference rounded to float32 is 0 only of equal values, and rounding keeps the order, so
    that the greatest is among those that are the greatest in float32. Differences beyond tolerances are not counted.
    """
    a, b = _float32(before, "before", scratch), _float32(after, "after", scratch)
    square_a = blocked.sum_of_products(a, a)
    square_b = square_a if n_bits == 0 else blocked.sum_of_products(b, b)
    if not (_is_safe(a, square_a, before) and _is_safe(b, square_b, after)):
        return None
    zeros_a = _zeros(a, scratch)
    if n_bits == 0:
        sums = PairSums(0.0, square_a, square_a, square_a)
        return PairState(a.size, 0, 0, 0, 0, zeros_a, zeros_a, 0, 0.0, start, sums)
    zeros_b = _zeros(b, scratch)
    is_told = n_bits is not None and before.itemsize > 1 and not (zeros_a and zeros_b)  # one value, other bits: zeros
    n_changed = n_bits if n_bits is not None and is_told else count_unequal(a, b, scratch)
    d = np.subtract(b, a, out=scratch.get("pair difference", np.float32, a.size))
    top, at = greatest_difference(before, after, d, scratch)
    if top and top < blocked.LEAST_SAFE:
        return None
    zeroed = int(np.count_nonzero(a[b == 0])) if zeros_b else 0
    sums = PairSums(blocked.sum_of_products(d, d), square_a, square_b, blocked.sum_of_products(a, b))
    return PairState(a.size, n_bits, n_changed, n_changed, 0, zeros_a, zeros_b, zeroed, top, start + at, sums)


def is_narrow(dtype: Any) -> bool:
    """Whether float32 holds all values of a dtype, and they are quickly had: floats of 32 and 16 bits, all of 8."""
    return dtype.name in blocked.DECODERS or dtype.itemsize == 1


def _float32(values: Array, which: str, scratch: Scratch) -> Array:
    if values.dtype == np.float32:
        return values
    if values.dtype.itemsize == 1:
        x = scratch.get(f"pair {which}", np.float32, values.size)
        return np.take(_float32_meanings(values.dtype), values.view(np.uint8), out=x, mode="clip")
    found: Array = blocked.DECODERS[values.dtype.name](values, scratch, f"pair {which}")
    return found


@cache
def _float32_meanings(dtype: Any) -> Array:
    """Return what the 256 bit patterns of a dtype mean."""
    found: Array = meanings(dtype).values.astype(np.float32)
    return found


def _is_safe(x: Array, square: float, values: Array) -> bool:
    """Whether the squares neither overflow nor vanish; mostly their sum alone tells."""
    limit = blocked.LIMITS.get(values.dtype.name, blocked.GREATEST_SAFE)
    if blocked.LEAST_SAFE**2 * x.size <= square <= limit**2:
        return True
    top = _greatest(x)
    return top == 0 or blocked.LEAST_SAFE <= top <= limit


def _greatest(x: Array) -> float:
    return max(-float(np.minimum.reduce(x)), float(np.maximum.reduce(x)))


def _zeros(x: Array, scratch: Scratch) -> int:
    return int(np.count_nonzero(np.equal(x, 0, out=scratch.get("pair mask", np.bool_, x.size))))


def count_unequal(a: Array, b: Array, scratch: Scratch) -> int:
    """Count the elements that are not equal."""
    return int(np.count_nonzero(np.not_equal(a, b, out=scratch.get("pair mask", np.bool_, a.size))))


def greatest_difference(before: Array, after: Array, d: Array, scratch: Scratch) -> tuple[float, int]:
    """Return the greatest magnitude of a difference in float64, and where the first such is, from those in float32."""
    least, greatest = float(np.minimum.reduce(d)), float(np.maximum.reduce(d))
    top = max(-least, greatest)
    if not top:
        return 0.0, 0
    mask = scratch.get("pair mask", np.bool_, d.size)
    near = [np.flatnonzero(np.equal(d, end, out=mask)) for end in (least, greatest) if abs(end) == top]
    at = near[0] if len(near) == 1 else np.union1d(*near)
    exact_ones = np.abs(after[at].astype(np.float64) - before[at].astype(np.float64))
    first = int(np.argmax(exact_ones))
    return float(exact_ones[first]), int(at[first])

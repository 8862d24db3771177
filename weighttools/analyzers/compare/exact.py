"""The state of a block of a pair in float64, a little at a time: of any dtype, and whatever the values are."""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weighttools.analyzers.compare.state import PairState, PairSums
from weighttools.analyzers.kernels import careful
from weighttools.analyzers.moments import safe_scale

if TYPE_CHECKING:
    from weighttools.core.spec import Array


def equal_state(values: Array, start: int) -> PairState:
    """Return the state of a block whose bits are the same on both sides."""
    at = range(start, start + values.size, careful.CHUNK)
    parts = (_equal_chunk(x, first) for x, first in zip(careful.chunks(values), at, strict=True))
    return reduce(PairState.merge, parts, PairState(0, 0))


_LEAST_SQUARE, _GREATEST_SQUARE = 1e-200, 1e200
"""Between these, a sum of squares tells that all values are finite, and that none need be scaled."""


def _equal_chunk(x: Array, start: int) -> PairState:
    n_zero = x.size - int(np.count_nonzero(x))
    square = careful.dot(x, x)
    if _is_ordinary(square):
        return PairState(x.size, 0, 0, 0, 0, n_zero, n_zero, 0, 0.0, start, PairSums(0.0, square, square, square))
    finite = np.isfinite(x)
    kept = x[finite]
    _, _, sums = _of_finite(kept, kept, np.zeros_like(kept))
    top, at = (0.0, start + int(np.argmax(finite))) if kept.size else (None, None)
    return PairState(x.size, 0, 0, 0, x.size - kept.size, n_zero, n_zero, 0, top, at, sums)


def exact_state(before: Array, after: Array, start: int, rtol: float, atol: float) -> PairState:
    """Return the state of a block in float64, `careful.CHUNK` elements at a time; bits are not counted."""
    parts = []
    for first in range(0, before.size, careful.CHUNK):
        cut = slice(first, first + careful.CHUNK)
        parts.append(_chunk(before[cut], after[cut], start + first, rtol, atol))
    return reduce(PairState.merge, parts, PairState(0, 0))


class _Sides(NamedTuple):
    """Elements of both sides as float64 or complex128, their differences' magnitudes, and where values differ."""

    before: Array
    after: Array
    difference: Array
    is_changed: Array


def _chunk(before: Array, after: Array, start: int, rtol: float, atol: float) -> PairState:
    sides = _sides(before, after)
    found = None if sides.before.dtype.kind == "c" or sides.after.dtype.kind == "c" else _ordinary(sides, start)
    if found is None:
        return _any_chunk(sides, start, rtol, atol)
    if not (rtol or atol):
        return found
    x, _, d, is_changed = sides
    return found._replace(n_beyond=int(np.count_nonzero(is_changed & (d > atol + rtol * np.abs(x)))))


def _ordinary(sides: _Sides, start: int) -> PairState | None:
    """Return the state of a chunk of which sums of squares tell that all is finite and none need be scaled, or None."""
    x, y, d, is_changed = sides
    squares = careful.dot(x, x), careful.dot(y, y), careful.dot(d, d)
    n_changed = int(np.count_nonzero(is_changed))
    if not (_is_ordinary(squares[0]) and _is_ordinary(squares[1]) and (_is_ordinary(squares[2]) or not n_changed)):
        return None
    is_zero_x, is_zero_y = x == 0, y == 0
    n_zero_x, n_zero_y = int(np.count_nonzero(is_zero_x)), int(np.count_nonzero(is_zero_y))
    n_zeroed = int(np.count_nonzero(is_zero_y & ~is_zero_x)) if n_zero_y else 0
    at = int(np.argmax(d))
    sums = PairSums(squares[2], squares[0], squares[1], careful.dot(x, y))
    counts = (x.size, 0, n_changed, n_changed, 0, n_zero_x, n_zero_y, n_zeroed)
    return PairState(*counts, float(d[at]), start + at, sums)


def _is_ordinary(square: float) -> bool:
    return _LEAST_SQUARE < square < _GREATEST_SQUARE


def _any_chunk(sides: _Sides, start: int, rtol: float, atol: float) -> PairState:
    x, y, d, is_changed = sides
    finite = np.isfinite(x) & np.isfinite(y)
    is_nan = np.isnan(x) & np.isnan(y)
    is_changed &= ~is_nan
    near = (d <= atol + rtol * np.abs(x)) & finite
    top, at, sums = _of_finite(x[finite], y[finite], d[finite])
    is_broken = is_changed & ~finite
    return PairState(
        x.size,
        0,
        int(np.count_nonzero(is_changed)),
        int(np.count_nonzero(is_changed & ~near)),
        x.size - int(np.count_nonzero(finite)),
        int(np.count_nonzero(x == 0)),
        int(np.count_nonzero(y == 0)),
        int(np.count_nonzero((y == 0) & (x != 0))),
        top,
        None if at is None else start + int(np.flatnonzero(finite)[at]),
        sums,
        start + int(np.argmax(is_broken)) if is_broken.any() else None,
    )


def count_beyond(before: Array, after: Array, rtol: float, atol: float) -> int:
    """Count the elements beyond the tolerances, of finite real numbers."""
    pairs = zip(careful.chunks(before), careful.chunks(after), strict=True)
    return sum(int(np.count_nonzero(np.abs(y - x) > atol + rtol * np.abs(x))) for x, y in pairs)


def _of_finite(x: Array, y: Array, d: Array) -> tuple[float | None, int | None, PairSums]:
    """Return the greatest difference, where it is, and the sums, of values that are finite on both sides."""
    if not d.size:
        return None, None, PairSums()
    at = int(np.argmax(d))
    a, b = np.abs(x), np.abs(y)
    one, two = (safe_scale(math.frexp(float(side.max()))[1]) if side.any() else 0 for side in (a, b))
    shrunk = d
    if one or two:
        x, a, y, b = _scaled(x, -one), _scaled(a, -one), _scaled(y, -two), _scaled(b, -two)
        shrunk = _scaled(d, -max(one, two))
    product = (x * np.conj(y)).real
    sums = (careful.dot(shrunk, shrunk), careful.dot(a, a), careful.dot(b, b), float(np.add.reduce(product)))
    return float(d[at]), at, PairSums(*sums, one, two)


def _scaled(x: Array, by: int) -> Array:
    if x.dtype.kind == "c":
        found: Array = np.ldexp(x.real, by) + 1j * np.ldexp(x.imag, by)
        return found
    return np.ldexp(x, by)


def _sides(before: Array, after: Array) -> _Sides:
    """Widen both sides, and say where they differ; 64-bit integers are compared as integers."""
    x, y = careful.widened(before), careful.widened(after)
    if before.dtype.kind in "iu" and after.dtype.kind in "iu" and _is_long(before, after):
        return _Sides(x, y, _integer_distances(before, after), before != after)
    is_changed, distances = x != y, y - x
    if _is_long(before, after):
        x_rest, y_rest = _rounded_off(before, x), _rounded_off(after, y)
        is_changed |= (x_rest != 0) | (y_rest != 0)
        distances = distances + (y_rest - x_rest)
    return _Sides(x, y, np.abs(distances), is_changed)


def _is_long(*sides: Array) -> bool:
    return any(side.dtype.kind in "iu" and side.dtype.itemsize == 8 for side in sides)


def _integer_distances(before: Array, after: Array) -> Array:
    """Return how far integers lie apart, rounded once from the exact difference."""
    is_less = before < after
    a, b = before.astype(np.uint64), after.astype(np.uint64)  # modulo 2**64, in which the distance is exact
    return np.where(is_less, b - a, a - b).astype(np.float64)


def _rounded_off(values: Array, wide: Array) -> Array:
    """Return by how much 64-bit integers are more than the float64 next to them; nothing of other dtypes.

    An integer of which something is rounded off equals no float: floats next to it are floats next to float64 too.
    """
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8:
        return np.zeros(values.size)
    high = np.floor(wide * 2.0**-32)
    low = wide - high * 2.0**32
    near = (high.astype(np.int64).view(np.uint64) << np.uint64(32)) + low.astype(np.uint64)  # modulo 2**64
    return (values.astype(np.uint64) - near).view(np.int64).astype(np.float64)

"""All in float64, for what the fast kernels do not take: other dtypes, small blocks, NaN, Inf, extreme magnitudes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighttools.analyzers.extremes import Extremes
from weighttools.analyzers.kernels.summary import EMPTY, Summary, Sums
from weighttools.analyzers.moments import Moments, safe_scale
from weighttools.analyzers.zeros import Zeros
from weighttools.core.scratch import Scratch

if TYPE_CHECKING:
    from weighttools.core.spec import Array

CHUNK = 1 << 13
"""Elements held as float64 at a time: what is made of them is small enough for malloc to give the same pages again."""

SMALL = 1 << 15
"""Blocks up to this many elements are always done here: exactness costs nothing there."""

Kernel = Callable[["Array", float, float, Scratch], Sums | None]
"""(values, eps, tiny, scratch) -> sums, or None where it cannot be exact enough."""


def or_fast(kernel: Kernel, values: Array, start: int, eps: float, scratch: Scratch) -> Summary:
    """Return a block's summary by `kernel` where it is exact enough, else in float64.

    Parameters
    ----------
    kernel
        A fast kernel for large blocks of float32, bfloat16 and float16.
    values, start
        The block, and the position of its first element in the tensor.
    eps
        Magnitudes up to this count as near zero.
    scratch
        The thread's buffers.
    """
    tiny = smallest_normal(values.dtype)
    if values.size > SMALL and values.dtype.name in FAST_DTYPES:
        sums = kernel(values, eps, tiny, scratch)
        if sums is not None and sums.total * sums.total <= 0.5 * values.size * sums.sq:
            return _from_sums(values.size, sums)
    return summary(values, start, eps)


FAST_DTYPES = frozenset({"float32", "bfloat16", "float16"})


def _from_sums(n: int, sums: Sums) -> Summary:
    """Return the summary of `n` finite values; their mean is near enough to zero that no digits cancel in `m2`."""
    mean = sums.total / n
    return Summary(
        Moments(n, n, mean, max(0.0, sums.sq - sums.total * mean), sums.l1, sums.sq),
        Extremes(sums.least + 0.0, sums.greatest + 0.0, n_subnormal=sums.n_subnormal),
        Zeros(n, sums.n_zero, sums.n_near),
    )


def summary(values: Array, start: int, eps: float) -> Summary:
    """Return a block's summary in float64, whatever its dtype and values."""
    tiny = smallest_normal(values.dtype)
    at = range(start, start + values.size, CHUNK)
    parts = (_chunk(x, first, eps, tiny) for x, first in zip(chunks(values), at, strict=True))
    whole = reduce(Summary.merge, parts, EMPTY)
    if values.dtype.kind in "iu" and values.size:  # float64 does not hold every 64-bit integer
        extremes = whole.extremes._replace(least=int(values.min()), greatest=int(values.max()))
        return whole._replace(extremes=extremes, moments=_exact(whole.moments, values))
    return whole


class Offsets(NamedTuple):
    """Integers as distances from the least of them, which float64 holds to a part in 2**53."""

    origin: int
    distances: Array


def offsets(values: Array) -> Offsets | None:
    """Return integers that float64 does not hold as distances from their least; None for all else."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or not values.size:
        return None
    least = int(values.min())
    if max(-least, int(values.max())) <= 1 << 53:
        return None
    return Offsets(least, (values.view(np.uint64) - np.uint64(least % (1 << 64))).astype(np.float64))


def _exact(moments: Moments, values: Array) -> Moments:
    """Return moments whose mean and variance are those of the integers, and not of what float64 makes of them."""
    found = offsets(values)
    if found is None:
        return moments
    mean = float(np.add.reduce(found.distances)) / values.size
    away = found.distances - mean
    return moments._replace(mean=mean, m2=dot(away, away), origin=found.origin)


def chunks(values: Array) -> Iterator[Array]:
    """Yield the values as float64, `CHUNK` at a time; complex numbers as magnitudes."""
    widen = _WIDEN.get(values.dtype.kind, _bytes if values.dtype.itemsize == 1 else _numbers)
    for first in range(0, values.size, CHUNK):
        yield widen(values[first : first + CHUNK])


def widened(values: Array) -> Array:
    """Return all values as float64, complex numbers as complex128."""
    if values.dtype.kind == "c":
        return values.astype(np.complex128)
    parts = list(chunks(values))
    return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0)


def _numbers(part: Array) -> Array:
    return part.astype(np.float64)


def _magnitudes(part: Array) -> Array:
    return np.abs(part.astype(np.complex128))


def _bytes(part: Array) -> Array:
    """Look elements of one byte up: several times as fast as casting 8-bit floats one by one."""
    from weighttools.analyzers.kernels.meanings import meanings

    found: Array = meanings(part.dtype).values[part.view(np.uint8)]
    return found


_WIDEN: dict[str, Callable[[Array], Array]] = {"c": _magnitudes}


@cache
def smallest_normal(dtype: Any) -> float:
    """Return the smallest normal magnitude of a dtype: below it, and above zero, lie the subnormals; 0 for integers."""
    import ml_dtypes

    if dtype.kind in "iubc":
        return 0.0
    return float(ml_dtypes.finfo(dtype).smallest_normal)  # type: ignore[no-untyped-call]


def _chunk(x: Array, start: int, eps: float, tiny: float) -> Summary:
    finite = np.isfinite(x)
    whole = bool(finite.all())
    kept = x if whole else x[finite]
    magnitude = np.abs(kept)
    n_zero = x.size - int(np.count_nonzero(x))
    n_subnormal = int(np.count_nonzero(magnitude < tiny)) - n_zero if tiny else 0
    zeros = Zeros(x.size, n_zero, int(np.count_nonzero(magnitude <= eps)))
    extremes = ends(kept)._replace(n_subnormal=n_subnormal)
    if not whole:
        extremes = extremes.merge(_not_finite(x, start))
    return Summary(_moments(kept, magnitude, x.size, extremes), extremes, zeros)


def ends(kept: Array) -> Extremes:
    """Return the least and the greatest of finite values, with -0.0 as 0.0."""
    return Extremes(float(kept.min()) + 0.0, float(kept.max()) + 0.0) if kept.size else Extremes()


def _not_finite(x: Array, start: int) -> Extremes:
    nan, inf = np.flatnonzero(np.isnan(x)), np.flatnonzero(np.isinf(x))
    return Extremes(
        n_nan=nan.size,
        n_inf=inf.size,
        first_nan=start + int(nan[0]) if nan.size else None,
        first_inf=start + int(inf[0]) if inf.size else None,
    )


def _moments(kept: Array, magnitude: Array, count: int, extremes: Extremes) -> Moments:
    least, greatest = extremes.least, extremes.greatest
    if least is None or greatest is None:
        return Moments(count)
    scale = safe_scale(math.frexp(max(-least, greatest))[1])
    if scale:
        kept, magnitude = np.ldexp(kept, -scale), np.ldexp(magnitude, -scale)
    n = kept.size
    mean = float(kept[0]) if least == greatest else float(np.add.reduce(kept)) / n
    away = kept - mean
    l1 = float(np.add.reduce(magnitude))
    return Moments(count, n, mean, dot(away, away), l1, dot(kept, kept), scale)


def dot(a: Array, b: Array) -> float:
    """Return the sum of products, added pairwise: `numpy.dot` would start BLAS threads, and sum by their number."""
    return float(np.add.reduce(a * b))

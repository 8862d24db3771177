"""Arithmetic, shapes, sums and picking on plain arrays, each with its pullback: what a variable's operators do.

Where a function's array is only needed for its shape, the shape is taken out first: a closure that mentions
``x.shape`` would keep ``x`` alive until the backward pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array, Pullback
from weighttools.train.parallel import added

Result = tuple[Any, Pullback]


def unbroadcast(grad: Any, shape: tuple[int, ...]) -> Any:
    """Sum `grad` over the axes along which an array of `shape` was repeated."""
    if grad.shape == shape:
        return grad
    grad = grad.sum(tuple(range(grad.ndim - len(shape))))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and grad.shape[i] != 1)
    return grad.sum(repeated, keepdims=True) if repeated else grad


def add(a: Array, b: Array, /) -> Result:
    """Return ``a + b``, broadcast."""
    shapes = np.shape(a), np.shape(b)
    y = added(a, b) if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) else a + b
    return y, lambda dy, need: [unbroadcast(dy, s) if n else None for s, n in zip(shapes, need, strict=True)]


def sub(a: Array, b: Array, /) -> Result:
    """Return ``a - b``, broadcast."""
    shape_a, shape_b = np.shape(a), np.shape(b)

    def pullback(dy: Array, need: Any) -> Any:
        return unbroadcast(dy, shape_a) if need[0] else None, unbroadcast(-dy, shape_b) if need[1] else None

    return a - b, pullback


def mul(a: Array, b: Array, /) -> Result:
    """Return ``a * b``, broadcast."""

    def pullback(dy: Array, need: Any) -> Any:
        return (
            unbroadcast(dy * b, np.shape(a)) if need[0] else None,
            unbroadcast(dy * a, np.shape(b)) if need[1] else None,
        )

    return a * b, pullback


def div(a: Array, b: Array, /) -> Result:
    """Return ``a / b``, broadcast."""
    y, shape_a, shape_b = a / b, np.shape(a), np.shape(b)

    def pullback(dy: Array, need: Any) -> Any:
        da = dy / b
        return unbroadcast(da, shape_a) if need[0] else None, unbroadcast(-da * y, shape_b) if need[1] else None

    return y, pullback


def matmul(a: Array, b: Array, /) -> Result:
    """Return the matrix product ``a @ b`` over the last two axes (both at least 2-d), broadcast over the others."""

    def pullback(dy: Array, need: Any) -> Any:
        return (
            unbroadcast(dy @ b.swapaxes(-1, -2), a.shape) if need[0] else None,
            unbroadcast(a.swapaxes(-1, -2) @ dy, b.shape) if need[1] else None,
        )

    if min(a.ndim, b.ndim) < 2:
        raise ValueError("a matrix product needs two axes at least")
    return a @ b, pullback


def power(x: Array, /, *, exponent: float) -> Result:
    """Return `x` to the power of a number.

    Raises
    ------
    SpecError
        `exponent` is no real number.
    """
    if not isinstance(exponent, (int, float, np.integer, np.floating)):
        raise SpecError(f"an exponent {exponent!r}", subject="power", expected="a number", remedy="exp(y * log(x))")
    n = exponent.item() if isinstance(exponent, np.generic) else exponent  # NumPy's own would widen the result
    return x**n, lambda dy, need: (dy * (n * x ** (n - 1)) if n else np.zeros_like(dy),)


def absolute(x: Array, /) -> Result:
    """Return the absolute value; the derivative at 0 is 0."""
    return np.abs(x), lambda dy, need: (dy * np.sign(x),)


def reshape(x: Array, /, *, shape: tuple[int, ...]) -> Result:
    """Return `x` with another shape; one length may be -1."""
    before = x.shape
    return x.reshape(shape), lambda dy, need: (dy.reshape(before),)


def transpose(x: Array, /, *, axes: tuple[int, ...] = ()) -> Result:
    """Return `x` with its axes in another order; reversed when none is given."""
    order = axes or tuple(reversed(range(x.ndim)))
    back = tuple(int(i) for i in np.argsort([a % x.ndim for a in order]))
    return x.transpose(order), lambda dy, need: (dy.transpose(back),)


def take(x: Array, /, *, key: Any) -> Result:
    """Return ``x[key]``, NumPy indexing; an element picked twice gets the sum of both gradients."""
    shape, dtype = x.shape, x.dtype
    parts = key if isinstance(key, tuple) else (key,)
    is_view = all(isinstance(k, (int, np.integer, slice, type(None), type(...))) for k in parts)

    def pullback(dy: Array, need: Any) -> Any:
        dx = np.zeros(shape, dtype)
        if is_view:
            dx[key] = dy
        else:
            np.add.at(dx, key, dy)
        return (dx,)

    return x[key], pullback


def sum(x: Array, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Result:
    """Return the sum over `axis` (all)."""
    shape = x.shape

    def pullback(dy: Any, need: Any) -> Any:
        return (np.broadcast_to(dy if keepdims or axis is None else np.expand_dims(dy, axis), shape),)

    return x.sum(axis, keepdims=keepdims), pullback

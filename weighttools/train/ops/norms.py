"""Normalisation over the last axis, or by a channel's own figures, and softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from weighttools.train.autograd.arithmetic import Result
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.operands import floats
from weighttools.train.autograd.variable import operation
from weighttools.train.ops.dense import column_sums
from weighttools.train.parallel import blocks, scratch, spread


def _inverse_rms(h: Array, eps: float, out: Array) -> None:
    """Fill `out` with 1 / sqrt(mean of squares + eps) of each row."""
    np.vecdot(h, h, out=out)
    out /= h.shape[1]
    out += eps
    np.sqrt(out, out=out)
    np.reciprocal(out, out=out)


def _check(name: str, x: Array, n: int, *vectors: Any) -> None:
    """Raise unless `x` is floating and each of `vectors` has a number for each of n."""
    floats(name, x)
    if any(np.shape(v) != (n,) for v in vectors if v is not None):
        raise ValueError(f"weights and biases of shape {(n,)} are wanted")


@operation
def layer_norm(x: Array, w: Array, b: Array | None = None, /, *, eps: float = 1e-5, keep: bool) -> Result:
    """Return ``(x - mean) / sqrt(variance + eps) * w + b`` over the last axis of length n.

    `w` and `b` are (n,); without `b` nothing is added.

    References
    ----------
    Ba, Kiros and Hinton, Layer Normalization, arXiv:1607.06450, equation 4. The variance is the biased one.
    """
    n = x.shape[-1]
    _check("layer_norm", x, n, w, b)
    rows, y, r = x.reshape(-1, n), np.empty(x.shape, x.dtype), np.empty(x.size // max(1, n), x.dtype)
    flat_y, h, mean = (
        y.reshape(-1, n),
        np.empty((len(r), n), x.dtype) if keep else None,
        np.full(n, 1 / max(1, n), x.dtype),
    )

    def kernel(start: int, stop: int) -> None:
        out = flat_y[start:stop]
        t = out if h is None else h[start:stop]
        np.subtract(rows[start:stop], (rows[start:stop] @ mean)[:, None], out=t)
        _inverse_rms(t, eps, r[start:stop])
        t *= r[start:stop, None]
        np.multiply(t, w, out=out)
        if b is not None:
            out += b

    spread(kernel, blocks(len(r), n))
    return y, lambda dy, need: _norm_back(dy, h, r, w, need, centred=True)[: len(need)]


@operation
def rms_norm(x: Array, w: Array, /, *, eps: float = 1e-5, keep: bool) -> Result:
    """Return ``x / sqrt(mean(x**2) + eps) * w`` over the last axis of length n; `w` is (n,).

    References
    ----------
    Zhang and Sennrich, Root Mean Square Layer Normalization, arXiv:1910.07467, equation 4.
    """
    n = x.shape[-1]
    _check("rms_norm", x, n, w)
    rows, y, r = x.reshape(-1, n), np.empty(x.shape, x.dtype), np.empty(x.size // max(1, n), x.dtype)
    flat_y, h = y.reshape(-1, n), np.empty((len(r), n), x.dtype) if keep else None

    def kernel(start: int, stop: int) -> None:
        out = flat_y[start:stop]
        t = out if h is None else h[start:stop]
        _inverse_rms(rows[start:stop], eps, r[start:stop])
        np.multiply(rows[start:stop], r[start:stop, None], out=t)
        np.multiply(t, w, out=out)

    spread(kernel, blocks(len(r), n))
    return y, lambda dy, need: _norm_back(dy, h, r, w, need, centred=False)[:2]


def _norm_back(dy: Array, h: Any, r: Array, w: Array, need: Any, centred: bool) -> tuple[Any, Any, Any]:
    """Return the gradients of x, w and b from the normalised rows `h` and the inverse deviations `r`.

    dx = r (g - mean(g) - h mean(g h)) with g = dy w; without centring the first mean is not taken off.
    """
    n = h.shape[1]
    d, dx, mean = dy.reshape(-1, n), np.empty(h.shape, h.dtype), np.full(n, 1 / max(1, n), h.dtype)
    spans = [(start, stop, i) for i, (start, stop) in enumerate(blocks(len(h), n))]
    dw, db = np.zeros((2, max(1, len(spans)), n if any(need[1:]) else 0), h.dtype)

    def kernel(start: int, stop: int, i: int) -> None:
        at = slice(start, stop)
        out, (t,) = dx[at], scratch((stop - start, n), 1, h.dtype)
        if any(need[1:]):
            db[i] = column_sums(d[at])
            np.multiply(d[at], h[at], out=t)
            dw[i] = column_sums(t)
        if need[0]:
            np.multiply(d[at], w, out=out)
            along = np.vecdot(out, h[at])
            along /= n
            if centred:
                out -= (out @ mean)[:, None]
            np.multiply(h[at], along[:, None], out=t)
            out -= t
            out *= r[at, None]

    spread(kernel, spans)
    sums = (dw.sum(0), db.sum(0)) if any(need[1:]) else (None, None)
    return dx.reshape(dy.shape) if need[0] else None, *sums


@operation
def batch_norm(x: Array, w: Array, b: Array, mean: Array, variance: Array, /, *, eps: float = 1e-5) -> Result:
    """Return ``(x - mean) / sqrt(variance + eps) * w + b``, as batch normalisation has it once it is trained.

    Parameters
    ----------
    x
        (batch, channels, \\*space).
    w, b, mean, variance
        (channels,). The last two are the running figures of the file: constants, through which no gradient flows.

    References
    ----------
    Ioffe and Szegedy, Batch Normalization, arXiv:1502.03167, algorithm 2.
    """
    _check("batch_norm", x, x.shape[1], w, b, mean, variance)
    column, axes = (-1, *(1,) * (x.ndim - 2)), (0, *range(2, x.ndim))
    r, centre = (1 / np.sqrt(variance + eps)).astype(x.dtype), mean.reshape(column)
    factor = (w * r).astype(x.dtype, copy=False).reshape(column)
    y = np.subtract(x, centre, dtype=x.dtype)
    y *= factor
    y += b.reshape(column)

    def pullback(dy: Array, need: Any) -> Any:
        dw = (dy * np.subtract(x, centre, dtype=x.dtype)).sum(axes) * r if need[1] else None
        return dy * factor if need[0] else None, dw, dy.sum(axes) if need[2] else None, None, None

    return y, pullback


@operation
def softmax(x: Array, /) -> Result:
    """Return ``exp(x) / sum(exp(x))`` over the last axis."""
    floats("softmax", x)
    y = x - x.max(-1, keepdims=True, initial=-np.inf) if x.size else x.copy()
    np.exp(y, out=y)
    y /= y.sum(-1, keepdims=True)
    return y, lambda dy, need: (y * (dy - np.vecdot(dy, y)[..., None]),)


@operation
def log_softmax(x: Array, /) -> Result:
    """Return ``x - log(sum(exp(x)))`` over the last axis."""
    floats("log_softmax", x)
    y = x - x.max(-1, keepdims=True, initial=-np.inf) if x.size else x.copy()
    y -= np.log(np.exp(y).sum(-1, keepdims=True))
    return y, lambda dy, need: (dy - np.exp(y) * dy.sum(-1, keepdims=True),)


@operation
def normalize(x: Array, /, *, eps: float = 1e-12) -> Result:
    """Return `x` divided by the Euclidean length of its last axis, or by `eps` where that is larger."""
    length = np.maximum(np.sqrt(np.vecdot(x, x)), eps)[..., None]
    y = x / length

    def pullback(dy: Array, need: Any) -> Any:
        along = np.where(length > eps, np.vecdot(dy, y)[..., None], 0)
        return ((dy - y * along) / length,)

    return y, pullback

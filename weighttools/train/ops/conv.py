"""Convolution and pooling over one or more spatial axes: arrays are (batch, channels, *space)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from weighttools.train.autograd.arithmetic import Result
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.operands import floats
from weighttools.train.autograd.variable import operation

Sizes = int | tuple[int, ...]


def _each(value: Sizes, n: int) -> tuple[int, ...]:
    """Return one number an axis."""
    values = tuple(value) if hasattr(value, "__iter__") else (value,) * n
    if len(values) != n or not all(isinstance(v, (int, np.integer)) for v in values):
        raise ValueError(f"{value} where {n} whole numbers are wanted")
    return tuple(map(int, values))


class _Window:
    """Where a window of `size` falls on an input of `space`: its steps, padding and results."""

    def __init__(
        self, space: tuple[int, ...], size: tuple[int, ...], stride: Sizes, padding: Sizes, dilation: Sizes
    ) -> None:
        n = len(space)
        self.space, self.size = space, size
        self.stride, self.padding, self.dilation = _each(stride, n), _each(padding, n), _each(dilation, n)
        self.padded = tuple(s + 2 * p for s, p in zip(space, self.padding, strict=True))
        if not space or min(*self.stride, *self.dilation, *size) < 1 or min(self.padding) < 0:
            raise ValueError("a batch, channels, space and a positive size, stride and dilation are wanted")
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, size, strict=True)]
        self.out = tuple((s - r) // t + 1 for s, r, t in zip(self.padded, reach, self.stride, strict=True))
        if min(self.out) < 1:
            raise ValueError(f"a window of {size} on {self.padded}")

    def places(self) -> Iterator[tuple[tuple[int, ...], Any]]:
        """Yield for each offset in the window the index that picks its element under every window."""
        for offset in itertools.product(*map(range, self.size)):
            picks = zip(offset, self.dilation, self.stride, self.out, strict=True)
            yield offset, (..., *(slice(i * d, i * d + (o - 1) * s + 1, s) for i, d, s, o in picks))

    def pad(self, x: Array, value: float = 0) -> Array:
        """Return `x` with its borders; itself where there are none."""
        if not any(self.padding):
            return x
        return np.pad(x, [(0, 0), (0, 0), *((p, p) for p in self.padding)], constant_values=value)

    def cut(self, x: Array) -> Array:
        """Take the borders off again."""
        inner: tuple[Any, ...] = (..., *(slice(p, p + s) for p, s in zip(self.padding, self.space, strict=True)))
        kept: Array = x[inner]
        return kept


def _columns(x: Array, window: _Window, groups: int) -> Array:
    """Return what each window sees: (groups, channels of a group * window, batch * results)."""
    x, (batch, channels) = window.pad(x), x.shape[:2]
    columns = np.empty((channels, *window.size, batch, *window.out), x.dtype)
    by_channel = x.swapaxes(0, 1)
    for offset, place in window.places():
        at: tuple[Any, ...] = (slice(None), *offset)
        columns[at] = by_channel[place]
    return columns.reshape(groups, channels // groups * math.prod(window.size), batch * math.prod(window.out))


def _uncolumns(columns: Array, shape: tuple[int, ...], window: _Window) -> Array:
    """Add every window's elements back to where they were seen: the transpose of `_columns`."""
    batch, channels = shape[:2]
    columns = columns.reshape(channels, *window.size, batch, *window.out)
    dx = np.zeros((batch, channels, *window.padded), columns.dtype)
    by_channel = dx.swapaxes(0, 1)
    for offset, place in window.places():
        at: tuple[Any, ...] = (slice(None), *offset)
        by_channel[place] += columns[at]
    return window.cut(dx)


@operation
def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    /,
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Result:
    """Return the cross-correlation of `x` with the kernels `w`, plus `b`: what deep learning calls convolution.

    Parameters
    ----------
    x
        (batch, channels_in, \\*space); one, two or more spatial axes.
    w
        (channels_out, channels_in / groups, \\*window), as torch files store it.
    b
        (channels_out,), or none.
    stride, padding, dilation
        One number, or one for each spatial axis. Padding is zeros on both sides.
    groups
        Channels are split into so many parts that do not mix.

    Notes
    -----
    One matrix product over the unfolded windows, which are made again for the backward pass, not kept.
    """
    if groups < 1 or x.ndim != w.ndim or x.ndim < 3 or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ValueError(f"channels do not fit {groups} groups")
    if b is not None and np.shape(b) != (w.shape[0],):
        raise ValueError(f"a bias of shape {(w.shape[0],)} is wanted")
    window = _Window(x.shape[2:], w.shape[2:], stride, padding, dilation)
    kernels = w.reshape(groups, w.shape[0] // groups, -1)
    y = np.matmul(kernels, _columns(x, window, groups)).reshape(w.shape[0], len(x), *window.out).swapaxes(0, 1)

    def pullback(dy: Array, need: Any) -> Any:
        d = dy.swapaxes(0, 1).reshape(groups, w.shape[0] // groups, -1)
        dx = _uncolumns(np.matmul(kernels.swapaxes(1, 2), d), x.shape, window) if need[0] else None
        dw = np.matmul(d, _columns(x, window, groups).swapaxes(1, 2)).reshape(w.shape) if need[1] else None
        db = d.sum(-1).reshape(-1) if b is not None and need[2] else None
        return (dx, dw, db)[: len(need)]

    if b is not None:
        y = y + b.reshape(-1, *(1,) * (x.ndim - 2))
    return y, pullback


@operation
def max_pool(x: Array, /, *, size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> Result:
    """Return each window's largest element; of equal ones the first gets the gradient.

    `stride` is the window's `size` unless given; padding never wins.
    """
    floats("max_pool", x)
    window = _Window(x.shape[2:], _each(size, x.ndim - 2), size if stride is None else stride, padding, 1)
    shape, dtype = x.shape, x.dtype
    padded = window.pad(x, -np.inf)
    y = np.full((*shape[:2], *window.out), -np.inf, dtype)
    first = np.zeros(y.shape, np.int32)
    for i, (_, place) in enumerate(window.places()):
        better = ~(padded[place] <= y)  # so that NaN wins, and stays
        better &= ~np.isnan(y)
        np.copyto(y, padded[place], where=better)
        first[better] = i

    def pullback(dy: Array, need: Any) -> Any:
        dx = np.zeros((*shape[:2], *window.padded), dtype)
        for i, (_, place) in enumerate(window.places()):
            dx[place] += dy * (first == i)
        return (window.cut(dx),)

    return y, pullback


@operation
def avg_pool(x: Array, /, *, size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> Result:
    """Return each window's mean, counting padding as zeros; `stride` is the window's `size` unless given."""
    floats("avg_pool", x)
    window = _Window(x.shape[2:], _each(size, x.ndim - 2), size if stride is None else stride, padding, 1)
    shape, dtype, share = x.shape, x.dtype, 1 / math.prod(window.size)
    padded = window.pad(x)
    y = np.zeros((*shape[:2], *window.out), dtype)
    for _, place in window.places():
        y += padded[place]

    def pullback(dy: Array, need: Any) -> Any:
        dx, d = np.zeros((*shape[:2], *window.padded), dtype), dy * share
        for _, place in window.places():
            dx[place] += d
        return (window.cut(dx),)

    return y * share, pullback

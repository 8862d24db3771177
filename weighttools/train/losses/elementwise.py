"""Losses of each number by itself: errors, and yes-or-no answers from logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.arithmetic import Result
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.operands import floats
from weighttools.train.autograd.variable import operation
from weighttools.train.losses.weighting import normalised, positive, row_weights, times, within
from weighttools.train.ops.pointwise import logistic
from weighttools.transforms import initializer_ranges as ranges

Kernel = Callable[[Array, Array], tuple[Array, Array]]
"""``kernel(x, t)`` returns the losses and their derivatives by x, elementwise."""


def _elementwise(name: str, x: Array, target: Any, sample_weight: Any, reduction: str, kernel: Kernel) -> Result:
    """Return the weighted mean, or sum, of what `kernel` gives, and its pullback."""
    floats(name, x)
    t = np.asarray(target).astype(x.dtype)
    if t.shape != x.shape:
        raise SpecError(f"targets of shape {t.shape} for outputs of shape {x.shape}", subject=name, expected="equal")
    n = len(x) if x.ndim else 1
    each = row_weights(n, sample_weight, x.dtype, name).reshape((n, *(1,) * (x.ndim - 1)) if x.ndim else ())
    w = normalised(np.broadcast_to(each, x.shape), reduction, name)
    losses, grad = kernel(x, t)
    losses *= w
    grad *= w
    return x.dtype.type(losses.sum()), lambda dy, need: (times(grad, dy),)


@operation
def mse(x: Array, /, *, target: Any, sample_weight: Any = None, reduction: str = "mean") -> Result:
    """Return the weighted mean of squared errors.

    Parameters
    ----------
    x
        Outputs of any shape, the samples along the first axis.
    target
        What they should be, of the same shape and in the same unit; the loss is in its square.
    sample_weight
        A number of 0 or more for each sample, or for each equal run of samples.
    reduction
        ``"mean"`` or ``"sum"``.

    Raises
    ------
    SpecError
        The shapes differ, a weight is negative or not finite, or no sample counts.

    Notes
    -----
    ``sum(w (x - target)**2) / sum(w)``, with each sample's weight for all of its values.
    """

    def kernel(x: Array, t: Array) -> tuple[Array, Array]:
        d = np.asarray(x - t)
        return d * d, 2 * d

    return _elementwise("mse", x, target, sample_weight, reduction, kernel)


@operation
def mae(x: Array, /, *, target: Any, sample_weight: Any = None, reduction: str = "mean") -> Result:
    """Return the weighted mean of absolute errors.

    Parameters
    ----------
    x
        Outputs of any shape, the samples along the first axis.
    target
        What they should be, of the same shape and in the same unit, which is also the loss's.
    sample_weight
        A number of 0 or more for each sample, or for each equal run of samples.
    reduction
        ``"mean"`` or ``"sum"``.

    Raises
    ------
    SpecError
        The shapes differ, a weight is negative or not finite, or no sample counts.

    Notes
    -----
    ``sum(w abs(x - target)) / sum(w)``; the derivative at 0 is 0.
    """

    def kernel(x: Array, t: Array) -> tuple[Array, Array]:
        d = np.asarray(x - t)
        return np.abs(d), np.sign(d)

    return _elementwise("mae", x, target, sample_weight, reduction, kernel)


@operation
def huber(
    x: Array, /, *, target: Any, delta: float = 1.0, sample_weight: Any = None, reduction: str = "mean"
) -> Result:
    """Return the weighted mean of Huber's loss: squared errors near 0, absolute ones beyond.

    Parameters
    ----------
    x
        Outputs of any shape, the samples along the first axis.
    target
        What they should be, of the same shape and in the same unit.
    delta
        The error, more than 0 and in the target's unit, from which the loss is linear.
    sample_weight
        A number of 0 or more for each sample, or for each equal run of samples.
    reduction
        ``"mean"`` or ``"sum"``.

    Raises
    ------
    SpecError
        The shapes differ, `delta` is not more than 0, a weight is negative or not finite, or no sample counts.

    Notes
    -----
    ``sum(w h) / sum(w)`` with ``h = d**2 / 2`` up to `delta`, then ``delta (abs(d) - delta / 2)``, d the error.

    References
    ----------
    Huber, Robust Estimation of a Location Parameter, Annals of Mathematical Statistics 35 (1964).
    """
    positive("huber", delta=delta)

    def kernel(x: Array, t: Array) -> tuple[Array, Array]:
        d = np.asarray(x - t)
        near = np.clip(d, -delta, delta)
        return near * (d - near / 2), near

    return _elementwise("huber", x, target, sample_weight, reduction, kernel)


def _log_sigmoid(x: Array) -> Array:
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def _sigmoid(x: Array) -> Array:
    s = np.empty(x.shape, x.dtype)
    logistic(x, s)
    return s


@operation
def binary_cross_entropy(
    x: Array, /, *, target: Any, pos_weight: Any = 1.0, sample_weight: Any = None, reduction: str = "mean"
) -> Result:
    """Return the weighted mean cross-entropy of yes-or-no answers, from logits.

    Parameters
    ----------
    x
        Logits of any shape, the samples along the first axis.
    target
        The probability of yes, 0 to 1, of the same shape.
    pos_weight
        What a yes counts for, 0 or more: one number, or an array that broadcasts to `x`, such as one a label.
    sample_weight
        A number of 0 or more for each sample, or for each equal run of samples.
    reduction
        ``"mean"`` or ``"sum"``.

    Raises
    ------
    SpecError
        The shapes differ, a target is not from 0 to 1, a weight is negative, or no sample counts.

    Notes
    -----
    ``sum(w l) / sum(w)`` with ``l = -(pos_weight t log(s) + (1 - t) log(1 - s))``, s the sigmoid of the logits;
    `pos_weight` is not part of the weight that it is divided by, as in torch.
    """
    within("pos_weight", pos_weight, 0, math.inf, "binary_cross_entropy")
    w = np.broadcast_to(np.asarray(pos_weight, x.dtype), x.shape)

    def kernel(x: Array, t: Array) -> tuple[Array, Array]:
        within("targets", t, 0, 1, "binary_cross_entropy")
        loss = -(w * t * _log_sigmoid(x) + (1 - t) * _log_sigmoid(-x))
        s = _sigmoid(x)
        return loss, (1 - t) * s - w * t * (1 - s)

    return _elementwise("binary_cross_entropy", x, target, sample_weight, reduction, kernel)


@operation
def binary_focal(
    x: Array,
    /,
    *,
    target: Any,
    gamma: float = 2.0,
    alpha: float | None = None,
    sample_weight: Any = None,
    reduction: str = "mean",
) -> Result:
    """Return the weighted mean focal loss of yes-or-no answers, from logits: what is sure already counts less.

    Parameters
    ----------
    x
        Logits of any shape, the samples along the first axis.
    target
        0 or 1, of the same shape.
    gamma
        0 or more: at 0 it is the cross-entropy.
    alpha
        0 to 1: what a yes counts for, and 1 minus that for a no. Both count 1 when None.
    sample_weight
        A number of 0 or more for each sample, or for each equal run of samples.
    reduction
        ``"mean"`` or ``"sum"``.

    Raises
    ------
    SpecError
        The shapes differ, a target is neither 0 nor 1, an option is out of its range, or no sample counts.

    Notes
    -----
    ``sum(w l) / sum(w)`` with ``l = -alpha_t (1 - p_t)**gamma log(p_t)``, where p_t is the probability of the target.

    References
    ----------
    Lin et al., Focal Loss for Dense Object Detection, arXiv:1708.02002, equation 5.
    """
    ranges.amounts("binary_focal", gamma=float(gamma))
    within("alpha", 1.0 if alpha is None else alpha, 0, 1, "binary_focal")

    def kernel(x: Array, t: Array) -> tuple[Array, Array]:
        if not np.all((t == 0) | (t == 1)):
            raise SpecError("targets that are neither 0 nor 1", subject="binary_focal", expected="0 or 1")
        sign = 2 * t - 1
        z = sign * x
        log_p, q = _log_sigmoid(z), _sigmoid(-z)
        side = 1.0 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
        modulator = side * q**gamma
        return -modulator * log_p, sign * modulator * (gamma * (1 - q) * log_p - q)

    return _elementwise("binary_focal", x, target, sample_weight, reduction, kernel)

"""Losses of classes: cross-entropy and the focal loss of logits, with a weight a class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.arithmetic import Result
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.operands import floats
from weighttools.train.autograd.variable import operation
from weighttools.train.losses.weighting import normalised, row_weights, times
from weighttools.train.parallel import blocks, spread
from weighttools.transforms import initializer_ranges as ranges


def _labels(target: Any, n_rows: int, n_classes: int, ignore_index: int, name: str) -> tuple[Array, Array]:
    """Return the labels, 0 where ignored, and whether each counts."""
    labels = np.asarray(target).reshape(-1)
    if labels.size != n_rows or labels.dtype.kind not in "iu":
        raise SpecError(f"{labels.size} labels of {labels.dtype} for {n_rows} rows", subject=name, expected="integers")
    counts = labels != ignore_index
    safe = np.where(counts, labels, 0)
    if safe.size and not 0 <= safe.min() <= safe.max() < n_classes:
        bad = safe.max() if safe.max() >= n_classes else safe.min()
        raise SpecError(f"label {bad} is out of range", subject=name, expected=f"0 to {n_classes - 1}")
    return safe, counts


def _class_weights(weight: Any, n_classes: int, dtype: Any, name: str) -> Array:
    weights = np.ones(n_classes, dtype) if weight is None else np.asarray(weight, dtype)
    if weights.shape != (n_classes,) or not (np.isfinite(weights).all() and weights.min() >= 0):
        raise SpecError(
            f"class weights of shape {weights.shape}",
            subject=name,
            expected=f"a finite number >= 0 for each of {n_classes}",
        )
    return weights


@operation
def cross_entropy(
    logits: Array,
    /,
    *,
    target: Any,
    weight: Any = None,
    sample_weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
    keep: bool,
) -> Result:
    """Return the weighted mean of ``-log softmax(logits)[target]``.

    Parameters
    ----------
    logits
        (..., n_classes).
    target
        Integers (...); rows with `ignore_index` do not count.
    weight
        (n_classes,): the weight of each class.
    sample_weight
        A weight for each row, or for each equal run of rows.
    label_smoothing
        The share of the target, below 1, that is spread evenly over all classes, each with its class's weight.
    reduction
        ``"mean"`` or ``"sum"``.

    Raises
    ------
    SpecError
        A target is no class, a weight or share is out of its range, or no row counts.

    Notes
    -----
    ``sum(w l) / sum(w)`` with ``w = weight[target] * sample_weight``, as torch.nn.functional.cross_entropy has it.
    """
    name, n = "cross_entropy", logits.shape[-1]
    floats(name, logits)
    ranges.shares(name, label_smoothing=float(label_smoothing))
    z, dtype = logits.reshape(-1, n), logits.dtype
    labels, counts = _labels(target, len(z), n, ignore_index, name)
    per_class = _class_weights(weight, n, dtype, name)
    rows = row_weights(len(z), sample_weight, dtype, name) * counts
    own = rows * per_class[labels]
    total = float(own.sum(dtype=np.float64)) if reduction == "mean" else 1.0
    hard = normalised(own, reduction, name) * (1 - label_smoothing)
    spread_weights = rows * (label_smoothing / n / total)
    losses, grad = np.empty(len(z), dtype), np.empty(z.shape, dtype) if keep or label_smoothing else None

    def kernel(start: int, stop: int) -> None:
        at, index = slice(start, stop), np.arange(stop - start)
        g = np.subtract(z[at], z[at].max(-1, keepdims=True), out=None if grad is None else grad[at])
        losses[at] = -g[index, labels[at]] * hard[at]
        if label_smoothing:
            losses[at] -= (g @ per_class) * spread_weights[at]
        np.exp(g, out=g)
        s = g @ np.ones(n, dtype)
        factor = hard[at] + spread_weights[at] * float(per_class.sum()) if label_smoothing else hard[at]
        losses[at] += np.log(s) * factor
        if grad is not None:
            g *= (factor / s)[:, None]
            g[index, labels[at]] -= hard[at]
            if label_smoothing:
                g -= spread_weights[at, None] * per_class

    spread(kernel, blocks(len(z), n))
    shape = logits.shape
    return dtype.type(losses[counts].sum()), lambda dy, need: (times(grad, dy).reshape(shape),)


@operation
def focal(
    logits: Array,
    /,
    *,
    target: Any,
    gamma: float = 2.0,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Result:
    """Return the weighted mean of ``-(1 - p)**gamma log(p)`` with p the softmax of `logits` at `target`.

    Arguments and normalisation are those of `cross_entropy`; the modulating factor is not part of the weight. `gamma`
    is a number of 0 or more.
    """
    name, n = "focal", logits.shape[-1]
    floats(name, logits)
    ranges.amounts(name, gamma=float(gamma))
    z = logits.reshape(-1, n)
    labels, counts = _labels(target, len(z), n, ignore_index, name)
    own = row_weights(len(z), sample_weight, z.dtype, name) * counts
    own *= _class_weights(weight, n, z.dtype, name)[labels]
    w, index, shape = normalised(own, reduction, name), np.arange(len(z)), logits.shape
    log_p = z - z.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    at_label = log_p[index, labels]
    q = -np.expm1(at_label)
    # d loss / d log p = gamma q**(gamma - 1) p log p - q**gamma; at q = 0 the first term's limit is 0 for gamma >= 0
    power = np.where(q > 0, q, 1) ** (gamma - 1) * (q > 0)
    slope = w * (gamma * power * np.exp(at_label) * at_label - q**gamma)
    grad = np.exp(log_p) * -slope[:, None]
    grad[index, labels] += slope
    losses = -(w * q**gamma * at_label)
    return z.dtype.type(losses[counts].sum()), lambda dy, need: (times(grad, dy).reshape(shape),)


def perplexity(loss: float) -> float:
    """Return e to the power of a mean cross-entropy, infinity where that overflows."""
    return math.exp(loss) if loss < 709 else math.inf

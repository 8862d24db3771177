"""Losses: each a scalar operation whose gradient is made in the forward pass.

All take ``sample_weight``, one number a sample, and are normalised by the weights that count: the loss is
``sum(weight * loss) / sum(weight)``, so weights of 1 give the mean, and doubling all weights changes nothing.
``reduction="sum"`` leaves the division out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train import ranges
from weighttools.train.operands import floats
from weighttools.train.ops.basic import Result, matmul, mul, sub, sum, transpose
from weighttools.train.ops.norms import normalize
from weighttools.train.ops.pointwise import logistic, relu
from weighttools.train.parallel import blocks, spread
from weighttools.train.tape import Array, operation


def _normalised(weights: Array, reduction: str, name: str) -> Array:
    """Return the factor of each term's loss."""
    if reduction not in ("mean", "sum"):
        raise SpecError(f"reduction {reduction!r}", subject=name, expected="'mean' or 'sum'")
    total = float(weights.sum(dtype=np.float64))
    if not weights.size:
        raise SpecError("an empty batch has no mean loss", subject=name)
    if reduction == "sum":
        return weights
    if total == 0:
        raise SpecError(
            "every target is ignored or has weight 0",
            subject=name,
            remedy="leave such batches out, or check the targets (a prompt cut before its answer?)",
        )
    return weights / total


def _row_weights(n: int, sample_weight: Array | None, dtype: Any, name: str) -> Array:
    """Return one weight a row; `sample_weight` may have one number for several rows, such as a sequence's tokens."""
    if sample_weight is None:
        return np.ones(n, dtype)
    given = np.asarray(sample_weight, dtype).reshape(-1)
    if not given.size or n % given.size or not np.isfinite(given).all() or given.min() < 0:
        raise SpecError(
            f"{given.size} sample weights for {n} rows", subject=name, expected="one finite number >= 0 a sample"
        )
    return np.repeat(given, n // given.size)


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


def _within(what: str, values: Any, low: float, high: float, name: str) -> None:
    """Raise SpecError unless all values lie from `low` to `high`."""
    least, most = (np.min(values), np.max(values)) if np.size(values) else (low, high)
    if not low <= least <= most <= high:
        raise SpecError(f"{what} from {least:g} to {most:g}", subject=name, expected=f"{low:g} to {high:g}")


def _positive(name: str, **given: float) -> None:
    for option, number in given.items():
        if not number > 0:
            raise SpecError(f"{option} {number}", subject=name, expected="more than 0")


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
    rows = _row_weights(len(z), sample_weight, dtype, name) * counts
    own = rows * per_class[labels]
    total = float(own.sum(dtype=np.float64)) if reduction == "mean" else 1.0
    hard = _normalised(own, reduction, name) * (1 - label_smoothing)
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
    return dtype.type(losses[counts].sum()), lambda dy, need: (_times(grad, dy).reshape(shape),)


def _times(grad: Any, dy: Any) -> Any:
    """Multiply the gradient by the loss's own, in place."""
    if dy != 1:
        grad *= dy
    return grad


Kernel = Callable[[Array, Array], tuple[Array, Array]]
"""``kernel(x, t)`` returns the losses and their derivatives by x, elementwise."""


def _elementwise(name: str, x: Array, target: Any, sample_weight: Any, reduction: str, kernel: Kernel) -> Result:
    """Return the weighted mean, or sum, of what `kernel` gives, and its pullback."""
    floats(name, x)
    t = np.asarray(target).astype(x.dtype)
    if t.shape != x.shape:
        raise SpecError(f"targets of shape {t.shape} for outputs of shape {x.shape}", subject=name, expected="equal")
    n = len(x) if x.ndim else 1
    each = _row_weights(n, sample_weight, x.dtype, name).reshape((n, *(1,) * (x.ndim - 1)) if x.ndim else ())
    w = _normalised(np.broadcast_to(each, x.shape), reduction, name)
    losses, grad = kernel(x, t)
    losses *= w
    grad *= w
    return x.dtype.type(losses.sum()), lambda dy, need: (_times(grad, dy),)


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
    _positive("huber", delta=delta)

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
    _within("pos_weight", pos_weight, 0, math.inf, "binary_cross_entropy")
    w = np.broadcast_to(np.asarray(pos_weight, x.dtype), x.shape)

    def kernel(x: Array, t: Array) -> tuple[Array, Array]:
        _within("targets", t, 0, 1, "binary_cross_entropy")
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
    _within("alpha", 1.0 if alpha is None else alpha, 0, 1, "binary_focal")

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
    own = _row_weights(len(z), sample_weight, z.dtype, name) * counts
    own *= _class_weights(weight, n, z.dtype, name)[labels]
    w, index, shape = _normalised(own, reduction, name), np.arange(len(z)), logits.shape
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
    return z.dtype.type(losses[counts].sum()), lambda dy, need: (_times(grad, dy).reshape(shape),)


def cosine_similarity(a: Any, b: Any) -> Any:
    """Return the cosine of the angle between the last axes of `a` and `b`."""
    return sum(mul(normalize(a, eps=1e-8), normalize(b, eps=1e-8)), axis=-1)


def cosine_embedding(a: Any, b: Any, *, target: Any, margin: float = 0.0, sample_weight: Any = None) -> Any:
    """Return the mean of ``1 - cos(a, b)`` for pairs with target 1 and ``max(0, cos(a, b) - margin)`` for -1.

    `a` and `b` are (n, size); the mean is weighted by `sample_weight`, one number a pair.
    """
    labels, cosine = np.asarray(target), cosine_similarity(a, b)
    if labels.shape != cosine.shape or not np.isin(labels, (-1, 1)).all():
        raise SpecError(
            f"targets of shape {labels.shape}", subject="cosine_embedding", expected="1 or -1 for each pair"
        )
    rows = _row_weights(len(labels), sample_weight, a.dtype, "cosine_embedding")
    w = _normalised(rows, "mean", "cosine_embedding")
    like = mul(sub(1, cosine), w * (labels == 1))
    return sum(like + mul(relu(sub(cosine, margin)), w * (labels == -1)))


def contrastive(a: Any, b: Any, *, temperature: float = 0.05, symmetric: bool = False) -> Any:
    """Return the InfoNCE loss of pairs: each row of `a` must find its row of `b` among all rows of the batch.

    Parameters
    ----------
    a, b
        (n, size); row i of one belongs to row i of the other.
    temperature
        The cosines are divided by it.
    symmetric
        Take the mean with the loss of finding `a` from `b`, as CLIP does.

    Raises
    ------
    SpecError
        `temperature` is not more than 0.

    References
    ----------
    van den Oord et al., arXiv:1807.03748, equation 4; Radford et al., arXiv:2103.00020, figure 3.
    """
    _positive("contrastive", temperature=temperature)
    scores = mul(matmul(normalize(a), transpose(normalize(b))), 1 / temperature)
    target = np.arange(a.shape[0])
    loss = cross_entropy(scores, target=target)
    return mul(loss + cross_entropy(transpose(scores), target=target), 0.5) if symmetric else loss


def perplexity(loss: float) -> float:
    """Return e to the power of a mean cross-entropy, infinity where that overflows."""
    return math.exp(loss) if loss < 709 else math.inf

"""What all losses share: weights that count, the factor of each term, and numbers within their range."""

from __future__ import annotations

from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array


def normalised(weights: Array, reduction: str, name: str) -> Array:
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


def row_weights(n: int, sample_weight: Array | None, dtype: Any, name: str) -> Array:
    """Return one weight a row; `sample_weight` may have one number for several rows, such as a sequence's tokens."""
    if sample_weight is None:
        return np.ones(n, dtype)
    given = np.asarray(sample_weight, dtype).reshape(-1)
    if not given.size or n % given.size or not np.isfinite(given).all() or given.min() < 0:
        raise SpecError(
            f"{given.size} sample weights for {n} rows", subject=name, expected="one finite number >= 0 a sample"
        )
    return np.repeat(given, n // given.size)


def within(what: str, values: Any, low: float, high: float, name: str) -> None:
    """Raise SpecError unless all values lie from `low` to `high`."""
    least, most = (np.min(values), np.max(values)) if np.size(values) else (low, high)
    if not low <= least <= most <= high:
        raise SpecError(f"{what} from {least:g} to {most:g}", subject=name, expected=f"{low:g} to {high:g}")


def positive(name: str, **given: float) -> None:
    """Raise SpecError unless all options are more than 0."""
    for option, number in given.items():
        if not number > 0:
            raise SpecError(f"{option} {number}", subject=name, expected="more than 0")


def times(grad: Any, dy: Any) -> Any:
    """Multiply the gradient by the loss's own, in place."""
    if dy != 1:
        grad *= dy
    return grad

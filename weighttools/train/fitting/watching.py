"""Stopping before a step that would spoil the weights, and saying why."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, NoReturn

import numpy as np

from weighttools.errors import TrainingError
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.batches import Batch
from weighttools.train.fitting.feeding import n_samples
from weighttools.train.optim.sums import global_norm

CHECK = "`weighttools check` finds them in the file that they came from"
LOWER = "lower the learning rate, or clip the gradients to a smaller norm"
_BACKWARD = {
    "infinite": ("the backward pass overflowed, or divided by 0", LOWER),
    "NaN": (
        "0/0, the derivative of a root or logarithm at 0, or a backward pass that overflowed",
        f"keep what is divided by, and what roots and logarithms are taken of, away from 0; or {LOWER}",
    ),
}
"""Why a gradient is what it is though the loss is finite, and what helps."""


def check_start(params: Mapping[str, Array]) -> None:
    """Stop before the first update if the weights to train are not finite as they were given.

    Raises
    ------
    TrainingError
        An array holds NaN or infinity.
    """
    name = not_finite(params)
    if name is not None:
        _stop(f"weights in {name} are {_kind(params[name])} before any update", "the model", CHECK)


def check_loss(
    loss: float, run: Any, params: Mapping[str, Array], batch: Batch, where: str, trained: Container[str]
) -> None:
    """Stop if the loss of a batch is no finite number.

    Parameters
    ----------
    run, params, batch
        The model's function, arrays and the batch, to look for the cause.
    where
        The step and rate, as words.
    trained
        The names of the arrays that learn.

    Raises
    ------
    TrainingError
        It is not; the line names the tensor and the likely cause.
    """
    if np.isfinite(loss):
        return
    fact = f"the loss is {loss:g}"
    _check_arrays(fact, {**params, **getattr(run, "frozen", {})}, where, trained)
    for name, value in batch.items():
        if isinstance(value, np.ndarray) and not _is_finite(value):
            row = int(np.flatnonzero(~np.isfinite(value).reshape(len(value), -1).all(1))[0])
            fix = "drop such samples, or fill them in"
            _stop(f"{fact}: {name} of sample {row} of the batch's {n_samples(batch)} is {_kind(value)}", where, fix)
    outputs = run(params, batch)
    if isinstance(outputs, np.ndarray) and not _is_finite(outputs):
        fix = f"{LOWER}, and scale the inputs"
        _stop(
            f"{fact}: data and weights are finite, so the model overflowed: outputs are {_kind(outputs)}",
            where,
            fix,
        )
    _stop(f"{fact}: the outputs are finite, so the loss itself overflowed", where, "check the targets' size")


def _check_arrays(fact: str, arrays: Mapping[str, Array], where: str, trained: Container[str]) -> None:
    """Stop if an array is not finite: one that learns was so after the last update, another always."""
    name = not_finite(arrays)
    if name is None:
        return
    cause, fix = ("the last update overflowed", LOWER) if name in trained else ("and do not learn", CHECK)
    _stop(f"{fact}: weights in {name} are {_kind(arrays[name])}, {cause}", where, fix)


def check_gradients(grads: Mapping[str, Array], where: str) -> float:
    """Return the gradients' joint 2-norm; stop if they, or their squares, are beyond their dtype.

    Raises
    ------
    TrainingError
        One holds NaN or infinity: the first is named, with how many of its elements. Or all are finite but too large
        to be squared, which optimisers and norms do.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norm = global_norm(grads)
    if np.isfinite(norm):
        return norm
    bad = not_finite(grads)
    if bad is not None:
        g = grads[bad]
        n, kind = int(np.count_nonzero(~np.isfinite(g))), _kind(g)
        fact = f"the gradient of {bad} is {kind} in {n:,} of {g.size:,} elements, though the loss is finite"
        cause, fix = _BACKWARD[kind]
        _stop(f"{fact}: {cause}", where, fix)
    name, g = max(grads.items(), key=lambda item: float(np.abs(item[1]).max(initial=0)))
    fact = f"the gradient of {name} goes up to {float(np.abs(g).max()):.2g}, and its square is beyond {g.dtype}"
    _stop(fact, where, "scale the inputs or the targets, or lower the learning rate")


def check_weights(params: Mapping[str, Array], where: str) -> None:
    """Stop before weights that are not finite are saved.

    Raises
    ------
    TrainingError
        An array holds NaN or infinity.
    """
    name = not_finite(params)
    if name is not None:
        _stop(f"weights in {name} are {_kind(params[name])}: the last update overflowed", where, LOWER)


def not_finite(params: Mapping[str, Array]) -> str | None:
    """Return the first array that holds NaN or infinity; None if there is none."""
    return next((name for name, p in params.items() if not _is_finite(p)), None)


def _stop(fact: str, where: str, fix: str) -> NoReturn:
    raise TrainingError(fact, subject=where, remedy=fix)


def _is_finite(x: Array) -> bool:
    if x.dtype.kind != "f":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(x.sum(dtype=np.float64)) or np.isfinite(x).all())


def _kind(x: Array) -> str:
    return "NaN" if np.isnan(x).any() else "infinite"

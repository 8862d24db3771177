"""Stopping before a step that would spoil the weights, and saying why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from weighttools.errors import TrainingError
from weighttools.train.data.batches import Batch
from weighttools.train.fitting.feeding import n_samples
from weighttools.train.optimizers.transforms import global_norm
from weighttools.train.tape import Array

Saved = Callable[[], str]
"""Says where the last good checkpoint is, or nothing."""
LOWER = "lower the learning rate, or clip the gradients to a smaller norm"


def check_loss(loss: float, run: Any, params: Mapping[str, Array], batch: Batch, where: str, saved: Saved) -> None:
    """Stop if the loss of a batch is no finite number.

    Parameters
    ----------
    run, params, batch
        The model's function, arrays and the batch, to look for the cause.
    where
        The step and rate, as words.
    saved
        Says where the last good checkpoint is.

    Raises
    ------
    TrainingError
        It is not; the line names the tensor and the likely cause.
    """
    if np.isfinite(loss):
        return
    fact = f"the loss is {loss:g}"
    for name, p in params.items():
        if not _is_finite(p):
            _stop(f"{fact}: weights in {name} are {_kind(p)}, the last update overflowed", where, LOWER, saved)
    for name, value in batch.items():
        if isinstance(value, np.ndarray) and not _is_finite(value):
            row = int(np.flatnonzero(~np.isfinite(value).reshape(len(value), -1).all(1))[0])
            fix = "drop such samples, or fill them in"
            _stop(
                f"{fact}: {name} of sample {row} of the batch's {n_samples(batch)} is {_kind(value)}", where, fix, saved
            )
    outputs = run(params, batch)
    if isinstance(outputs, np.ndarray) and not _is_finite(outputs):
        fix = f"{LOWER}, and scale the inputs"
        _stop(
            f"{fact}: data and weights are finite, so the model overflowed: outputs are {_kind(outputs)}",
            where,
            fix,
            saved,
        )
    _stop(f"{fact}: the outputs are finite, so the loss itself overflowed", where, "check the targets' size", saved)


def check_gradients(grads: Mapping[str, Array], where: str, saved: Saved) -> float:
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
    for name, g in grads.items():
        if not _is_finite(g):
            n = int(np.count_nonzero(~np.isfinite(g)))
            fact = f"the gradient of {name} is {_kind(g)} in {n:,} of {g.size:,} elements, though the loss is finite"
            _stop(f"{fact}: the backward pass overflowed", where, LOWER, saved)
    name, g = max(grads.items(), key=lambda item: float(np.abs(item[1]).max(initial=0)))
    fact = f"the gradient of {name} goes up to {float(np.abs(g).max()):.2g}, and its square is beyond {g.dtype}"
    _stop(fact, where, "scale the inputs or the targets, or lower the learning rate", saved)


def check_weights(params: Mapping[str, Array], where: str, saved: Saved) -> None:
    """Stop before weights that are not finite are saved.

    Raises
    ------
    TrainingError
        An array holds NaN or infinity.
    """
    for name, p in params.items():
        if not _is_finite(p):
            _stop(f"weights in {name} are {_kind(p)}: the last update overflowed", where, LOWER, saved)


def _stop(fact: str, where: str, fix: str, saved: Saved) -> NoReturn:
    raise TrainingError(fact, subject=where, remedy="; ".join(part for part in (fix, saved()) if part))


def _is_finite(x: Array) -> bool:
    if x.dtype.kind != "f":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(x.sum(dtype=np.float64)) or np.isfinite(x).all())


def _kind(x: Array) -> str:
    return "NaN" if np.isnan(x).any() else "infinite"

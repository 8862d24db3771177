"""A model: a function of ``{file's tensor name: array}``, the arrays, and where they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.batches import Batch

Run = Callable[[Mapping[str, Any], Batch], Any]
"""``run(params, batch)`` returns the outputs that a task compares with the batch's targets."""


@dataclass(frozen=True, slots=True)
class Model:
    """What `fit` trains and `evaluate` measures.

    Parameters
    ----------
    run
        The function. It may ask ``params`` for any name and batches for what they have.
    params
        Arrays by the file's names: float32 (or float64), contiguous, writeable; a tied tensor is there once, by the
        name that the file keeps it under. Only what `run` uses; training changes them in place.
    origin
        The checkpoint they were read from: its other tensors, dtypes, ties and metadata go back into what is saved.
        None for a model that was made from nothing.
    added
        Names in `params` that the checkpoint does not have, or has in another shape, such as a new head's.
    notes
        Lines that tell what was loaded, what is missing, unexpected or new; `fit` prints them.
    """

    run: Run
    params: dict[str, Array]
    origin: TensorMap | None = None
    added: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def check_model(model: Any, subject: str, remedy: str = "train.Model(function, arrays) makes one") -> None:
    """Raise SpecError for what is no model, such as its function alone."""
    if not isinstance(model, Model):
        what = f"{type(model).__name__} is no Model"
        raise SpecError(what, subject=subject, expected="a Model, as train.model loads", remedy=remedy)


def weights(run: Run, params: Mapping[str, Array]) -> list[Array]:
    """Return all arrays that a model computes with: `params`, and what an adapter keeps frozen."""
    return [*params.values(), *getattr(run, "frozen", {}).values()]

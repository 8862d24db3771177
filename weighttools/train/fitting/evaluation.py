"""Measuring a model on data, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.batches import Batch
from weighttools.train.fitting.feeding import Feed, Given, as_data, cast, column, feed
from weighttools.train.memory import keep_pages
from weighttools.train.parallel import threads_for
from weighttools.train.tasks.model import Model, check_model, weights
from weighttools.train.tasks.task import Labelled, Task, added, check_task


def evaluate(model: Model, data: Any, task: Task, batch_size: int = 32) -> dict[str, float]:
    """Return the task's metrics of a model over data, ``loss`` first.

    Parameters
    ----------
    model
        The function and its arrays.
    data
        As for `fit`; where it has ``sample_weight``, every figure counts it.
    task
        What to measure. Class weights that are ``"balanced"`` are taken from these labels.
    batch_size
        Samples a batch. Sums are combined by weight, so it changes results by rounding only.

    Raises
    ------
    SpecError
        There is nothing to measure, or shapes or labels do not fit.
    """
    return task_metrics(model, data, task, batch_size)[0]


def task_metrics(
    model: Model, data: Any, task: Task, batch_size: int = 32
) -> tuple[dict[str, float], Mapping[str, Any]]:
    """Return the metrics and the sums they were made of: for a few classes ``confusion`` (true, given) among them."""
    check_model(model, "evaluate")
    check_task(task)
    if batch_size < 1:
        raise SpecError(f"a batch size of {batch_size}", expected="1 or more")
    source = as_data(data)
    if isinstance(task, Labelled) and task.is_weighted and not isinstance(source, Given):
        task = task.prepared(column(source, "target"))
    return measured(model.run, model.params, feed(source, batch_size), task)


def measured(
    run: Any, params: Mapping[str, Array], batches: Feed | Given, task: Task
) -> tuple[dict[str, float], Mapping[str, Any]]:
    """Return the metrics and sums of a prepared task over one pass."""
    with keep_pages(), threads_for(weights(run, params)), np.errstate(over="ignore", invalid="ignore"):
        total = added(task.tally(run(params, batch), batch) for batch in _cast(batches, params))
    return task.metrics(total), total


def predict(model: Model, data: Any, batch_size: int = 32) -> Array:
    """Return the model's outputs for all samples, in order: one array, or a pair where the model gives pairs.

    Parameters
    ----------
    model
        The function and its arrays.
    data
        As for `fit`, without targets: an array alone is the inputs.
    batch_size
        Samples a batch.

    Raises
    ------
    SpecError
        The outputs of batches do not fit together, as of texts padded to different lengths.
    """
    check_model(model, "predict")
    batches = feed(as_data(data), batch_size)
    with keep_pages(), threads_for(weights(model.run, model.params)), np.errstate(over="ignore", invalid="ignore"):
        parts = [np.asarray(model.run(model.params, batch)) for batch in _cast(batches, model.params)]
    if len({part.shape[1:] for part in parts}) > 1:
        raise SpecError("the batches' outputs differ in shape", subject="predict", remedy="call the model by batch")
    return np.concatenate(parts)


def model_dtype(params: Mapping[str, Array]) -> Any:
    """Return the floating dtype that a model computes in."""
    return next((p.dtype for p in params.values() if p.dtype.kind == "f"), np.dtype(np.float32))


def _cast(batches: Feed | Given, params: Mapping[str, Array]) -> Iterator[Batch]:
    dtype = model_dtype(params)
    return (cast(batch, dtype) for batch in batches.batches(0))

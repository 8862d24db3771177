"""Training data, validation data, and what their weights come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.batches import Data
from weighttools.train.fitting.feeding import Given, Subset, as_data, column, split
from weighttools.train.fitting.recipe import Recipe
from weighttools.train.tasks.task import Labelled, Task, wanted


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """What to train on and what to measure by.

    Parameters
    ----------
    training, validation
        The samples.
    task
        Prepared from the training labels.
    weights
        Of the weighted sampler; None without.
    lines
        What to say of it.
    """

    training: Data | Given
    validation: Data | Given | None
    task: Task
    weights: Array | None
    lines: tuple[str, ...]


def divided(source: Data | Given, validation: Any, task: Task, options: Recipe) -> Sides:
    """Hold samples out if asked for, and work out the weights from what is left.

    Raises
    ------
    SpecError
        A share is out of range or of batches that are made elsewhere, labels are out of range, or there are no weights
        to sample by.
    """
    if isinstance(source, Given):
        return _given(source, validation, task, options)
    labels = _labels(source, task)
    training, held_out, lines = _held_out(source, validation, labels, int(options.seed))
    if labels is None or not isinstance(task, Labelled):
        weights = _sampling_weights(training, task, None) if options.sampler == "weighted" else None
        return Sides(training, held_out, task, weights, tuple(lines))
    own = labels[training.indices] if training is not source and isinstance(training, Subset) else labels
    ready = task.prepared(own)
    if held_out is not None and not isinstance(held_out, (Subset, Given)):
        task.unweighted().prepared(_labels(held_out, task))  # to check them
    sample_weight = column(training, "sample_weight")
    if ready.is_weighted or sample_weight is not None:
        lines += ready.report(own, sample_weight if own.ndim == 1 else None).splitlines()
    weights = _sampling_weights(training, ready, own) if options.sampler == "weighted" else None
    return Sides(training, held_out, ready if weights is None else ready.unweighted(), weights, tuple(lines))


def _given(source: Given, validation: Any, task: Task, options: Recipe) -> Sides:
    if isinstance(validation, (int, float)) or options.sampler == "weighted":
        raise SpecError(
            "batches made elsewhere cannot be split or sampled", subject="data", remedy="give train.data.arrays(x, y)"
        )
    held_out = None if validation is None else as_data(validation)
    return Sides(source, held_out, task, None, ())


def _labels(source: Data, task: Task) -> Array | None:
    """Return all labels, if the task wants to see them."""
    if not isinstance(task, Labelled):
        return None
    labels = column(source, "target")
    if labels is None:
        wanted(source.batch(np.arange(1)), task.name)
        raise SpecError("the data has no labels", subject=task.name)
    return labels


def _held_out(
    source: Data, validation: Any, labels: Array | None, seed: int
) -> tuple[Data, Data | Given | None, list[str]]:
    if validation is None:
        return source, None, []
    if isinstance(validation, bool) or not isinstance(validation, (int, float)):
        return source, as_data(validation), []
    by_label = labels if labels is not None and labels.ndim == 1 and not (labels % 1).any() else None
    training, held_out = split(source, float(validation), seed, by_label)
    how = "each label by its share" if by_label is not None else "at random"
    line = f"validation: {len(held_out):,} of {len(source):,} samples, {how}, by seed {seed}"
    return training, held_out, [line]


def _sampling_weights(training: Data, task: Any, labels: Array | None) -> Array:
    """Return each sample's sampling weight: its own times its class's."""
    own = column(training, "sample_weight")
    by_class = labels is not None and task.is_weighted
    if labels is not None and by_class and labels.ndim != 1:
        raise SpecError(f"labels of shape {labels.shape}", subject="sampler", expected="one a sample")
    if own is None and not by_class:
        raise SpecError(
            "the weighted sampler has no weights", subject="fit", remedy="give sample_weight, or the task class weights"
        )
    found = np.ones(len(training)) if own is None else np.asarray(own, np.float64)
    return found * task.label_weights(labels) if by_class else found

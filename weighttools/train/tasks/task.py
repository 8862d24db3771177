"""What a model is trained for: the loss of a batch, and figures that add up over batches.

Losses are means by weight, and `Task.weight` says how much a batch's mean counts, so that many small batches give
what one large batch would. The other metrics count a sample by its ``sample_weight`` too, as scikit-learn's metrics
do; a class's weight is the loss's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.batches import Batch


@runtime_checkable
class Task(Protocol):
    """A loss and metrics over a model's outputs."""

    @property
    def name(self) -> str:
        """Say what is learnt, as ``"classification"``."""

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Return the scalar to minimise: the weighted mean over the batch; `outputs` may be a variable."""

    def weight(self, batch: Batch) -> float:
        """Return the sum of the weights that the mean was taken over, so that means of batches combine rightly."""

    def tally(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Return sums over the batch, numbers or arrays, from which `metrics` makes figures."""

    def metrics(self, tally: Mapping[str, Any]) -> dict[str, float]:
        """Return figures by their usual names from the sums of all batches, ``loss`` first."""


def check_task(task: Any) -> None:
    """Raise SpecError for what is no task, such as its name or its class."""
    if isinstance(task, type) or not isinstance(task, Task):
        fix = "a Task of your own has name, loss, weight, tally and metrics"
        raise SpecError(
            shown(task), subject="the task", expected="one that is made, as train.Classification(2)", remedy=fix
        )


def check_numbers(subject: str, fits: Callable[[Any], bool], expected: str, **given: Any) -> None:
    """Raise SpecError unless each is a number that fits."""
    for name, value in given.items():
        if not isinstance(value, Real) or not fits(value):
            raise SpecError(f"{name} {value!r}", subject=subject, expected=expected)


def shown(value: Any) -> str:
    """Tell what was given in place of something else: a number or a text by itself, all else by its kind.

    >>> shown(0.5), shown("adam"), shown(dict), shown(shown), shown([1, 2])
    ('0.5', "'adam'", 'the class dict', 'the function shown', 'a list')
    """
    if value is None or isinstance(value, (int, float, str)):
        return repr(value)
    if hasattr(value, "__name__"):
        return f"the {'class' if isinstance(value, type) else 'function'} {value.__name__}"
    return f"a {type(value).__name__}"


def check_outputs(outputs: Any, subject: str) -> None:
    """Raise SpecError for outputs that are no array or variable, such as the tuple of a model that gives more."""
    if not hasattr(outputs, "ndim"):
        raise SpecError(f"the model gave {shown(outputs)}", subject=subject, expected="one array of outputs")


@runtime_checkable
class Labelled(Protocol):
    """A task that wants to see the training labels beforehand: to check them, and to weigh classes by their counts."""

    @property
    def is_weighted(self) -> bool:
        """Whether classes have weights."""

    def prepared(self, labels: Any) -> Any:
        """Return the task with its weights worked out from the labels of all training samples."""

    def label_weights(self, labels: Any) -> Array:
        """Return each label's class weight, for a sampler; float64 (n,)."""

    def unweighted(self) -> Any:
        """Return the task without class weights."""

    def report(self, labels: Any, sample_weight: Any) -> str:
        """Return lines that tell what the weights come to."""


MINIMIZED = ("loss", "perplexity", "mse", "mae", "rmse")
"""Metrics that are better when smaller; the others are better when larger, and at most 1."""


def is_better(metric: str, new: float, old: float) -> bool:
    """Whether `new` improves on `old`; NaN never does.

    >>> is_better("loss", 0.1, 0.2), is_better("accuracy", 0.1, 0.2)
    (True, False)
    """
    return new < old if metric in MINIMIZED else new > old


def added(tallies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums of tallies, in order."""
    total: dict[str, Any] = {}
    for tally in tallies:
        for name, value in tally.items():
            total[name] = total[name] + value if name in total else value
    return total


def loss_tally(task: Task, outputs: Any, batch: Batch) -> dict[str, Any]:
    """Return the sums from which the mean loss is made; a batch of weight 0 has no mean, and adds nothing."""
    weight = task.weight(batch)
    loss = float(task.loss(outputs, batch)) * weight if weight > 0 else 0.0
    return {"weighted_loss": loss, "weight": weight}


def mean_loss(tally: Mapping[str, Any]) -> float:
    """Return the mean loss of a tally.

    Raises
    ------
    SpecError
        Nothing counted.
    """
    if not tally.get("weight"):
        raise SpecError("no sample counts: all weights are 0, or every target is ignored", subject="the data")
    return float(tally["weighted_loss"] / tally["weight"])


def wanted(batch: Batch, task: str, name: str = "target") -> Any:
    """Return what a task needs of a batch.

    Raises
    ------
    SpecError
        The batch does not have it.
    """
    if batch.get(name) is None:
        has = ", ".join(batch) or "nothing"
        raise SpecError(f"the data has no {name!r} but {has}", subject=task, remedy="give the targets with the inputs")
    return batch[name]


def weight_sum(batch: Batch, n_samples: int) -> float:
    """Return the sum of the sample weights, or the number of samples."""
    given = batch.get("sample_weight")
    return float(n_samples if given is None else np.asarray(given).sum(dtype=np.float64))


def row_weights(batch: Batch, n_rows: int) -> Array:
    """Return one weight a row, float64, each sample's for all its rows (as of a sequence's positions)."""
    given = batch.get("sample_weight")
    if given is None or not np.size(given) or n_rows % np.size(given):
        return np.ones(n_rows)  # where they do not fit, the loss says so
    return np.repeat(np.asarray(given, np.float64).reshape(-1), n_rows // np.size(given))


def label_counts(labels: Array, n: int, weight: Array | None) -> Array:
    """Return how often each of `n` labels occurs, or the sums of their weights."""
    return np.bincount(labels, minlength=n) if weight is None else np.bincount(labels, weight, minlength=n)


def ratio(part: Any, whole: Any) -> Any:
    """Return ``part / whole``, elementwise, and 0 where there is nothing."""
    whole = np.asarray(whole, np.float64)
    return np.where(whole > 0, np.asarray(part, np.float64) / np.where(whole > 0, whole, 1), 0.0)

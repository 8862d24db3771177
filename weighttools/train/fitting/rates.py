"""Which learning rate to begin with: a range test on copies of a model's arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.errors import TrainingError
from weighttools.train.data.batches import Batch
from weighttools.train.fitting.fit import progress_of, session_of
from weighttools.train.fitting.loop import Session, update
from weighttools.train.fitting.recipe import Options, Recipe
from weighttools.train.memory import keep_pages
from weighttools.train.optim.chains import Optimizer, adamw
from weighttools.train.optim.schedules import RangeTest, range_test
from weighttools.train.parallel import threads_for
from weighttools.train.tasks.model import Model, weights
from weighttools.train.tasks.task import Task

if TYPE_CHECKING:
    from typing import Unpack


def find_rate(
    model: Model,
    data: Any,
    *,
    task: Task,
    optimizer: Optimizer | None = None,
    low: float = 1e-7,
    high: float = 1.0,
    n_steps: int = 100,
    **recipe: Unpack[Options],
) -> RangeTest:
    """Train a copy with growing rates, and return the rates, the losses and a suggestion; the model stays as it is.

    The suggestion is NaN if the loss never fell clearly, beside how much it differs from batch to batch: then give
    higher rates, larger batches or more steps.

    Parameters
    ----------
    model, data, task, recipe
        As for `fit`.
    optimizer
        Its rate does not matter; AdamW by default.
    low, high, n_steps
        Rates grow from `low` to `high` by a constant factor; it ends early when the loss explodes. Where the loss still
        falls at `high`, the suggestion is a tenth of that.

    References
    ----------
    Smith, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, section 3.3.
    """
    options = replace(Recipe.of(**recipe), steps=n_steps)
    copy = replace(model, params={name: np.array(p, order="C") for name, p in model.params.items()})
    session = session_of(copy, data, None, task, optimizer or adamw(), options)
    progress, batches = progress_of(session, options), _endless(session)

    def step(rate: float) -> float:
        group = [next(batches) for _ in range(options.accumulate)]
        now = replace(session, optimizer=replace(session.optimizer, lr=rate))
        try:
            update(now, progress, group)
        except TrainingError:
            return math.nan
        return progress.history.steps["loss"][-1]

    with keep_pages(), threads_for(weights(model.run, model.params)), np.errstate(over="ignore", invalid="ignore"):
        return range_test(step, low=low, high=high, n_steps=n_steps)


def _endless(session: Session) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from session.feed.batches(epoch)
        epoch += 1

"""Which learning rate to begin with: a range test on copies of a model's arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from weighttools.core.options import takes
from weighttools.errors import TrainingError
from weighttools.train.data.batches import Batch
from weighttools.train.fitting.fit import progress_of, session_of
from weighttools.train.fitting.held import Gradual
from weighttools.train.fitting.loop import Session, update
from weighttools.train.fitting.options import OPTIONS
from weighttools.train.fitting.recipe import Recipe
from weighttools.train.memory import keep_pages
from weighttools.train.optim.chains import Optimizer, adamw
from weighttools.train.optim.schedules import RangeTest, range_test
from weighttools.train.parallel import threads_for
from weighttools.train.tasks.model import Model, weights
from weighttools.train.tasks.task import Task

_TAKEN = ("batch_size", "freeze", "only", "masks", "prune", "sampler", "clip_norm", "accumulate", "seed")
"""Options of `fit` that change what a step does."""


@takes(*(one for one in OPTIONS if one.name in _TAKEN))
def find_rate(
    model: Model,
    data: Any,
    *,
    task: Task,
    optimizer: Optimizer | None = None,
    low: float = 1e-7,
    high: float = 1.0,
    n_steps: int = 100,
    batch_size: int = 32,
    freeze: Sequence[str] = (),
    only: Sequence[str] = (),
    masks: Mapping[str, Any] | None = None,
    prune: Gradual | None = None,
    sampler: str = "shuffle",
    clip_norm: float | None = None,
    accumulate: int = 1,
    seed: int = 0,
) -> RangeTest:
    """Train a copy with growing rates, and return the rates, the losses and a suggestion; the model stays as it is.

    The suggestion is NaN if the loss never fell clearly, beside how much it differs from batch to batch: then give
    higher rates, larger batches or more steps.

    Parameters
    ----------
    model, data, task, batch_size, freeze, only, masks, prune, sampler, clip_norm, accumulate, seed
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
    options = Recipe(1, n_steps, batch_size, freeze, only, masks, prune, sampler, clip_norm, accumulate, None, seed)
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

"""Schedules against torch's and transformers' schedulers, step by step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from weighttools.errors import SpecError
from weighttools.train.optimizers import schedules

N = 50
PAIRS: dict[str, tuple[schedules.Schedule, Callable[[torch.optim.Optimizer], Any]]] = {
    "constant": (schedules.constant(0.1, warmup=7), lambda o: transformers.get_constant_schedule_with_warmup(o, 7)),
    "linear": (
        schedules.warmup_linear(0.1, warmup=7, n_steps=N),
        lambda o: transformers.get_linear_schedule_with_warmup(o, 7, N),
    ),
    "cosine": (
        schedules.warmup_cosine(0.1, warmup=7).with_steps(N),
        lambda o: transformers.get_cosine_schedule_with_warmup(o, 7, N),
    ),
    "cosine_floor": (
        schedules.warmup_cosine(0.1, n_steps=N, final=0.2),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, N, eta_min=0.02),
    ),
    "inverse_sqrt": (
        schedules.inverse_sqrt(0.1, warmup=7),
        lambda o: transformers.get_inverse_sqrt_schedule(o, 7),
    ),
    "step": (schedules.step_decay(0.1, every=9, factor=0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 9, 0.5)),
    "one_cycle": (
        schedules.one_cycle(0.1, n_steps=N + 1),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=N + 1),
    ),
}


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)


@pytest.mark.parametrize("name", PAIRS)
def test_rates_are_those_of_the_reference(name: str) -> None:
    schedule, make = PAIRS[name]
    o = optimizer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler, theirs = make(o), []
        for _ in range(N):
            theirs.append(o.param_groups[0]["lr"])
            o.step()
            scheduler.step()
    assert np.allclose([schedule(t) for t in range(N)], theirs, rtol=1e-9, atol=1e-12)


def test_plateau_is_that_of_torch_and_continues_from_its_state() -> None:
    o, rng = optimizer(), np.random.default_rng(0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=2, cooldown=3, min_lr=1e-3)
    ours = schedules.Plateau(0.1, factor=0.5, patience=2, cooldown=3, minimum=1e-3)
    seen = set()
    for t in range(80):
        loss = float(1 / (1 + 0.05 * min(t, 20)) + 0.01 * rng.standard_normal())
        theirs.step(loss)
        ours.observe(loss)
        resumed = schedules.Plateau(0.1, factor=0.5, patience=2, cooldown=3, minimum=1e-3)
        resumed.restore(ours.state())
        ours = resumed
        assert ours(t) == pytest.approx(o.param_groups[0]["lr"])
        seen.add(ours(t))
    assert len(seen) > 4


def test_a_schedule_without_its_length_says_so() -> None:
    with pytest.raises(SpecError, match="n_steps"):
        schedules.warmup_cosine(1.0)(3)
    assert schedules.warmup_linear(1.0, n_steps=4).with_steps(100).n_steps == 4


def test_the_range_test_finds_where_the_loss_falls_and_stops_where_it_bursts() -> None:
    """On a parabola of curvature 1 a rate above 2 diverges; the largest fall comes below that."""
    x = [10.0]

    def update(rate: float) -> float:
        loss = x[0] ** 2 / 2
        x[0] -= rate * x[0]
        return loss

    found = schedules.range_test(update, low=1e-4, high=100, n_steps=100)
    assert found.rates[-1] < 100 and found.losses[-1] > 4 * min(found.losses)
    assert 1e-3 < found.suggestion < 2
    assert math.isnan(schedules.RangeTest((1.0, 2.0), (1.0, 2.0)).suggestion)

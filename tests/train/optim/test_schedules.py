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
from weighttools.train.optim import schedules

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
    **{
        f"inverse_sqrt {warmup}": (
            schedules.inverse_sqrt(0.1, warmup=warmup),
            lambda o, warmup=warmup: transformers.get_inverse_sqrt_schedule(o, warmup),
        )
        for warmup in (0, 1, 7, 10)
    },
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


SCHEDULES: dict[str, Callable[..., Any]] = {
    "constant": schedules.constant,
    "linear": schedules.warmup_linear,
    "cosine": schedules.warmup_cosine,
    "inverse_sqrt": schedules.inverse_sqrt,
    "step": lambda lr, **rest: schedules.step_decay(lr, **{"every": 9, **rest}),
    "one_cycle": schedules.one_cycle,
    "plateau": schedules.Plateau,
}
BAD: dict[str, list[dict[str, Any]]] = {
    "constant": [{"warmup": -1}, {"warmup": 0.1}, {"warmup": math.inf}],
    "linear": [{"warmup": 0.1}, {"final": -1.0}, {"n_steps": 0}, {"n_steps": 2.5}],
    "cosine": [{"warmup": -3}, {"warmup": "10"}, {"final": math.nan}],
    "inverse_sqrt": [{"warmup": 0.5}, {"warmup": -1}],
    "step": [{"every": 0}, {"every": 1.5}, {"factor": -0.5}],
    "one_cycle": [{"rising": 1.5}, {"rising": -0.1}, {"start": -1.0}, {"final": -1.0}],
    "plateau": [{"factor": 2.0}, {"factor": -0.1}, {"patience": -1}, {"threshold": 1.0}, {"cooldown": 0.5}, {"minimum": -1}],
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_numbers_out_of_range_are_refused_by_name(name: str) -> None:
    for lr in (-1.0, math.nan, math.inf, "0.1"):
        with pytest.raises(SpecError, match="learning rate"):
            SCHEDULES[name](lr)
    for options in BAD[name]:
        with pytest.raises(SpecError, match=next(iter(options)).replace("_", ".")):
            SCHEDULES[name](0.1, **options)


def test_numbers_of_numpy_are_numbers() -> None:
    schedule = schedules.warmup_linear(np.float32(0.5), warmup=np.int64(2), n_steps=np.int32(10))
    assert [type(schedule(t)) for t in range(3)] == [float] * 3
    assert schedule(1) == 0.25 and schedules.Plateau(np.float64(0.1), patience=np.int64(3))(0) == 0.1


@pytest.mark.parametrize(("n_steps", "rising"), [(10, 0.1), (20, 0.05), (10, 0.0), (1, 0.3)])
def test_a_cycle_that_hardly_rises_falls_from_its_first_step(n_steps: int, rising: float) -> None:
    schedule = schedules.one_cycle(1.0, n_steps=n_steps, rising=rising)
    rates = [schedule(t) for t in range(n_steps)]
    assert rates == sorted(rates, reverse=True) and rates[-1] == pytest.approx(4e-6) and max(rates) <= 1
    assert rising * n_steps != 1 or rates[0] == 1


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


def test_noise_alone_suggests_no_rate() -> None:
    """Losses of batches of few samples, at rates too small to matter: a suggestion in one test of 100."""
    rng = np.random.default_rng(0)
    rates = tuple(np.geomspace(1e-7, 1, 100))
    found = [schedules.RangeTest(rates, tuple(rng.gamma(4, 0.25, 100))).suggestion for _ in range(500)]
    assert np.isnan(found).mean() >= 0.98


def test_a_noisy_fall_is_found_where_it_is_and_a_single_lucky_batch_is_not() -> None:
    """The loss falls from a rate of 1e-3 on and rises from 1e-1 on; a tenth of that is 1e-2."""
    rng, rates = np.random.default_rng(1), np.geomspace(1e-7, 1, 100)
    x = np.log10(rates)
    clean = np.interp(x, [-7, -3, -1, 0], [1.2, 1.2, 0.2, 3.0])
    for _ in range(50):
        losses = clean * rng.gamma(16, 1 / 16, 100)
        losses[5] = 0.01
        assert 2e-3 < schedules.RangeTest(tuple(rates), tuple(losses)).suggestion < 2.5e-2


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.1), (-1.0, 1.0), (1e-3, math.inf)])
def test_a_range_of_rates_that_is_none_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(SpecError, match="0 < low < high"):
        schedules.range_test(lambda rate: 1.0, low=ends[0], high=ends[1])

"""Learning-rate schedules: functions from the number of updates made so far to a rate.

The conventions are those of torch and transformers: step 0 is the first update, and warm-up starts from 0 there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from weighttools.errors import SpecError

Curve = Callable[[int, int], float]
"""From the step and the number of steps to the share of the peak rate."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """``lr * curve(step, n_steps)``.

    Parameters
    ----------
    lr
        The peak rate.
    curve
        The share of it.
    n_steps
        Updates in all; None until the training loop says (`with_steps`).
    needs_steps
        Whether the curve depends on `n_steps`.
    """

    lr: float
    curve: Curve
    n_steps: int | None = None
    needs_steps: bool = True

    def __call__(self, step: int) -> float:
        if self.needs_steps and self.n_steps is None:
            raise SpecError("the schedule does not know how many steps there are", remedy="give it n_steps")
        return self.lr * self.curve(step, self.n_steps or 0)

    def with_steps(self, n_steps: int) -> Schedule:
        """Return the schedule over `n_steps`, unless it has its own."""
        return self if self.n_steps is not None else replace(self, n_steps=n_steps)


def constant(lr: float, *, warmup: int = 0) -> Schedule:
    """Return a rate that rises linearly over `warmup` steps and stays."""
    return Schedule(lr, lambda t, n: _rise(t, warmup), needs_steps=False)


def warmup_linear(lr: float, *, warmup: int = 0, n_steps: int | None = None, final: float = 0.0) -> Schedule:
    """Return a rate that rises over `warmup` steps and falls linearly to the share `final` at `n_steps`."""
    return Schedule(
        lr, lambda t, n: _rise(t, warmup, lambda: final + (1 - final) * (1 - _after(t, warmup, n))), n_steps
    )


def warmup_cosine(lr: float, *, warmup: int = 0, n_steps: int | None = None, final: float = 0.0) -> Schedule:
    """Return a rate that rises over `warmup` steps and falls along half a cosine to the share `final` at `n_steps`."""

    def fall(t: int, n: int) -> float:
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * _after(t, warmup, n)))

    return Schedule(lr, lambda t, n: _rise(t, warmup, lambda: fall(t, n)), n_steps)


def inverse_sqrt(lr: float, *, warmup: int = 10_000) -> Schedule:
    """Return a rate that rises over `warmup` steps and then falls as ``sqrt(warmup / step)``."""
    return Schedule(lr, lambda t, n: _rise(t, warmup, lambda: math.sqrt(max(1, warmup) / max(1, t))), needs_steps=False)


def step_decay(lr: float, *, every: int, factor: float = 0.1) -> Schedule:
    """Return a rate that is multiplied by `factor` after every `every` steps."""
    return Schedule(lr, lambda t, n: factor ** (t // every), needs_steps=False)


def one_cycle(
    lr: float, *, n_steps: int | None = None, rising: float = 0.3, start: float = 1 / 25, final: float = 4e-6
) -> Schedule:
    """Return a rate that goes from ``start * lr`` to `lr` in the share `rising` of the steps, then to ``final * lr``.

    Both ways along half a cosine; the defaults are those of torch.optim.lr_scheduler.OneCycleLR.

    References
    ----------
    Smith and Topin, Super-Convergence, arXiv:1708.07120.
    """

    def curve(t: int, n: int) -> float:
        peak, last = rising * n - 1, n - 1
        low, high, share = (start, 1.0, t / peak) if t <= peak else (1.0, final, (t - peak) / max(1e-9, last - peak))
        return high + (low - high) / 2 * (1 + math.cos(math.pi * min(1.0, share)))

    return Schedule(lr, curve, n_steps)


def _rise(t: int, warmup: int, then: Callable[[], float] = lambda: 1.0) -> float:
    return t / warmup if t < warmup else then()


def _after(t: int, warmup: int, n_steps: int) -> float:
    """Return the share of the steps after the warm-up that lies behind, at most 1."""
    return min(1.0, (t - warmup) / max(1, n_steps - warmup))


@dataclass(slots=True)
class Plateau:
    """A rate that is multiplied by `factor` when a loss has not fallen for more than `patience` observations.

    Call `observe` with each validation loss; `state` and `restore` carry it through a checkpoint. A loss has fallen
    when it is below ``best * (1 - threshold)``, as in torch.optim.lr_scheduler.ReduceLROnPlateau.
    """

    lr: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    minimum: float = 0.0
    best: float = field(default=math.inf, init=False)
    n_bad: int = field(default=0, init=False)
    n_cool: int = field(default=0, init=False)

    def __call__(self, step: int) -> float:
        return self.lr

    def observe(self, loss: float) -> None:
        """Take note of a loss."""
        improved = loss < self.best * (1 - self.threshold)
        self.best = loss if improved else self.best
        self.n_bad = 0 if improved else self.n_bad + 1
        if self.n_cool > 0:
            self.n_cool, self.n_bad = self.n_cool - 1, 0
        if self.n_bad > self.patience:
            lower = max(self.lr * self.factor, self.minimum)
            self.lr = lower if self.lr - lower > 1e-8 else self.lr
            self.n_cool, self.n_bad = self.cooldown, 0

    def state(self) -> dict[str, float]:
        """Return what changes, as numbers."""
        return {"lr": self.lr, "best": self.best, "n_bad": self.n_bad, "n_cool": self.n_cool}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.lr, self.best = float(state["lr"]), float(state["best"])
        self.n_bad, self.n_cool = int(state["n_bad"]), int(state["n_cool"])


@dataclass(frozen=True, slots=True)
class RangeTest:
    """What a learning-rate range test saw."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def suggestion(self) -> float:
        """The rate at which the smoothed loss fell most steeply per octave; NaN if it never fell."""
        smooth = _smoothed(self.losses)
        falls = [(b - a, rate) for a, b, rate in zip(smooth, smooth[1:], self.rates, strict=False)]
        steepest = min(falls, default=(0.0, math.nan))
        return steepest[1] if steepest[0] < 0 else math.nan


def _smoothed(losses: tuple[float, ...], share: float = 0.7) -> list[float]:
    """Return the exponential mean, corrected for its start."""
    smooth, mean = [], 0.0
    for i, loss in enumerate(losses, 1):
        mean = share * mean + (1 - share) * loss
        smooth.append(mean / (1 - share**i))
    return smooth


def range_test(
    update: Callable[[float], float], *, low: float = 1e-7, high: float = 1.0, n_steps: int = 100, stop: float = 4.0
) -> RangeTest:
    """Train with rates that grow from `low` to `high` and record the losses.

    Parameters
    ----------
    update
        Makes one update with the given rate, on a copy of the weights, and returns the loss before it.
    stop
        End when the loss exceeds the smallest one so far times this, or is no number.

    References
    ----------
    Smith, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, section 3.3.
    """
    rates, losses = [], []
    for i in range(n_steps):
        rate = low * (high / low) ** (i / max(1, n_steps - 1))
        loss = float(update(rate))
        if not math.isfinite(loss):
            break
        rates.append(rate)
        losses.append(loss)
        if loss > stop * min(losses):
            break
    return RangeTest(tuple(rates), tuple(losses))

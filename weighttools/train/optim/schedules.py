"""Learning-rate schedules: functions from the number of updates made so far to a rate.

The conventions are those of torch and transformers: step 0 is the first update, and warm-up starts from 0 there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from weighttools.errors import SpecError
from weighttools.transforms import initializer_ranges as ranges

Curve = Callable[[int, int], float]
"""From the step and the number of steps to the share of the peak rate."""
SUBJECT = "the schedule"
TIMESCALE = 10_000
"""Over how many updates `inverse_sqrt` begins to fall where there is no warm-up."""


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

    def __post_init__(self) -> None:
        ranges.amounts(SUBJECT, learning_rate=self.lr)
        if self.n_steps is not None:
            ranges.counts(SUBJECT, 1, n_steps=self.n_steps)
        ranges.plain(self)

    def __call__(self, step: int) -> float:
        if self.needs_steps and self.n_steps is None:
            raise SpecError("the schedule does not know how many steps there are", remedy="give it n_steps")
        return float(self.lr * self.curve(step, self.n_steps or 0))

    def with_steps(self, n_steps: int) -> Schedule:
        """Return the schedule over `n_steps`, unless it has its own."""
        return self if self.n_steps is not None else replace(self, n_steps=n_steps)


def constant(lr: float, *, warmup: int = 0) -> Schedule:
    """Return a rate that rises linearly over `warmup` steps and stays."""
    ranges.counts(SUBJECT, warmup=warmup)
    return Schedule(lr, lambda t, n: _rise(t, warmup), needs_steps=False)


def warmup_linear(lr: float, *, warmup: int = 0, n_steps: int | None = None, final: float = 0.0) -> Schedule:
    """Return a rate that rises over `warmup` steps and falls linearly to the share `final` at `n_steps`."""
    return _falling(lambda share: 1 - share, lr, warmup, n_steps, final)


def warmup_cosine(lr: float, *, warmup: int = 0, n_steps: int | None = None, final: float = 0.0) -> Schedule:
    """Return a rate that rises over `warmup` steps and falls along half a cosine to the share `final` at `n_steps`.

    References
    ----------
    Loshchilov and Hutter, SGDR, arXiv:1608.03983, equation 5, without restarts.
    """
    return _falling(lambda share: 0.5 * (1 + math.cos(math.pi * share)), lr, warmup, n_steps, final)


def _falling(fall: Callable[[float], float], lr: float, warmup: int, n_steps: int | None, final: float) -> Schedule:
    """Return a warm-up, and then `fall` from 1 to 0, which is 1 to `final`, of the share of the steps that follow."""
    ranges.counts(SUBJECT, warmup=warmup)
    ranges.amounts(SUBJECT, final=final)

    def after(t: int, n: int) -> float:
        return final + (1 - final) * fall(_after(t, warmup, n))

    return Schedule(lr, lambda t, n: _rise(t, warmup, lambda: after(t, n)), n_steps)


def inverse_sqrt(lr: float, *, warmup: int = 0) -> Schedule:
    """Return a rate that rises over `warmup` steps and then falls as ``sqrt(warmup / step)``.

    Without a warm-up it falls as ``sqrt(10_000 / (step + 10_000))``, as transformers' get_inverse_sqrt_schedule does.
    That is the default: the usual warm-ups of 4,000 to 10,000 steps would leave a short run near a rate of 0.

    References
    ----------
    Vaswani et al., Attention Is All You Need, arXiv:1706.03762, section 5.3.
    """
    ranges.counts(SUBJECT, warmup=warmup)
    scale = warmup or TIMESCALE
    return Schedule(
        lr, lambda t, n: _rise(t, warmup, lambda: math.sqrt(scale / (t + scale - warmup))), needs_steps=False
    )


def step_decay(lr: float, *, every: int, factor: float = 0.1) -> Schedule:
    """Return a rate that is multiplied by `factor` after every `every` steps, as torch.optim.lr_scheduler.StepLR."""
    ranges.counts(SUBJECT, 1, every=every)
    ranges.amounts(SUBJECT, factor=factor)
    return Schedule(lr, lambda t, n: factor ** (t // every), needs_steps=False)


def one_cycle(
    lr: float, *, n_steps: int | None = None, rising: float = 0.3, start: float = 1 / 25, final: float = 4e-6
) -> Schedule:
    """Return a rate that goes from ``start * lr`` to `lr` in the share `rising` of the steps, then to ``final * lr``.

    Both ways along half a cosine; the defaults are those of torch.optim.lr_scheduler.OneCycleLR. A rise of one
    step, which torch divides by zero for, begins at `lr`.

    References
    ----------
    Smith and Topin, Super-Convergence, arXiv:1708.07120.
    """

    ranges.amounts(SUBJECT, start=start, final=final)
    if not 0 <= rising <= 1:
        raise SpecError(f"rising {rising:g}", subject=SUBJECT, expected="a share from 0 to 1")

    def curve(t: int, n: int) -> float:
        peak, last = rising * n - 1, n - 1
        up, down = t / peak if peak else 1.0, (t - peak) / max(1e-9, last - peak)
        low, high, share = (start, 1.0, up) if t <= peak else (1.0, final, down)
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

    def __post_init__(self) -> None:
        ranges.amounts("the plateau", learning_rate=self.lr, minimum=self.minimum)
        ranges.shares("the plateau", factor=self.factor, threshold=self.threshold)
        ranges.counts("the plateau", patience=self.patience, cooldown=self.cooldown)
        ranges.plain(self)

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
    """What a learning-rate range test saw.

    Parameters
    ----------
    rates, losses
        Of each update; a loss is that before its update.
    window
        How many losses a mean is over: batches differ, and a single loss says little.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    window: int = 10

    @property
    def means(self) -> tuple[float, ...]:
        """The mean of each run of `window` losses; the first belongs to the rate number `window`."""
        runs = range(self.window, len(self.losses) + 1)
        return tuple(math.fsum(self.losses[i - self.window : i]) / self.window for i in runs)

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the mean loss was least; NaN if it did not fall clearly.

        It fell clearly if it fell by more than 4 standard errors. Noise alone does so in fewer than one test of 100.

        References
        ----------
        fastai's ``minimum``, Howard and Gugger, arXiv:2002.04688; the noise from the squares of successive differences,
        von Neumann et al., The mean square successive difference, Annals of Mathematical Statistics 12, 1941.
        """
        means = self.means
        if not means:
            return math.nan
        least = min(means)
        last = means.index(least) + self.window - 1
        squares = math.fsum((b - a) ** 2 for a, b in itertools.pairwise(self.losses[: last + 1]))
        error = math.sqrt(squares / max(1, last) / self.window)
        return self.rates[last] / 10 if means[0] - least > 4 * error else math.nan


def range_test(
    update: Callable[[float], float], *, low: float = 1e-7, high: float = 1.0, n_steps: int = 100, stop: float = 4.0
) -> RangeTest:
    """Train with rates that grow from `low` to `high` by a constant factor and record the losses.

    Parameters
    ----------
    update
        Makes one update with the given rate, on a copy of the weights, and returns the loss before it.
    n_steps
        Updates at most; means are over a tenth of them.
    stop
        End when the mean loss exceeds the smallest one so far times this, or a loss is no number.

    References
    ----------
    Smith, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, section 3.3.
    """
    ranges.counts("the range test", 1, n_steps=n_steps)
    if not 0 < low < high < math.inf:
        raise SpecError(f"rates from {low:g} to {high:g}", subject="the range test", expected="0 < low < high")
    rates: list[float] = []
    losses: list[float] = []
    window, least = max(1, n_steps // 10), math.inf
    for i in range(n_steps):
        rate = low * (high / low) ** (i / max(1, n_steps - 1))
        loss = float(update(rate))
        if not math.isfinite(loss):
            break
        rates.append(rate)
        losses.append(loss)
        mean = math.fsum(losses[-window:]) / window
        least = min(least, mean) if len(losses) >= window else least
        if mean > stop * least:
            break
    return RangeTest(tuple(rates), tuple(losses), window)

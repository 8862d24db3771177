"""Optimisers and schedules by the names that a command line has for them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from weighttools.errors import SpecError, option
from weighttools.train.optim import chains as optim
from weighttools.train.optim import schedules
from weighttools.train.optim.chains import Optimizer

_DECOUPLED = frozenset({"adamw", "adamw-8bit", "lion", "adafactor", "muon"})
OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {
    f.__name__: f
    for f in (
        optim.adamw,
        optim.adam,
        optim.sgd,
        optim.lion,
        optim.adafactor,
        optim.muon,
        optim.rmsprop,
        optim.adagrad,
    )
} | {"adamw-8bit": functools.partial(optim.adamw, state="8bit")}
SCHEDULES = ("linear", "cosine", "constant", "one-cycle", "inverse-sqrt", "plateau")


def optimizer(
    name: str = "adamw",
    *,
    lr: float = 1e-3,
    schedule: str = "linear",
    warmup: float = 0.0,
    weight_decay: float = 0.01,
    l1: float = 0.0,
    momentum: float = 0.0,
    rates: Mapping[str, float] | None = None,
    n_steps: int | None = None,
) -> Optimizer:
    """Return an optimiser with its schedule.

    Parameters
    ----------
    name
        One of `OPTIMIZERS`.
    lr
        The peak rate.
    schedule
        One of `SCHEDULES`.
    warmup
        Updates to warm up over, or below 1 their share of `n_steps`.
    weight_decay
        Decoupled where the optimiser has it so, else the coupled L2 penalty.
    l1
        Of an L1 penalty by its proximal step, which makes exact zeros.
    momentum
        Of ``"sgd"``.
    rates
        Each array's share of the learning rate.
    n_steps
        Updates in all.

    Raises
    ------
    SpecError
        A name is not known, or a number is out of range.
    """
    if name not in OPTIMIZERS:
        raise SpecError(f"no optimizer is called {name!r}", expected=f"one of {', '.join(OPTIMIZERS)}")
    for what, value in (("learning rate", lr), ("weight decay", weight_decay), ("L1", l1), ("warm-up", warmup)):
        if not math.isfinite(value) or value < 0:
            raise SpecError(f"{what} {value:g}", expected="a number of 0 or more")
    options: dict[str, Any] = {"weight_decay" if name in _DECOUPLED else "l2": weight_decay}
    options |= {"proximal_l1": l1, "rates": dict(rates or {})}
    if momentum and name != "sgd":
        raise SpecError(f"{name} takes no momentum", expected="sgd")
    return OPTIMIZERS[name](
        rate(schedule, lr, warmup, n_steps), **options, **({"momentum": momentum} if momentum else {})
    )


def rate(schedule: str, lr: float, warmup: float = 0.0, n_steps: int | None = None) -> Any:
    """Return a schedule by its name; parameters as `optimizer`'s."""
    n = round(warmup * (n_steps or 0)) if warmup < 1 else int(warmup)
    if 0 < warmup < 1 and n_steps is None:
        raise SpecError(f"a warm-up of {warmup:g} of an unknown number of steps", expected="a number of steps")
    if warmup >= 1 and (warmup != n or (n_steps is not None and n > n_steps)):
        most = "" if n_steps is None else f" up to {n_steps:,}, which there are"
        raise SpecError(f"a warm-up of {warmup:g} updates", expected=f"a whole number{most}, or their share below 1")
    known: dict[str, Callable[[], Any]] = {
        "linear": lambda: schedules.warmup_linear(lr, warmup=n),
        "cosine": lambda: schedules.warmup_cosine(lr, warmup=n),
        "constant": lambda: schedules.constant(lr, warmup=n),
        "one-cycle": lambda: schedules.one_cycle(lr),
        "inverse-sqrt": lambda: schedules.inverse_sqrt(lr, warmup=n),
        "plateau": lambda: schedules.Plateau(lr, patience=1),
    }
    if schedule not in known:
        raise SpecError(f"no schedule is called {schedule!r}", expected=f"one of {', '.join(SCHEDULES)}")
    if n and schedule in ("one-cycle", "plateau"):
        raise SpecError(f"{schedule} has no warm-up of its own", remedy=f"leave {option('warmup')} out")
    return known[schedule]()

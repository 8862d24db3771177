"""Schedules of the learning rate: functions of the update's number; `fit` tells them how many updates there are.

- Rising, then falling: `warmup_linear`, `warmup_cosine`, `one_cycle`
- Others: `constant`, `step_decay`, `inverse_sqrt`, `Plateau`
- Finding a rate: `range_test`
- Their base: `Schedule`
"""

from __future__ import annotations

from weighttools.train.optim.schedules import Plateau as Plateau
from weighttools.train.optim.schedules import Schedule as Schedule
from weighttools.train.optim.schedules import constant as constant
from weighttools.train.optim.schedules import inverse_sqrt as inverse_sqrt
from weighttools.train.optim.schedules import one_cycle as one_cycle
from weighttools.train.optim.schedules import range_test as range_test
from weighttools.train.optim.schedules import step_decay as step_decay
from weighttools.train.optim.schedules import warmup_cosine as warmup_cosine
from weighttools.train.optim.schedules import warmup_linear as warmup_linear

__all__ = [
    "Plateau",
    "Schedule",
    "constant",
    "inverse_sqrt",
    "one_cycle",
    "range_test",
    "step_decay",
    "warmup_cosine",
    "warmup_linear",
]


def __dir__() -> list[str]:
    return sorted(__all__)

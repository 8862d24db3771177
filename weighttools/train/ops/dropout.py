"""Dropout, seeded: the same seed drops the same elements, so that a recomputed layer can be run again."""

from __future__ import annotations

from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.arithmetic import Result
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.operands import floats
from weighttools.train.autograd.variable import operation


@operation
def dropout(x: Array, /, *, rate: float, seed: int | tuple[int, ...] | None) -> Result:
    """Return `x` with a share `rate` of its elements set to zero and the others divided by ``1 - rate``.

    `seed` None is for evaluation: `x` is returned as it is. Give each call of a step its own seed, such as
    ``(run, step, layer)``. Keeps one byte an element.
    """
    if not 0 <= rate < 1:
        raise SpecError(f"a dropout rate of {rate}", expected="0 <= rate < 1")
    if seed is None or rate == 0:
        return x, lambda dy, need: (dy,)
    floats("dropout", x)
    kept = np.random.Generator(np.random.Philox(seed)).random(x.shape, np.float32) >= rate
    scale = 1 / (1 - rate)

    def apply(a: Array) -> Any:
        y = a * kept
        y *= scale
        return y

    return apply(x), lambda dy, need: (apply(dy),)

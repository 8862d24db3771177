"""Chains that one compiled sweep can run, where numba (extra ``[fast]``) is installed; the results are the same."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from weighttools.train.autograd.gradients import Array
from weighttools.train.optim.transforms import Adam, ClipNorm, Transform
from weighttools.train.parallel import LARGE

Stages = Sequence[tuple[Transform, Any]]


def sweep(grads: Mapping[str, Array]) -> Callable[..., None] | None:
    """Return the compiled sweep if there is one, and enough to do that importing numba pays."""
    return _compiled() if sum(g.size for g in grads.values()) >= LARGE else None


@functools.cache
def _compiled() -> Callable[..., None] | None:
    if find_spec("numba") is None:
        return None
    try:
        from weighttools.train.optim.compiled import adam
    except (ImportError, RuntimeError):  # numba does not fit this NumPy, or finds no place for its cache
        return None
    return adam


def fits(chain: Sequence[Transform], p: Array, proximal_l1: float) -> bool:
    """Whether the sweep does what `chain` does to `p`: Adam, which clipping by norm may precede."""
    *first, last = chain or (None,)
    return (
        type(last) is Adam
        and len(first) < 2
        and all(isinstance(stage, ClipNorm) for stage in first)
        and p.dtype.char in "fd"
        and not proximal_l1
    )


def run(
    adam: Callable[..., None],
    stages: Stages,
    rate: float,
    ends: tuple[float, float],
    p: Array,
    grad: Array,
    slots: Mapping[str, Array],
) -> None:
    """Do to one flat piece what the chain does; `stages`, `rate` and `ends` as `optim` has them."""
    *first, (last, (scale, eps)) = stages
    factor = 1.0
    for stage, common in first:
        factor = stage.factor(common)  # type: ignore[attr-defined]
    number = p.dtype.type
    betas = (number(b) for b in last.betas)  # type: ignore[attr-defined]
    m, v = slots["first_moment_sum"], slots["second_moment_sum"]
    adam(p, grad, m, v, number(factor), *betas, number(eps), number(scale * rate), number(ends[0]))

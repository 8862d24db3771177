"""Check a pullback against differences of the operation itself, along random directions in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from weighttools.train import ops
from weighttools.train.autograd.tape import value_and_grad

_STENCIL = ((1, 3 / 4), (-1, -3 / 4), (2, -3 / 20), (-2, 3 / 20), (3, 1 / 60), (-3, -1 / 60))


def slope(f: Callable[[float], float], h: float) -> float:
    """Return df/dt at 0 by the seven-point formula, whose error is of order h**6."""
    return sum(c * f(k * h) for k, c in _STENCIL) / h


def gradcheck(
    f: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    *,
    seed: int,
    h: float = 1e-3,
    bound: float = 1e-7,
    **options: Any,
) -> None:
    """Fail unless f's gradient by each array, projected on a random direction, agrees with differences.

    The error is relative to the projection, or to what a projection of such a gradient is on average, if larger.
    """
    rng = np.random.default_rng(seed)
    shape = np.shape(f(*arrays, **options))
    weights = rng.standard_normal(shape)

    def scalar(p: dict[str, Any]) -> Any:
        return ops.sum(ops.mul(f(*(p[str(i)] for i in range(len(arrays))), **options), weights))

    params = {str(i): a for i, a in enumerate(arrays)}
    _, grads = value_and_grad(scalar, params)
    for name, array in params.items():
        _, alone = value_and_grad(scalar, params, train=[name])
        assert np.allclose(alone[name], grads[name], rtol=1e-13, atol=1e-13), "depends on which others are wanted"
        grad, direction = grads[name], rng.standard_normal(array.shape)
        assert grad.shape == array.shape and grad.dtype == array.dtype == np.float64
        ours = float(np.vdot(grad, direction))
        found = slope(lambda t: float(scalar({**params, name: array + t * direction})), h)  # noqa: B023
        scale = max(abs(ours), float(np.linalg.norm(grad)), 1e-3)
        assert abs(ours - found) <= bound * scale, f"array {name}: {ours} by the pullback, {found} by differences"

"""A weight with a low-rank change: ``linear`` and ``transpose`` take it for the array that it stands for.

>>> import numpy as np
>>> from weighttools.train.ops import linear
>>> w, a, b = np.zeros((3, 4)), np.ones((1, 4)), np.ones((3, 1))
>>> linear(np.ones((1, 4)), LowRank(w, a, b, scale=0.5)).tolist()
[[2.0, 2.0, 2.0]]

References
----------
Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.arithmetic import Result
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.variable import StandIn, Variable, operation
from weighttools.train.ops.dense import check_weights, column_sums
from weighttools.train.ops.dropout import dropout
from weighttools.train.ops.product import product

Seed = tuple[int, ...] | None


@operation
def low_rank_linear(
    x: Array, w: Array, a: Array, b: Array, bias: Array | None = None, /, *, scale: float, rate: float, seed: Seed
) -> Result:
    """Return ``x @ w.T + bias + scale * (dropout(x) @ a.T) @ b.T``; the change ``b @ a`` is never made.

    Parameters
    ----------
    x
        (..., n_in).
    w, a, b, bias
        (n_out, n_in), (rank, n_in), (n_out, rank), (n_out,) or none. One that is no variable costs no gradient work.
    rate, seed
        The dropout before `a`; none where `seed` is None.
    """
    check_weights(w, bias)
    if a.shape != (a.shape[0], w.shape[1]) or b.shape != (w.shape[0], a.shape[0]):
        raise ValueError(f"factors (rank, {w.shape[1]}) and ({w.shape[0]}, rank) are wanted")
    shape, n_rows, is_dropped = x.shape, math.prod(x.shape[:-1]), bool(rate) and seed is not None
    rows = x.reshape(n_rows, shape[-1])

    def dropped(values: Array) -> Any:  # drawn again on the way back, not kept
        return dropout(values, rate=rate, seed=seed) if is_dropped else values

    h = np.matmul(dropped(rows), a.T)
    h *= scale
    y = product(rows, w.T, bias, (h, b.T))

    def pullback(dy: Array, need: Any) -> Any:
        d = dy.reshape(n_rows, dy.shape[-1])
        g = np.matmul(d, b)
        g *= scale
        dx = product(d, w, None, None if is_dropped else (g, a)) if need[0] else None
        if dx is not None and is_dropped:
            dx += dropped(np.matmul(g, a))
        dw = product(d.T, rows) if need[1] else None
        da = np.matmul(g.T, dropped(rows)) if need[2] else None
        db = np.matmul(d.T, h) if need[3] else None
        return (_shaped(dx, shape), dw, da, db, column_sums(d) if bias is not None and need[4] else None)[: len(need)]

    return y.reshape(*shape[:-1], w.shape[0]), pullback


def _shaped(a: Array | None, shape: tuple[int, ...]) -> Array | None:
    return None if a is None else a.reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class LowRank(StandIn):
    """The matrix ``weight + scale * b @ a`` (or that transposed), of which only `a` and `b` are trained.

    Parameters
    ----------
    weight
        The frozen matrix as its file has it: (n_out, n_in), or (n_in, n_out) where `is_turned`.
    a, b
        (rank, n_in) and (n_out, rank), arrays or variables.
    scale
        alpha / rank, or alpha / sqrt(rank) (Kalajdzievski, arXiv:2312.03732).
    is_turned
        Whether the file has (n_in, n_out), as GPT-2's; `transpose` changes it.
    rate, seed
        Dropout of the adapter's inputs; `seed` None is for evaluation.
    name
        What to call it in a message.
    """

    weight: Any
    a: Any
    b: Any
    scale: float
    is_turned: bool = False
    rate: float = 0.0
    seed: Seed = None
    name: str = "a low-rank weight"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the matrix that it stands for."""
        return tuple(self.weight.shape)

    @property
    def ndim(self) -> int:
        """Two."""
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        """The frozen matrix's dtype."""
        return self.weight.dtype

    @property
    def parts(self) -> tuple[Any, ...]:
        """The frozen matrix and the two factors."""
        return self.weight, self.a, self.b

    def with_parts(self, *parts: Any) -> LowRank:
        """Return it with another matrix and other factors."""
        weight, a, b = parts
        return replace(self, weight=weight, a=a, b=b)

    def operate(self, operation: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Do what `linear` and `transpose` do.

        Raises
        ------
        SpecError
            It is another operation, or the matrix is used the other way round.
        """
        if operation.__name__ == "transpose" and not any(options.values()):
            turned = self.weight.transpose() if isinstance(self.weight, Variable) else self.weight.T
            return replace(self, weight=turned, is_turned=not self.is_turned)
        if operation.__name__ == "linear" and len(args) > 1 and args[1] is self:
            return self._linear(args[0], *args[2:])
        self._refuse(operation.__name__)

    def _linear(self, x: Any, bias: Any = None) -> Any:
        if self.is_turned:
            raise SpecError(
                "the model multiplies by this weight the other way round",
                subject=self.name,
                remedy="give fan_in_fan_out=False (True for a file that stores (in, out))",
            )
        options = {"scale": self.scale, "rate": self.rate, "seed": self.seed}
        more = () if bias is None else (bias,)
        return low_rank_linear(x, self.weight, self.a, self.b, *more, **options)

    def _refuse(self, what: str) -> NoReturn:
        raise SpecError(
            f"the model uses this weight in {what!r}",
            subject=self.name,
            expected="a weighted sum, `linear`",
            remedy="leave it out of the adapter's targets",
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        self._refuse("NumPy")

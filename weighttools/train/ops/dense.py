"""The weighted sum and the table of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighttools.core import blas
from weighttools.errors import SpecError
from weighttools.train.autograd.arithmetic import Result
from weighttools.train.autograd.gradients import Array, Slot
from weighttools.train.autograd.variable import operation
from weighttools.train.ops.product import product
from weighttools.train.parallel import CHEAP, blocks, spread


def column_sums(x: Array) -> Any:
    """Return the sum over the rows of a matrix, by BLAS."""
    if x.size < CHEAP or not blas.is_single():
        return np.ones(len(x), x.dtype) @ x
    ones, y = np.ones(len(x), x.dtype), np.empty(x.shape[1], x.dtype)

    def kernel(start: int, stop: int) -> None:
        np.matmul(ones, x[:, start:stop], out=y[start:stop])

    spread(kernel, blocks(x.shape[1], len(x), x.size))
    return y


def check_weights(w: Array, b: Any) -> None:
    """Raise ValueError unless `w` is a matrix and `b` a vector of as many numbers as it has rows, or none."""
    if w.ndim != 2:
        raise ValueError("a weight (n_out, n_in) is wanted")
    if b is not None and np.shape(b) != (w.shape[0],):
        raise ValueError(f"a bias of shape {(w.shape[0],)} is wanted")


@operation
def linear(x: Array, w: Array, b: Array | None = None, /) -> Result:
    """Return the weighted sum ``x @ w.T + b``.

    Parameters
    ----------
    x
        (..., n_in).
    w
        (n_out, n_in), as most files store it; pass ``transpose(w)`` for a file that stores (n_in, n_out).
    b
        (n_out,), or none.
    """
    check_weights(w, b)
    shape, n_rows = x.shape, math.prod(x.shape[:-1])
    rows = x.reshape(n_rows, shape[-1])
    y = product(rows, w.T, b)

    def pullback(dy: Array, need: Any) -> Any:
        d = dy.reshape(n_rows, dy.shape[-1])
        dx = product(d, w).reshape(shape) if need[0] else None
        dw = product(d.T, rows) if need[1] else None
        db = column_sums(d) if b is not None and need[2] else None
        return (dx, dw, db)[: len(need)]

    return y.reshape(*shape[:-1], w.shape[0]), pullback


@dataclass(frozen=True, slots=True)
class RowGradient:
    """A table's gradient that touches only the rows `ids`, which may repeat; it is scattered, never a second table.

    `shape` is the table's.
    """

    shape: tuple[int, ...]
    ids: Array
    values: Array

    def into(self, slot: Slot) -> None:
        """Add the rows to the slot's gradient."""
        if slot.grad is None:
            slot.grad = np.zeros(self.shape, self.values.dtype)
        elif not slot.owned:
            slot.grad = slot.grad.copy()
        slot.owned = True
        for i, row in zip(self.ids.tolist(), self.values, strict=True):
            slot.grad[i] += row


@operation
def embedding(table: Array, /, *, ids: Array) -> Result:
    """Return the rows of `table` (n_rows, n) that the integers `ids` (any shape) name: shape (\\*ids.shape, n).

    Raises
    ------
    SpecError
        A number names no row, or `ids` are no integers.
    """
    ids = np.asarray(ids)
    if table.ndim != 2:
        raise ValueError("a table (n_rows, n) is wanted")
    if ids.size and ids.dtype.kind not in "iu":
        raise SpecError(f"ids of {ids.dtype}", subject="embedding", expected="integers")
    if ids.size and not 0 <= ids.min() <= ids.max() < len(table):
        raise SpecError(
            f"rows {ids.min():,} to {ids.max():,} are asked for, but the table has {len(table):,} rows",
            expected=f"0 to {len(table) - 1:,}",
        )
    shape = table.shape
    return table[ids], lambda dy, need: (RowGradient(shape, ids.reshape(-1), dy.reshape(-1, shape[1])),)

"""Rows and columns of tensors that are read in flat runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighttools.core.spec import Spec
from weighttools.families.axes import TORCH, Axes

if TYPE_CHECKING:
    from weighttools.core.spec import Array

MAX_COLUMNS = 1 << 20
"""Tensors of longer rows are not looked at by column: what would be held for each would break the memory bound."""

MAX_ROWS = 1 << 22
"""Likewise for rows."""


def folded(spec: Spec, axes: Axes = TORCH) -> tuple[int, int] | None:
    """Return rows and columns of a tensor as a matrix: its first axis by all others, or as its layout parts them.

    None for tensors of fewer than two axes, without elements, or beyond the limits above.
    """
    if len(spec.shape) < 2 or not spec.n_elements:
        return None
    rows, columns = math.prod(spec.shape[: axes.cut]), math.prod(spec.shape[axes.cut :])
    return (rows, columns) if rows <= MAX_ROWS and columns <= MAX_COLUMNS else None


def along(rows: Array, columns: Array, shape: tuple[int, ...], axes: Axes, which: tuple[int, ...]) -> Array | None:
    """Return the largest value in each unit along some axes, from those in each row and column of the matrix.

    Parameters
    ----------
    rows, columns
        Of the matrix that `axes` makes of a tensor of this shape; of booleans, whether any holds.
    which
        ``axes.outputs`` or ``axes.inputs``; None is returned where there are none.
    """
    if not which:
        return None
    values, sides = (rows, shape[: axes.cut]) if which[0] < axes.cut else (columns, shape[axes.cut :])
    first = which[0] - (0 if which[0] < axes.cut else axes.cut)
    parts = (sides[:first], sides[first : first + len(which)], sides[first + len(which) :])
    found: Array = values.reshape([math.prod(part) for part in parts]).max(axis=(0, 2))  # NumPy has 64 axes at most
    return found


def padded(values: Array, start: int, columns: int) -> tuple[int, Array]:
    """Return the row that flat position `start` is in, and `values` as whole rows, filled up with zeros."""
    import numpy as np

    first, lead = divmod(start, columns)
    n_rows = -(-(lead + values.size) // columns)
    if lead == 0 and values.size == n_rows * columns:
        return first, values.reshape(n_rows, columns)
    whole = np.zeros(n_rows * columns, values.dtype)
    whole[lead : lead + values.size] = values
    return first, whole.reshape(n_rows, columns)


def line_sums(values: Array, start: int, columns: int) -> tuple[int, Array, Array]:
    """Return the row that flat position `start` is in, the sums of that row and those that follow, and of each column.

    A row that the values hold only a part of is summed over that part; nothing is copied.
    """
    import numpy as np

    first, lead = divmod(start, columns)
    head = values[: -lead % columns]
    whole = values[head.size : head.size + (values.size - head.size) // columns * columns].reshape(-1, columns)
    tail = values[head.size + whole.size :]
    of_columns = whole.sum(axis=0)
    of_columns[lead : lead + head.size] += head
    of_columns[: tail.size] += tail
    ends = [part.sum(keepdims=True) if part.size else part for part in (head, tail)]
    return first, np.concatenate([ends[0], whole.sum(axis=1), ends[1]]), of_columns


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Values of rows `first`, `first` + 1, …; where two strips meet, the larger (of booleans, either) holds."""

    first: int
    values: Array

    def merge(self, other: Strip) -> Strip:
        """Return one strip over the rows of both; rows of neither are zero."""
        import numpy as np

        first = min(self.first, other.first)
        last = max(self.first + len(self.values), other.first + len(other.values))
        joined = np.zeros((last - first, *self.values.shape[1:]), self.values.dtype)
        for strip in (self, other):
            part = joined[strip.first - first : strip.first - first + len(strip.values)]
            np.maximum(part, strip.values, out=part)
        return Strip(first, joined)

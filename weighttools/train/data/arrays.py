"""Training data in memory: arrays with one row a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.batches import Batch


@dataclass(frozen=True, slots=True, eq=False)
class ArrayColumns:
    """Arrays by what they mean to a batch; see `arrays`."""

    columns: Mapping[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def batch(self, indices: Array) -> Batch:
        """Return the rows at `indices`; features that are integers become float32."""
        rows = {name: column[indices] for name, column in self.columns.items()}
        if "inputs" in rows and rows["inputs"].dtype.kind in "iub":
            rows["inputs"] = rows["inputs"].astype(np.float32)
        return rows

    def column(self, name: str) -> Array | None:
        """Return a column whole."""
        return self.columns.get(name)


def arrays(x: Any = None, y: Any = None, sample_weight: Any = None, **columns: Any) -> ArrayColumns:
    """Return data for `fit` from arrays with one row a sample.

    Parameters
    ----------
    x
        Features (n, ...); integers and booleans count as numbers (give tokens as ``ids=``).
    y
        Labels, values or tokens (n, ...).
    sample_weight
        (n,) numbers, 0 or more.
    columns
        More of what `Batch` lists, such as ``ids`` and ``mask``, or what a model of your own asks for.

    Raises
    ------
    SpecError
        Lengths differ, there are no rows, or a value is NaN or infinite; its row is named.

    Examples
    --------
    >>> data = arrays(np.zeros((3, 2), np.float32), [0, 1, 1])
    >>> len(data), sorted(data.batch(np.array([2, 0])))
    (3, ['inputs', 'target'])
    """
    given = {"inputs": x, "target": y, "sample_weight": sample_weight, **columns}
    found = {name: _column(name, value) for name, value in given.items() if value is not None}
    if not found:
        raise SpecError("there are no arrays", subject="data", expected="features and targets")
    lengths = {name: len(column) for name, column in found.items()}
    if len(set(lengths.values())) > 1:
        raise SpecError(f"columns of different length: {lengths}", subject="data", expected="one row a sample in each")
    if not next(iter(lengths.values())):
        raise SpecError("there are no samples", subject="data", expected="one or more")
    if sample_weight is not None:
        _check_weights(found["sample_weight"])
    return ArrayColumns(found)


def _column(name: str, value: Any) -> Array:
    column = np.asarray(value)
    if column.ndim == 0:
        raise SpecError(f"a single {column.dtype}", subject=name, expected="an array with one row a sample")
    if len(column) and not column.size:
        raise SpecError(f"an array of shape {column.shape}", subject=name, expected="one number a sample, or more")
    if column.dtype.kind not in "fiub":
        raise SpecError(
            f"values of {column.dtype}", subject=name, expected="numbers",
            remedy="number classes by numpy.unique(labels, return_inverse=True)",
        )  # fmt: skip
    row = first_bad_row(column)
    if row is not None:
        raise SpecError(f"sample {row} holds NaN or infinity", subject=name, remedy="drop it, or fill it in")
    return column


def _check_weights(weight: Array) -> None:
    if weight.ndim != 1 or weight.min() < 0 or not weight.any():
        fact = f"weights of shape {weight.shape}, from {weight.min():g} to {weight.max():g}"
        raise SpecError(fact, subject="sample_weight", expected="a number >= 0 for each sample, not all of them 0")


def first_bad_row(column: Array, piece: int = 1 << 20) -> int | None:
    """Return the first row with a NaN or an infinity; None if there is none."""
    if column.dtype.kind != "f" or not column.size:
        return None
    rows = max(1, piece // max(1, column[0].size))
    for start in range(0, len(column), rows):
        block = column[start : start + rows]
        if not np.isfinite(block).all():
            bad = ~np.isfinite(block).reshape(len(block), -1).all(1)
            return start + int(np.flatnonzero(bad)[0])
    return None

"""Rows and columns of zeros in matrices that are not zero throughout: outputs that never fire, inputs never read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weighttools.analyzers.axes import Strip, along, folded, padded
from weighttools.core.findings import NOTE, WARNING, Finding
from weighttools.families.axes import TORCH, Axes
from weighttools.families.role_types import Role

if TYPE_CHECKING:
    from weighttools.analyzers.checks.values import SurveyedTensor
    from weighttools.analyzers.run import Block, Record
    from weighttools.core.spec import Array, Spec


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Which rows and columns of a matrix hold anything but zeros; None for what is no matrix."""

    rows: Strip | None
    columns: Array | None
    axes: Axes = TORCH

    def merge(self, other: Lines) -> Lines:
        """Return the lines of both parts of one tensor."""
        if self.rows is None or other.rows is None or self.columns is None or other.columns is None:
            return Lines(None, None)
        return Lines(self.rows.merge(other.rows), np.logical_or(self.columns, other.columns), self.axes)

    def finish(self, spec: Spec | None = None) -> Record:
        """Return what is dead of a tensor's outputs and of its inputs: ``dead_rows``, ``dead_columns``."""
        if self.rows is None or self.columns is None or spec is None:
            return {}
        found = (self.rows.values, self.columns, spec.shape, self.axes)
        ends = {"dead_rows": self.axes.outputs, "dead_columns": self.axes.inputs}
        return {key: _dead(along(*found, which), self.axes.named(which)) for key, which in ends.items() if which}


class Dead(NamedTuple):
    """How many of `n` units are zero throughout, the first of them, and what to call them."""

    n_dead: int
    n: int
    first: int
    what: str


def _dead(live: Array | None, what: str) -> Dead:
    assert live is not None
    dead = np.flatnonzero(~live)
    return Dead(dead.size, live.size, int(dead[0]) if dead.size else 0, what)


def of(block: Block) -> Lines:
    """Return the lines of a block that hold anything but zeros; NaN is not zero."""
    matrix = folded(block.spec, block.axes)
    if matrix is None or not block.values.size:
        return Lines(None, None)
    n_columns = matrix[1]
    if not block.summary.zeros.n_zero:
        first, last = block.start // n_columns, (block.start + block.values.size - 1) // n_columns
        return Lines(Strip(first, np.ones(last - first + 1, bool)), _covered(block, n_columns), block.axes)
    first, rows = padded(block.values != 0, block.start, n_columns)
    return Lines(Strip(first, np.any(rows, axis=1)), np.any(rows, axis=0), block.axes)


def _covered(block: Block, n_columns: int) -> Array:
    """Return which columns a block has elements of."""
    columns = np.zeros(n_columns, bool)
    start = block.start % n_columns
    columns[start : start + block.values.size] = True
    columns[: max(0, start + block.values.size - n_columns)] = True
    return columns


def check(seen: Sequence[SurveyedTensor]) -> Iterator[Finding]:
    """Yield findings for each parameter matrix with some, but not only, outputs or inputs of zeros."""
    for tensor in seen:
        if not tensor.is_parameter:
            continue
        is_table = tensor.told.role is Role.EMBEDDING  # rows of padding, and of tokens that never came
        for code, severity in (("dead-rows", NOTE if is_table else WARNING), ("dead-columns", NOTE)):
            dead = tensor.dead.get(code.replace("-", "_"))
            if dead and 0 < dead.n_dead < dead.n:
                line = dead.what.partition(" ")[0].removesuffix("s")
                message = (
                    f"{dead.n_dead:,} of {dead.n:,} {dead.what} of {tensor.name!r} are zero,"
                    f" first {line} {dead.first:,}"
                )
                yield Finding(severity, code, message, tensor.name)

"""Rows of zeros in matrices that are not zero throughout: outputs that never fire."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weighttools.analyzers.axes import Strip, folded, padded
from weighttools.core.findings import NOTE, WARNING, Finding
from weighttools.families.roles import Role

if TYPE_CHECKING:
    from weighttools.analyzers.checks.values import Seen
    from weighttools.analyzers.run import Block, Record
    from weighttools.core.tensor import Spec


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Which rows of a matrix hold anything but zeros; None for what is no matrix."""

    live: Strip | None

    def merge(self, other: Rows) -> Rows:
        """Return the rows of both parts of one tensor."""
        if self.live is None or other.live is None:
            return Rows(None)
        return Rows(self.live.merge(other.live))

    def finish(self, spec: Spec | None = None) -> Record:
        """Return ``n_dead_rows`` and the ``first_dead_row``; null for what is no matrix."""
        if self.live is None:
            return {"n_dead_rows": None, "first_dead_row": None}
        dead = np.flatnonzero(~self.live.values)
        return {"n_dead_rows": dead.size, "first_dead_row": int(dead[0]) if dead.size else None}


def of(block: Block) -> Rows:
    """Return the rows of a block that hold anything but zeros; NaN is not zero."""
    matrix = folded(block.spec)
    if matrix is None or not block.values.size:
        return Rows(None)
    columns = matrix[1]
    if not block.summary.zeros.n_zero:
        first, last = block.start // columns, (block.start + block.values.size - 1) // columns
        return Rows(Strip(first, np.ones(last - first + 1, bool)))
    first, rows = padded(block.values != 0, block.start, columns)
    return Rows(Strip(first, np.any(rows, axis=1)))


def check(seen: Sequence[Seen]) -> Iterator[Finding]:
    """Yield a finding for each parameter matrix with some, but not only, rows of zeros."""
    for tensor in seen:
        found = tensor.rows.finish()
        n, n_rows = found["n_dead_rows"], tensor.spec.shape[0] if tensor.spec.shape else 0
        if n and n < n_rows and tensor.is_parameter:
            is_table = tensor.told.role is Role.EMBEDDING  # rows of padding, and of tokens that never came
            severity = NOTE if is_table else WARNING
            message = f"{n:,} of {n_rows:,} rows of {tensor.name!r} are zero, first row {found['first_dead_row']:,}"
            yield Finding(severity, "dead-rows", message, tensor.name)

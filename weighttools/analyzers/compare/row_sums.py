"""Rows of matrices from flat blocks: figures of each row that add up where blocks meet within one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from weighttools.core.spec import Array


@dataclass(frozen=True, slots=True, eq=False)
class RowSums:
    """Sums of rows `first`, `first` + 1, …: an array with a row for each."""

    first: int
    values: Array

    def merge(self, other: RowSums) -> RowSums:
        """Return the sums over both, of which the other follows; a row that both have a part of is added up."""
        if not len(self.values) or not len(other.values):
            return self if len(self.values) else other
        shared = self.first + len(self.values) - other.first
        if shared == 0:
            return RowSums(self.first, np.concatenate([self.values, other.values]))
        head = other.values[:shared].copy()
        head += self.values[len(self.values) - shared :]
        return RowSums(
            self.first, np.concatenate([self.values[: len(self.values) - shared], head, other.values[shared:]])
        )

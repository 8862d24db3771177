"""Zeros and near-zeros: how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from weighttools.core.spec import Spec

if TYPE_CHECKING:
    from weighttools.analyzers.run import Block, Record


class Zeros(NamedTuple):
    """How many of `n_elements` elements are zero (-0.0 is), and how many have a magnitude of at most eps."""

    n_elements: int = 0
    n_zero: int = 0
    n_near: int = 0

    def merge(self, other: Zeros) -> Zeros:
        """Add up."""
        return Zeros(self.n_elements + other.n_elements, self.n_zero + other.n_zero, self.n_near + other.n_near)

    def finish(self, spec: Spec | None = None) -> Record:
        """Return ``n_zero``, ``sparsity`` (the fraction of zeros; null without elements) and ``n_near_zero``."""
        sparsity = self.n_zero / self.n_elements if self.n_elements else None
        return {"n_zero": self.n_zero, "sparsity": sparsity, "n_near_zero": self.n_near}


def of(block: Block) -> Zeros:
    """Return the zeros of a block."""
    return block.summary.zeros

"""Columns for ``weighttools stats``: how many values are above zero, how many below, and the share of the former."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from weighttools.analyzers.base import Analyzer
from weighttools.analyzers.run import Block
from weighttools.core.spec import Spec


class Signs(NamedTuple):
    """How many values are above and below zero."""

    n_positive: int = 0
    n_negative: int = 0

    def merge(self, other: Signs) -> Signs:
        """Return the counts of both parts together."""
        return Signs(self.n_positive + other.n_positive, self.n_negative + other.n_negative)

    def finish(self, spec: Spec | None = None) -> dict[str, Any]:
        """Return the figures; null where there is nothing to tell."""
        n = self.n_positive + self.n_negative
        return {**self._asdict(), "share_positive": self.n_positive / n if n else None}


def signs(block: Block) -> Signs:
    """Return the counts of a block; NaN has no sign."""
    found = Signs()
    for values in block.chunks():  # float64, whatever the tensor's dtype; of complex numbers the magnitudes
        found = found.merge(Signs(int(np.count_nonzero(values > 0)), int(np.count_nonzero(values < 0))))
    return found


ANALYZER = Analyzer(signs, ("n_positive", "n_negative", "share_positive"), "how many values are above and below zero")

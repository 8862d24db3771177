"""Square matrices of one name that are one another's transposes: shapes do not tell, values do."""

from __future__ import annotations

import math
from collections.abc import Iterable

from weighttools.analyzers.compare.arrangements import are_equal
from weighttools.analyzers.compare.figures import compare_pairs
from weighttools.analyzers.compare.rows import TensorChange
from weighttools.core.permuted import permuted

ROUNDING = 1e-6
"""How far the norms of a matrix and of its transpose may lie apart, as they are summed in another order."""


def with_transposes(changes: Iterable[TensorChange]) -> list[TensorChange]:
    """Return the changes, in which a square matrix that was transposed is held against its transpose.

    Only those of equal norms and as many zeros are looked at, and read again.
    """
    return [_turned(change) if _may_be_turned(change) else change for change in changes]


def _may_be_turned(change: TensorChange) -> bool:
    shape, figures = change.pair.after.shape, change.figures
    return (
        len(shape) == 2
        and shape[0] == shape[1]
        and bool(figures.n_changed)
        and figures.n_zero_before == figures.n_zero_after
        and math.isclose(figures.l2_before, figures.l2_after, rel_tol=ROUNDING)
    )


def _turned(change: TensorChange) -> TensorChange:
    pair, shape = change.pair, change.pair.after.shape
    before = permuted(pair.before, shape, (1, 0), shape)
    if not are_equal(before, pair.after):
        return change
    found = pair._replace(how="transposed", before=before)
    [figures] = compare_pairs([found])
    return TensorChange(found, figures)

"""Tensors of one name and shape of which one is the other with its axes in another order: values tell it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from weighttools.analyzers.compare.arrangements import arranged
from weighttools.analyzers.compare.figures import compare_pairs
from weighttools.analyzers.compare.pair import Pair
from weighttools.analyzers.compare.rows import TensorChange
from weighttools.core.permuted import permuted

ROUNDING = 1e-6
"""How far the norms of a matrix and of its transpose may lie apart, as they are summed in another order."""


def with_transposes(changes: Iterable[TensorChange]) -> list[TensorChange]:
    """Return the changes, in which a tensor whose equal axes were exchanged is held against the other so arranged.

    Only those of equal norms and as many zeros are looked at, and read again.
    """
    return [_turned(change) if _may_be_turned(change) else change for change in changes]


def _may_be_turned(change: TensorChange) -> bool:
    sides, figures = [n for n in change.pair.after.shape if n > 1], change.figures
    return (
        len(set(sides)) < len(sides)
        and bool(figures.n_changed)
        and figures.n_zero_before == figures.n_zero_after
        and math.isclose(figures.l2_before, figures.l2_after, rel_tol=ROUNDING)
    )


def _turned(change: TensorChange) -> TensorChange:
    arrangement = arranged(change.pair.before, change.pair.after)
    if arrangement is None or not arrangement.is_moved:
        return change
    found = change.pair._replace(how="transposed", before=arrangement.tensor)
    [figures] = compare_pairs([found])
    return TensorChange(found, figures)


NEAR = 0.9
"""The cosine from which on a tensor in another order of axes is the same one, trained further."""


def reshaped_transposes(pairs: Iterable[Pair]) -> list[TensorChange]:
    """Return the pairs of one name whose shapes are permutations, where values are near in that order of axes.

    Only shapes of different sides are looked at: there is one order then.
    """
    found = []
    for pair in pairs:
        folded = tuple(n for n in pair.before.shape if n > 1)
        wanted = tuple(n for n in pair.after.shape if n > 1)
        if sorted(folded) != sorted(wanted) or folded == wanted or len(set(folded)) < len(folded):
            continue
        axes = tuple(folded.index(n) for n in wanted)
        turned = pair._replace(how="transposed", before=permuted(pair.before, folded, axes, pair.after.shape))
        [figures] = compare_pairs([turned])
        if (figures.cosine or 0) >= NEAR:
            found.append(TensorChange(turned, figures))
    return found

"""From pairs and their figures to the rows of a record: tensors, groups and the total."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from weighttools.analyzers import counts
from weighttools.analyzers.compare.pair import Pair, PairFigures
from weighttools.core.spec import Spec
from weighttools.formats.base import plain

Row = dict[str, Any]

TENSOR_COLUMNS = (
    "name", "src", "what", "dtype", "shape", "n_elements", "n_bits", "n_changed", "share", "n_beyond", "n_not_finite",
    "n_zeroed", "max_abs", "max_at", "l2", "rel_l2", "cosine", "l2_before", "l2_after",
)  # fmt: skip
"""What a row of a changed tensor has."""
GROUP_COLUMNS = (
    "group",
    "n_tensors",
    "n_tensors_changed",
    "n_elements",
    "n_changed",
    "share",
    "n_not_finite",
    "max_abs",
    "l2",
    "rel_l2",
)
"""What a row of a group has."""


class TensorChange(NamedTuple):
    """A pair and its figures."""

    pair: Pair
    figures: PairFigures

    @property
    def what(self) -> str | None:
        """``"values"``, or ``"bits"`` where no value differs but bits do; None where nothing does."""
        if self.figures.n_changed:
            return "values"
        return "bits" if self.figures.n_bits else None

    def row(self) -> Row:
        """Return the row of a changed tensor; figures beyond all numbers are infinite, so that rows sort by them.

        An element that became NaN or infinite, or ceased to be so, is as far from what it was as can be: no finite
        figure tells of it, and a small one of the others would hide it.
        """
        figures, spec = self.figures, self.pair.after.spec
        named = {"name": self.pair.new, "src": self.pair.old, "what": self.what, "dtype": spec.dtype.name}
        found = {
            **named,
            "shape": list(spec.shape),
            **{name: getattr(figures, name) for name in TENSOR_COLUMNS if hasattr(figures, name)},
            "share": share(figures.n_changed, figures.n_elements),
            "max_at": _index(figures, spec),
            **(_BROKEN if figures.broken_at is not None else {}),
        }
        return {name: found[name] for name in TENSOR_COLUMNS}


_BROKEN = {"max_abs": math.inf, "l2": math.inf, "rel_l2": math.inf, "cosine": None}
"""The figures of a tensor of which an element became NaN or infinite, or ceased to be so."""


def plain_rows(rows: Iterable[Row]) -> list[Row]:
    """Return rows as records have them: what is infinite is null."""
    return [{name: plain(value) for name, value in row.items()} for row in rows]


def share(n: int, of: int) -> float | None:
    """Return what part of a number another is."""
    return n / of if of else None


def _index(figures: PairFigures, spec: Spec) -> list[int] | None:
    """Return where the greatest difference is, a number for each axis; None where there is none."""
    first = figures.max_at if figures.broken_at is None else figures.broken_at
    if first is None or not (figures.max_abs or figures.broken_at is not None):
        return None
    index, left = [], first
    for length in reversed(spec.shape):
        left, at = divmod(left, length)
        index.append(at)
    return index[::-1]


def groups(changes: Iterable[TensorChange], by: str, depth: int) -> list[Row]:
    """Return a row for each module, dtype or beginning of a name, in order of first appearance."""
    key = counts.grouping(by, depth)
    found: dict[str, list[TensorChange]] = {}
    for change in changes:
        found.setdefault(key(change.pair.new, change.pair.after.spec), []).append(change)
    return [{"group": name, **together(several)} for name, several in found.items()]


def together(changes: Sequence[TensorChange]) -> Row:
    """Return the figures of several pairs: norms are over those that changed."""
    changed = [one.figures for one in changes if one.figures.n_changed]
    n_elements, n_changed = sum(one.figures.n_elements for one in changes), sum(one.n_changed for one in changed)
    is_broken = any(one.broken_at is not None for one in changed)
    l2, l2_before = math.hypot(*(one.l2 for one in changed)), math.hypot(*(one.l2_before for one in changed))
    found = {
        "n_tensors": len(changes),
        "n_tensors_changed": sum(1 for one in changes if one.what),
        "n_elements": n_elements,
        "n_changed": n_changed,
        "share": share(n_changed, n_elements),
        "n_not_finite": sum(one.n_not_finite for one in changed),
        "max_abs": max((one.max_abs for one in changed if one.max_abs is not None), default=0.0),
        "l2": l2,
        "rel_l2": l2 / l2_before if l2_before else None if l2 else 0.0,
    }
    return found | dict.fromkeys(("max_abs", "l2", "rel_l2"), math.inf) if is_broken else found

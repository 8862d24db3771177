"""Rows of embeddings and heads: appended, removed, or trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from weighttools.analyzers.axes import padded
from weighttools.analyzers.compare.explain.context import ChangedPair, ExplanationContext, Findings
from weighttools.analyzers.compare.explain.questions import (
    PairQuestions,
    SideBySide,
    States,
    finish_states,
    merge_states,
)
from weighttools.analyzers.compare.explain.wording import listed
from weighttools.analyzers.compare.pair import Explanation, Pair
from weighttools.analyzers.compare.row_sums import RowSums
from weighttools.core.fold import Fold, fold_blocks
from weighttools.core.tree import ranges
from weighttools.families.role_types import Role

CODE = "rows-trained"
MOST_COLUMNS = 1 << 18
"""Columns of a table: no embedding is wider."""
MOST_CHANGED = 0.5
"""Of the rows: a table that more of changed was trained as a whole."""
LEAST_CHANGED = 0.5
"""Of the elements of rows that were trained."""
MOST_TRAINED = 0.3
"""The norm of a change, by that of the rows, with which they are still the same rows."""
MOST_RANGES = 6
"""Runs of rows that a sentence lists."""


class RowChanges(NamedTuple):
    """Which rows of how many changed, in how many elements, and the norm of the change by that of what was there."""

    rows: tuple[int, ...]
    n_rows: int
    n_elements: int
    rel_l2: float


@dataclass(frozen=True, slots=True)
class RowsQuestion:
    """Asks which rows of a table of so many columns changed."""

    n_columns: int

    def of(self, block: SideBySide) -> RowSums:
        differs = (block.old != block.new) & ~(np.isnan(block.old) & np.isnan(block.new))
        figures = (differs, block.difference**2, block.old**2)
        parts = [padded(each, block.start, self.n_columns) for each in figures]
        return RowSums(parts[0][0], np.stack([rows.sum(axis=1) for _, rows in parts], axis=1))

    def merge(self, first: RowSums, second: RowSums) -> RowSums:
        return first.merge(second)

    def finish(self, state: RowSums) -> RowChanges:
        n_differing, change, before = state.values.T
        rel_l2 = float(np.sqrt(change.sum() / before.sum())) if before.any() else np.inf
        return RowChanges(
            tuple(map(int, np.flatnonzero(n_differing))), len(state.values), int(n_differing.sum()), rel_l2
        )


def rows_question(change: ChangedPair, context: ExplanationContext) -> RowsQuestion | None:
    """Return what to ask of an embedding or a head of which at most half changed."""
    if change.matrix is None or not 1 < change.matrix[1] <= MOST_COLUMNS or change.matrix[0] < 4:
        return None
    is_table = context.role(change.pair) in (Role.EMBEDDING, Role.HEAD)
    few = change.figures.n_changed <= MOST_CHANGED * change.figures.n_elements
    return RowsQuestion(change.matrix[1]) if is_table and few else None


def explain_rows(findings: Findings) -> list[Explanation]:
    """Say which rows of embeddings and heads alone changed, if they changed nearly everywhere."""
    return [_trained(change, rows) for change, rows in findings.open(CODE) if _are_whole(change, rows)]


def _are_whole(change: ChangedPair, found: RowChanges) -> bool:
    n = len(found.rows)
    n_columns = change.figures.n_elements // found.n_rows
    return n <= MOST_CHANGED * found.n_rows and found.n_elements >= LEAST_CHANGED * n * n_columns


def _trained(change: ChangedPair, found: RowChanges) -> Explanation:
    n = len(found.rows)
    text = (
        f"Only {n:,} of {found.n_rows:,} rows of {listed([change.name])} changed"
        f" ({'row' if n == 1 else 'rows'} {_ranges(found.rows)})."
    )
    evidence: dict[str, object] = {
        "n_rows": found.n_rows, "n_changed_rows": n, "first_row": found.rows[0], "last_row": found.rows[-1],
    }  # fmt: skip
    return Explanation(CODE, text, (change.name,), evidence)


def _ranges(rows: Sequence[int]) -> str:
    parts = ranges(rows).split(",")
    shown = ", ".join(islice(parts, MOST_RANGES))
    return shown if len(parts) <= MOST_RANGES else f"{shown}, …"


def explain_reshaped(findings: Findings) -> list[Explanation]:
    """Say where tensors gained or lost rows at their end, the others being the same, or nearly.

    It reads the rows that both sides have, once.
    """
    context = findings.context
    pairs = [pair for pair in context.reshaped if _is_lengthened(pair)]
    states = fold_blocks(map(_shared_rows, pairs), merge_states, executor=context.executor, progress=context.progress)
    groups: dict[tuple[int, int, str], list[tuple[Pair, RowChanges]]] = {}
    for pair, state in zip(pairs, states, strict=True):
        found: RowChanges | None = finish_states(state).get(CODE)
        if found is not None and (rest := _rest(found)):
            groups.setdefault((pair.before.shape[0], pair.after.shape[0], rest), []).append((pair, found))
    return [_lengthened(*key, group) for key, group in groups.items()]


def _is_lengthened(pair: Pair) -> bool:
    """Whether shapes differ in their first axis alone, as those of real floating tables and vectors."""
    before, after = pair.before.shape, pair.after.shape
    is_float = pair.before.dtype.is_float and pair.after.dtype.is_float
    is_same = bool(before) and len(before) == len(after) and before[1:] == after[1:] and before[0] != after[0]
    return (
        is_float and is_same and min(before[0], after[0]) > 1 and 0 < pair.after.n_elements // after[0] <= MOST_COLUMNS
    )


def _shared_rows(pair: Pair) -> Fold[States]:
    n = min(pair.before.shape[0], pair.after.shape[0])
    sides = tuple(side.sliced(slice(0, n)) if side.shape[0] > n else side for side in (pair.before, pair.after))
    return Fold(sides, PairQuestions(((CODE, RowsQuestion(pair.after.n_elements // pair.after.shape[0])),)))


def _rest(found: RowChanges) -> str | None:
    """Say what became of the rows that both sides have; None where they are other rows."""
    n_changed, shared = len(found.rows), f"the first {found.n_rows:,}"
    if not n_changed:
        return f"{shared} are unchanged"
    if n_changed <= MOST_CHANGED * found.n_rows:
        return f"{shared} are unchanged but for {n_changed:,} ({_ranges(found.rows)})"
    return f"{shared} changed, too" if found.rel_l2 < MOST_TRAINED else None


def _lengthened(n_before: int, n_after: int, rest: str, group: Sequence[tuple[Pair, RowChanges]]) -> Explanation:
    n, is_longer = abs(n_after - n_before), n_after > n_before
    names = tuple(pair.new for pair, _ in group)
    text = (
        f"{n:,} row{'s were' if n > 1 else ' was'} {'appended to' if is_longer else 'cut from the end of'}"
        f" {listed(names)} ({n_before:,} -> {n_after:,}); {rest}."
    )
    evidence: dict[str, object] = {
        "n_rows_before": n_before, "n_rows_after": n_after, "n_shared_rows": min(n_before, n_after),
        "n_changed_rows": max(len(found.rows) for _, found in group),
        "rel_l2": max(found.rel_l2 if found.rel_l2 < np.inf else 0.0 for _, found in group),
    }  # fmt: skip
    return Explanation("rows-appended" if is_longer else "rows-removed", text, names, evidence)

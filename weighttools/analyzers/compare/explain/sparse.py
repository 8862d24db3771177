"""Sparsity added: which elements became 0, by what pattern, and what became of the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weighttools.analyzers.axes import padded
from weighttools.analyzers.compare.explain.context import ChangedPair, ExplanationContext, Findings
from weighttools.analyzers.compare.explain.factor import FactorSums, fitted
from weighttools.analyzers.compare.explain.questions import SideBySide
from weighttools.analyzers.compare.explain.rounded import CODE as ROUNDED
from weighttools.analyzers.compare.explain.wording import listed, part_of, percent
from weighttools.analyzers.compare.pair import Explanation
from weighttools.analyzers.compare.row_sums import RowSums
from weighttools.core.dtypes import DType

if TYPE_CHECKING:
    from weighttools.core.spec import Array

CODE = "sparsity"
PATTERNS = ((1, 4), (2, 8), (2, 4), (4, 8))
"""N:M patterns, the emptier first: of every M neighbours along the last axis at most N are not 0."""
FEWEST_KEPT = 16
"""Elements that are not 0 after, before a factor of theirs is told of."""
LEAST_HEAD = 8
"""Rows or columns of a head of attention, at least."""
LEAST_SHARE = 0.002
"""Elements of a tensor that became 0 before sparsity is told of."""
MOST_LINES = 1 << 18
"""Rows and columns beyond which structure is not looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class NewZeros:
    """What a block tells.

    Parameters
    ----------
    most_zeroed, least_kept
        The largest magnitude before of what is 0 after and was not, and the least of what is not 0 after.
    least_after
        The least magnitude after of what is not 0.
    kept
        Sums over what is not 0 after.
    excess
        For each of `PATTERNS`, groups with more than N elements that are not 0.
    rows, columns
        For each row and column, elements that are not 0 before, and after; None where there are too many.
    """

    most_zeroed: float
    least_kept: float
    least_after: float
    kept: FactorSums
    excess: Array
    rows: RowSums | None
    columns: Array | None

    def merge(self, other: NewZeros) -> NewZeros:
        """Return what both tell of one tensor; the other follows."""
        return NewZeros(
            max(self.most_zeroed, other.most_zeroed),
            min(self.least_kept, other.least_kept),
            min(self.least_after, other.least_after),
            self.kept.merge(other.kept),
            self.excess + other.excess,
            self.rows.merge(other.rows) if self.rows and other.rows else None,
            None if self.columns is None or other.columns is None else self.columns + other.columns,
        )


class SparsityFigures(NamedTuple):
    """What is known of a tensor with more zeros: the pattern, its details, and what became of what is kept."""

    pattern: str
    details: dict[str, object]
    kept: str
    factor: float
    most_zeroed: float
    least_kept: float
    least_after: float


@dataclass(frozen=True, slots=True)
class SparsityQuestion:
    """Asks where the new zeros lie, of a matrix, the length of the tensor's last axis, and such figures."""

    n_columns: int
    n_rows: int
    last: int
    n_zeroed: int
    n_zero_after: int
    n_changed: int
    dtype: DType

    def of(self, block: SideBySide) -> NewZeros:
        old, new = np.abs(block.old), np.abs(block.new)
        is_kept, was = new != 0, old != 0
        kept_old, kept_new, change = block.old[is_kept], block.new[is_kept], block.difference[is_kept]
        rows, columns = self._lines(was, is_kept, block.start)
        return NewZeros(
            float(np.max(old[~is_kept], initial=0.0)),
            float(np.min(old[is_kept], initial=np.inf)),
            float(np.min(new[is_kept], initial=np.inf)),
            FactorSums.of(kept_old, kept_new, change),
            np.array([_excess(is_kept, n, m) for n, m in PATTERNS]),
            rows,
            columns,
        )

    def _lines(self, was: Array, is_kept: Array, start: int) -> tuple[RowSums | None, Array | None]:
        if not 1 < self.n_columns <= MOST_LINES or not 1 < self.n_rows <= MOST_LINES:
            return None, None
        first, before = padded(was, start, self.n_columns)
        _, after = padded(is_kept, start, self.n_columns)
        of_rows = np.stack([before.sum(axis=1), after.sum(axis=1)], axis=1)
        return RowSums(first, of_rows), np.stack([before.sum(axis=0), after.sum(axis=0)], axis=1)

    def merge(self, first: NewZeros, second: NewZeros) -> NewZeros:
        return first.merge(second)

    def finish(self, state: NewZeros) -> SparsityFigures:
        pattern, details = self._pattern(state)
        kept, factor = self._kept(state)
        return SparsityFigures(pattern, details, kept, factor, state.most_zeroed, state.least_kept, state.least_after)

    def _pattern(self, state: NewZeros) -> tuple[str, dict[str, object]]:
        for what, lines in (("rows", state.rows.values if state.rows else None), ("columns", state.columns)):
            if lines is not None and (emptied := self._emptied(lines)).size:
                return what, {"n_lines": len(emptied), "of_lines": len(lines), "run": _run(emptied)}
        n_elements = self.n_rows * self.n_columns
        for (n, m), excess in zip(PATTERNS, state.excess, strict=True):
            is_full = self.n_zero_after <= n_elements * ((1 - n / m) + 0.02)
            if self.last % m == 0 and not excess and is_full:
                return f"{n}:{m}", {}
        return ("magnitude" if state.most_zeroed <= state.least_kept else "unstructured"), {}

    def _emptied(self, lines: Array) -> Array:
        """Return which rows or columns were emptied, if all new zeros lie in such; else none."""
        emptied = (lines[:, 1] == 0) & (lines[:, 0] > 0)
        is_all = int(lines[emptied, 0].sum()) == self.n_zeroed and not emptied.all()
        return np.flatnonzero(emptied) if is_all else np.empty(0, np.intp)

    def _kept(self, state: NewZeros) -> tuple[str, float]:
        """Return whether what is not 0 is the same, times a factor, or neither; and the factor."""
        if self.n_changed == self.n_zeroed:
            return "same", 1.0
        by = fitted(state.kept, self.dtype) if state.kept.n_elements >= FEWEST_KEPT else None
        return ("scaled", by.factor) if by else ("changed", 1.0)


def _run(lines: Array) -> int:
    """Return the length of aligned runs that lines make up: of heads, what a head has."""
    starts = lines[np.flatnonzero(np.diff(lines, prepend=-2) != 1)]
    ends = lines[np.flatnonzero(np.diff(lines, append=lines[-1] + 2) != 1)] + 1
    return int(np.gcd.reduce(np.concatenate([starts, ends])))


def _excess(is_kept: Array, n: int, m: int) -> int:
    whole = is_kept[: len(is_kept) // m * m].reshape(-1, m)
    return int(np.count_nonzero(whole.sum(axis=1, dtype=np.uint8) > n))


def sparsity_question(change: ChangedPair, context: ExplanationContext) -> SparsityQuestion | None:
    """Return what to ask where a share of elements that shows became 0."""
    figures = change.figures
    if figures.n_zeroed < max(1, LEAST_SHARE * figures.n_elements):
        return None
    rows, columns = change.matrix or (1, figures.n_elements)
    last = change.pair.after.shape[-1] if change.pair.after.shape else 1
    counts = figures.n_zeroed, figures.n_zero_after, figures.n_changed
    return SparsityQuestion(columns, rows, last, *counts, change.pair.after.dtype)


def explain_sparsity(findings: Findings) -> list[Explanation]:
    """Say by which pattern elements became 0."""
    groups: dict[tuple[str, str], list[tuple[ChangedPair, SparsityFigures]]] = {}
    for change, found in findings.open(CODE):
        kept = _rounded_to(change, found, findings) or found.kept
        if kept != "changed" or _is_sure(change, found):
            groups.setdefault((found.pattern, kept), []).append((change, found))
    return [_explanation(*key, group, len(findings.changes)) for key, group in groups.items()]


def _rounded_to(change: ChangedPair, found: SparsityFigures, findings: Findings) -> str | None:
    """Return "rounded to" a dtype where what is kept is what rounding gives."""
    rounding = findings.answers.get(change.name, {}).get(ROUNDED)
    if found.kept != "changed" or rounding is None or rounding.n_moved < 16:
        return None
    return f"rounded to {min(rounding.kept_routes).dtype}"


def _is_sure(change: ChangedPair, found: SparsityFigures) -> bool:
    """Whether zeros were put there though what is kept changed too: a pattern, or many of them.

    Quantising makes zeros as well: of what is below half a step, where the least that is not 0 is a whole step.
    """
    if found.pattern not in ("magnitude", "unstructured"):
        return True
    share = change.figures.n_zeroed / change.figures.n_elements
    return share >= 0.3 and found.least_after < 1.5 * found.most_zeroed


_KEPT = {"same": "the other values are unchanged", "changed": "the other values changed too"}


def _explanation(
    pattern: str, kept: str, group: Sequence[tuple[ChangedPair, SparsityFigures]], total: int
) -> Explanation:
    names = tuple(change.name for change, _ in group)
    n_zeroed = sum(change.figures.n_zeroed for change, _ in group)
    n_elements = sum(change.figures.n_elements for change, _ in group)
    n_zero = sum(change.figures.n_zero_after for change, _ in group)
    details = _details(pattern, group)
    factor = _factor(group) if kept == "scaled" else None
    left = f"the other values were multiplied by {factor:.7g}" if factor else _KEPT.get(kept, f"the others were {kept}")
    text = (
        f"Sparsity was added to {part_of(len(group), total)} ({listed(names)}): {percent(n_zeroed / n_elements)} of the"
        f" elements became 0, {_said(pattern, details)}; {left}."
    )
    evidence: dict[str, object] = {
        "pattern": pattern, "n_zeroed": n_zeroed, "n_elements": n_elements, "sparsity": n_zero / n_elements,
        "kept": kept, "n_tensors": len(group), "n_changed_tensors": total, **details,
        **({"factor": factor} if factor else {}),
    }  # fmt: skip
    return Explanation(CODE, text, names, evidence)


def _factor(group: Sequence[tuple[ChangedPair, SparsityFigures]]) -> float:
    return sum(found.factor * change.figures.n_elements for change, found in group) / sum(
        change.figures.n_elements for change, _ in group
    )


def _details(pattern: str, group: Sequence[tuple[ChangedPair, SparsityFigures]]) -> dict[str, object]:
    if pattern in ("rows", "columns"):
        keys = ("n_lines", "of_lines", "run")
        n_lines, of_lines, runs = zip(
            *([int(str(found.details[key])) for key in keys] for _, found in group), strict=True
        )
        return {"n_lines": sum(n_lines), "of_lines": sum(of_lines), "run": math.gcd(*runs)}
    if pattern == "magnitude":
        most, least = max(found.most_zeroed for _, found in group), min(found.least_kept for _, found in group)
        return {"is_global": len(group) > 1 and most <= least, "threshold": most, "is_all": least == math.inf}
    return {}


def _said(pattern: str, details: dict[str, object]) -> str:
    if pattern in ("rows", "columns"):
        runs = f", in runs of {details['run']} as heads are" if int(str(details["run"])) >= LEAST_HEAD else ""
        return f"whole {pattern}, {details['n_lines']:,} of {details['of_lines']:,}{runs}"
    if pattern == "magnitude":
        if details["is_all"]:
            return "all that were not"
        where = "of all of them together" if details["is_global"] else "in each tensor"
        return f"those of least magnitude {where}, up to {details['threshold']:.6g}"
    return f"no more than {pattern.replace(':', ' of every ')} being kept" if ":" in pattern else "in no pattern"

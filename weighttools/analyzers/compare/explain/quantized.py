"""Quantised from: new values lie on a grid within each group, or are stored in blocks, within a step of the old."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weighttools.analyzers.compare.explain.context import ChangedPair, ExplanationContext, Findings
from weighttools.analyzers.compare.explain.questions import SideBySide
from weighttools.analyzers.compare.explain.rounding import eps_of
from weighttools.analyzers.compare.explain.wording import listed, part_of
from weighttools.analyzers.compare.pair import Explanation

if TYPE_CHECKING:
    from weighttools.core.spec import Array

CODE = "quantized"
ROW = 0
"""The group that is a row."""
GROUPS = (ROW, 128, 64, 32)
"""Lengths of groups along the last axis that share a step, the longest first."""
FIRST = (4, 512)
"""Groups of a block, and elements of each, that are tried first: most changes are refuted by them."""
FEWEST_GROUPS = 4
"""Groups that tell something, before a grid is told of."""
FEWEST_VALUES = 8
"""Elements of a group beyond the number of its levels, before it tells something."""
MOST_LEVELS = 256
"""Of a grid: those of 8 bits."""
DIVISORS = (1, 2, 3)
"""Steps in the smallest gap of a group: few values leave out neighbours."""
MOST_REL_L2 = {"q8": 0.02, "q6": 0.05, "q5": 0.08, "q4": 0.16, "iq4": 0.16, "mxfp4": 0.2, "nvfp4": 0.2, "q3": 0.3,
    "iq3": 0.3, "q2": 0.5, "iq2": 0.5, "iq1": 0.7, "tq": 0.7}  # fmt: skip
"""By the beginning of an encoding's name, the norm of its error by that of weights: twice what it is of normal ones."""


class Grid(NamedTuple):
    """What groups that lie on grids have in common.

    Parameters
    ----------
    n_groups
        Groups that tell something.
    least_step, greatest_step
        The steps of their grids.
    n_levels
        The most levels from the least to the greatest value of a group.
    most_error, energy, n_elements
        The largest change in steps, the sum of squares of changes in steps, and of how many elements.
    """

    n_groups: int = 0
    least_step: float = math.inf
    greatest_step: float = 0.0
    n_levels: int = 0
    most_error: float = 0.0
    energy: float = 0.0
    n_elements: int = 0

    def merge(self, other: Grid) -> Grid:
        """Return what the groups of both have in common."""
        return Grid(
            self.n_groups + other.n_groups,
            min(self.least_step, other.least_step),
            max(self.greatest_step, other.greatest_step),
            max(self.n_levels, other.n_levels),
            max(self.most_error, other.most_error),
            self.energy + other.energy,
            self.n_elements + other.n_elements,
        )

    @property
    def rms_error(self) -> float:
        """The root mean square of changes, in steps."""
        return math.sqrt(self.energy / self.n_elements) if self.n_elements else 0.0


class Quantization(NamedTuple):
    """How a tensor was quantised: the grid's levels, and what shares a step."""

    scheme: str
    n_levels: int
    n_groups: int
    rms_error: float | None


@dataclass(frozen=True, slots=True)
class GridQuestion:
    """Asks on which grids values of a matrix of so many columns lie; `eps` is the new dtype's."""

    n_columns: int
    eps: float

    def of(self, block: SideBySide) -> dict[int, Grid | None]:
        return {length: self._groups(block, length) for length in GROUPS if self._divides(length)}

    def _divides(self, length: int) -> bool:
        return self.n_columns >= 16 if length == ROW else self.n_columns % length == 0 and self.n_columns > length

    def _groups(self, block: SideBySide, length: int) -> Grid | None:
        size = length or self.n_columns
        lead = -block.start % size
        n = (len(block.after) - lead) // size
        if n <= 0:
            return Grid()
        first = block.after[lead : lead + n * size].reshape(n, size)[: FIRST[0], : FIRST[1]]
        if steps(first.astype(np.float64), self.eps) is None:
            return None
        after, before = (side[lead : lead + n * size].reshape(n, size) for side in (block.new, block.old))
        return self._grid(after, before)

    def _grid(self, after: Array, before: Array) -> Grid | None:
        """Return the grid of groups; None where one of them lies on none, or changed by more than its step."""
        found = steps(after, self.eps)
        if found is None:
            return None
        step, levels, tells = found
        error = np.abs(after - before)[tells] / step[tells, None]
        grid = Grid(
            int(tells.sum()),
            float(np.min(step[tells], initial=math.inf)),
            float(np.max(step[tells], initial=0.0)),
            int(np.max(levels[tells], initial=0)),
            float(np.max(error, initial=0.0)),
            float(np.sum(error**2)),
            error.size,
        )
        return grid if grid.most_error <= 1.05 else None

    def merge(self, first: dict[int, Grid | None], second: dict[int, Grid | None]) -> dict[int, Grid | None]:
        return {key: a.merge(b) if a and (b := second[key]) else None for key, a in first.items()}

    def finish(self, state: dict[int, Grid | None]) -> Quantization | None:
        for length in GROUPS:
            grid = state.get(length)
            if grid and grid.n_groups >= FEWEST_GROUPS and 0.05 <= grid.rms_error <= 0.45:
                is_one = grid.greatest_step - grid.least_step <= 1e-4 * grid.greatest_step
                scheme = "tensor" if is_one else "row" if length == ROW else f"group of {length}"
                return Quantization(scheme, grid.n_levels, grid.n_groups, grid.rms_error)
        return None


def steps(groups: Array, eps: float) -> tuple[Array, Array, Array] | None:
    """Return for each group (a row) the step of the grid it lies on, its levels, and whether it tells anything.

    None where a group lies on no grid of at most `MOST_LEVELS` levels: the gaps between its values are whole multiples
    of a step, the smallest of them or a part of that, and all its values are where a line through their counts says,
    but for rounding to a dtype of this `eps`.
    """
    values = np.sort(groups, axis=1)
    slack = 2 * eps * np.maximum(np.abs(values[:, :1]), np.abs(values[:, -1:]))
    gaps = np.diff(values, axis=1)
    gaps[gaps <= slack] = 0
    n_distinct = (gaps > 0).sum(axis=1) + 1
    step, levels, misfits = np.zeros(len(groups)), np.ones(len(groups)), n_distinct > 2
    tells = misfits & (np.count_nonzero(groups, axis=1) >= FEWEST_VALUES)
    for divisor in DIVISORS:
        at = np.flatnonzero(misfits)
        if at.size:
            step[at], levels[at], misfits[at] = _grid_of(values[at], gaps[at], slack[at, 0], divisor)
    return None if misfits.any() else (step, levels, tells)


def _grid_of(values: Array, gaps: Array, slack: Array, divisor: int) -> tuple[Array, Array, Array]:
    """Return the steps and levels of sorted groups whose smallest gap is so many steps, and which are no such grid."""
    least = np.min(np.where(gaps > 0, gaps, np.inf), axis=1, keepdims=True) / divisor
    counts = np.zeros_like(values)
    np.cumsum(np.rint(gaps / least), axis=1, out=counts[:, 1:])
    levels = counts[:, -1] + 1
    step, misses = _fitted(values, counts)
    return step, levels, (misses > slack) | (slack > 0.4 * step) | (levels > MOST_LEVELS)


def _fitted(values: Array, counts: Array) -> tuple[Array, Array]:
    """Return the slope of each row of values over its counts, and the largest distance from that line."""
    x = counts - counts.mean(axis=1, keepdims=True)
    y = values - values.mean(axis=1, keepdims=True)
    slope = (x * y).sum(axis=1) / np.maximum((x * x).sum(axis=1), 1e-300)
    misses: Array = np.abs(y - slope[:, None] * x).max(axis=1)
    return slope, misses


def grid_question(change: ChangedPair, context: ExplanationContext) -> GridQuestion | None:
    """Return what to ask of a matrix that changed nearly everywhere, and little."""
    figures, last = change.figures, change.pair.after.shape[-1:]
    rel_l2 = figures.rel_l2
    if (
        change.pair.after.spec.is_quantized
        or not change.matrix
        or rel_l2 is None
        or not 1e-4 < rel_l2 < 0.7
        or 4 * figures.n_changed < figures.n_elements
    ):
        return None
    return GridQuestion(last[0], eps_of(change.pair.after.dtype))


def explain_quantization(findings: Findings) -> list[Explanation]:
    """Say which tensors are quantised ones of the old."""
    groups: dict[tuple[str, int], list[tuple[ChangedPair, Quantization]]] = {}
    answers = {change.name: found for change, found in findings.open(CODE)}
    for change in findings.changes:
        found = _encoded(change) or answers.get(change.name)
        if found is not None and change.name not in findings.explained:
            bits = max(1, math.ceil(math.log2(found.n_levels))) if found.n_levels else 0
            groups.setdefault((found.scheme, bits), []).append((change, found))
    return [_explanation(*key, group, len(findings.changes)) for key, group in groups.items()]


def _encoded(change: ChangedPair) -> Quantization | None:
    """Return the encoding of blocks that the new tensor is stored in, where its error is what that makes."""
    before, after = change.pair.before.spec, change.pair.after.spec
    rel_l2 = change.figures.rel_l2
    if not after.is_quantized or before.encoding == after.encoding or rel_l2 is None or not change.is_plain:
        return None
    most = next((m for begin, m in MOST_REL_L2.items() if after.encoding.startswith(begin)), 0.0)
    return Quantization(after.encoding, 0, 0, None) if rel_l2 <= most else None


def _explanation(scheme: str, bits: int, group: Sequence[tuple[ChangedPair, Quantization]], total: int) -> Explanation:
    names = tuple(change.name for change, _ in group)
    energy, before = (math.fsum(getattr(c.figures, key) ** 2 for c, _ in group) for key in ("l2", "l2_before"))
    rel_l2 = math.sqrt(energy / before)
    lead = part_of(len(group), total)
    how = f"in {scheme} blocks" if not bits else f"to {bits} bits, with a step for each {scheme}"
    steps_ = [found.rms_error for _, found in group if found.rms_error is not None]
    error = f", {max(steps_):.2f} of a step" if steps_ else ""
    text = (
        f"{lead[0].upper()}{lead[1:]} ({listed(names)}) {'were' if len(group) > 1 else 'was'} quantised {how}:"
        f" the error is {rel_l2:.3g} of the norm{error}."
    )
    evidence: dict[str, object] = {
        "scheme": scheme, "bits": bits or None, "n_levels": max(found.n_levels for _, found in group) or None,
        "n_groups": sum(found.n_groups for _, found in group) or None, "rel_l2": rel_l2,
        "rms_error_in_steps": max(steps_) if steps_ else None,
        "snr_db": -20 * math.log10(rel_l2), "n_tensors": len(group), "n_changed_tensors": total,
    }  # fmt: skip
    return Explanation(CODE, text, names, evidence)

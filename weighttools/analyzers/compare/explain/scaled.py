"""Uniform shrink: tensors times one factor, as weight decay leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from weighttools.analyzers.compare.explain.context import ChangedPair, ExplanationContext, Findings
from weighttools.analyzers.compare.explain.factor import LEAST_ENERGY, Factor, FactorSums, fitted
from weighttools.analyzers.compare.explain.questions import SideBySide
from weighttools.analyzers.compare.explain.rounding import rounding_energy
from weighttools.analyzers.compare.explain.wording import counted, listed, part_of, percent
from weighttools.analyzers.compare.pair import Explanation
from weighttools.core.dtypes import DType

CODE = "uniform-shrink"
NEAR = 0.3
"""How far the cosine of the change with the old tensor may be from 1, and the sums still be asked for."""
FEWEST = 16
"""Elements that can tell a factor; fewer may agree with one that others tell."""
MOST_FACTORS = 4
"""Groups of one factor each that are told of one by one."""


class ScaledPair(NamedTuple):
    """A tensor that is the old one times a factor but for rounding, and how many elements it has."""

    name: str
    n_elements: int
    by: Factor


@dataclass(frozen=True, slots=True)
class ScaleQuestion:
    """Asks for the factor that a pair's change is, the new values being of a dtype."""

    dtype: DType

    def of(self, block: SideBySide) -> FactorSums:
        return FactorSums.of(block.old, block.new, block.difference)

    def merge(self, first: FactorSums, second: FactorSums) -> FactorSums:
        return first.merge(second)

    def finish(self, state: FactorSums) -> Factor | None:
        return fitted(state, self.dtype)


def scale_question(change: ChangedPair, context: ExplanationContext) -> ScaleQuestion | None:
    """Return what to ask of a change that runs along the old tensor, as far as figures tell, which may be rounded."""
    figures = change.figures
    if not figures.l2_before or not figures.l2:
        return None
    if figures.l2**2 < LEAST_ENERGY * rounding_energy(figures.l2_after, figures.n_elements, change.pair.after.dtype):
        return None
    along = (figures.dot - figures.l2_before**2) / figures.l2_before
    error = 1e-6 * figures.l2_before
    return ScaleQuestion(change.pair.after.dtype) if abs(along) + error > (1 - NEAR) * figures.l2 else None


def explain_scaling(findings: Findings) -> list[Explanation]:
    """Say which changed tensors were multiplied by a factor, and by which."""
    found = [ScaledPair(change.name, change.figures.n_elements, by) for change, by in findings.open(CODE)]
    order = {change.name: n for n, change in enumerate(findings.changes)}
    groups = [sorted(group, key=lambda one: order[one.name]) for group in grouped(found)]
    total = len(findings.changes)
    if len(groups) > MOST_FACTORS:
        return [_own_factors([one for group in groups for one in group], total)]
    return [_one_factor(group, total) for group in groups]


def grouped(found: Sequence[ScaledPair]) -> list[list[ScaledPair]]:
    """Part tensors by factor: those of enough elements tell the factors, the others join where they agree."""
    tell = sorted((one for one in found if one.n_elements >= FEWEST), key=lambda one: one.by.factor)
    groups: list[list[ScaledPair]] = []
    for one in tell:
        last = groups[-1][-1] if groups else None
        if last and one.by.factor - last.by.factor <= one.by.tolerance + last.by.tolerance:
            groups[-1].append(one)
        else:
            groups.append([one])
    for one in found:
        if one.n_elements < FEWEST:
            for group in groups:
                if abs(mean_factor(group) - one.by.factor) <= one.by.tolerance:
                    group.append(one)
                    break
    return groups


def mean_factor(group: Sequence[ScaledPair]) -> float:
    """Return the factor of a group, by the weight of each in telling it."""
    weights = [1 / one.by.tolerance**2 for one in group]
    return sum(w * one.by.factor for w, one in zip(weights, group, strict=True)) / sum(weights)


def _explained(group: Sequence[ScaledPair]) -> float:
    return 1 - sum(one.by.unexplained for one in group) / sum(one.by.energy for one in group)


def _one_factor(group: Sequence[ScaledPair], total: int) -> Explanation:
    factor, share = mean_factor(group), _explained(group)
    names = tuple(one.name for one in group)
    is_shrink = 0 < factor < 1
    what = (
        f"shrank by the factor {factor:.7g}, as weight decay does"
        if is_shrink
        else f"{'were' if len(group) > 1 else 'was'} multiplied by {factor:.7g}"
    )
    verb = f"{part_of(len(group), total)} ({listed(names)}) {what}"
    text = f"{verb[0].upper()}{verb[1:]}: {percent(share)} of their change's energy."
    evidence: dict[str, object] = {
        "factor": factor, "n_tensors": len(group), "n_changed_tensors": total, "explained": share,
    }  # fmt: skip
    return Explanation("uniform-shrink" if is_shrink else "scaled", text, names, evidence)


def _own_factors(group: Sequence[ScaledPair], total: int) -> Explanation:
    factors, share = [one.by.factor for one in group], _explained(group)
    names = tuple(one.name for one in group)
    text = (
        f"{counted(len(group))} of {total:,} that changed ({listed(names)}) were each multiplied by a factor of their"
        f" own, {min(factors):.6g} to {max(factors):.6g}: {percent(share)} of their change's energy."
    )
    evidence: dict[str, object] = {
        "least_factor": min(factors), "greatest_factor": max(factors), "n_tensors": len(group),
        "n_changed_tensors": total, "explained": share,
    }  # fmt: skip
    return Explanation("scaled", text, names, evidence)

"""Uniform shrink: tensors times one factor, as weight decay leaves them. It needs no more than the figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from weighttools.analyzers.compare.explain.context import ChangedPair, Findings
from weighttools.analyzers.compare.explain.rounding import eps_of, rounding_energy
from weighttools.analyzers.compare.explain.wording import counted, listed, part_of, percent
from weighttools.analyzers.compare.pair import Explanation

MOST_UNEXPLAINED = 1e-8
"""Of the change's energy beyond rounding: a thousand steps of decay in float32 leave less."""
FEWEST = 16
"""Elements that can tell a factor; fewer may agree with one that others tell."""
MOST_FACTORS = 4
"""Groups of one factor each that are told of one by one."""


class Scaling(NamedTuple):
    """A tensor that is the old one times a factor but for rounding.

    Parameters
    ----------
    name
        The new name.
    n_elements
        How many elements it has.
    factor, tolerance
        The factor of least squares, and how far rounding may move it.
    unexplained, energy
        The change's energy that the factor leaves over, and all of it.
    """

    name: str
    n_elements: int
    factor: float
    tolerance: float
    unexplained: float
    energy: float


def scaling(change: ChangedPair) -> Scaling | None:
    """Return the factor that makes a pair's change, or None where one factor does not.

    Notes
    -----
    With d = after - before and t = d · before / |before|², the factor is 1 + t; what it leaves over is
    |d|² - t² |before|². The part of t must stand well above what rounding makes by itself.
    """
    figures = change.figures
    if not change.is_plain or figures.n_elements < 2 or not figures.l2_before or not figures.l2_after:
        return None
    moved = (figures.dot - figures.l2_before**2) / figures.l2_before**2
    energy, along = figures.l2**2, (moved * figures.l2_before) ** 2
    noise = rounding_energy(figures.l2_after, figures.n_elements, change.pair.after.dtype)
    unexplained = max(0.0, energy - along)
    if unexplained > min(4 * noise + MOST_UNEXPLAINED * energy, 0.2 * energy) or along < 20 * noise:
        return None
    tolerance = 1e-6 + 2 * eps_of(change.pair.after.dtype) / math.sqrt(figures.n_elements)
    return Scaling(change.name, figures.n_elements, 1 + moved, tolerance, unexplained, energy)


def explain_scaling(findings: Findings) -> list[Explanation]:
    """Say which changed tensors were multiplied by a factor, and by which."""
    found = [one for change in findings.changes if (one := scaling(change))]
    order = {change.name: n for n, change in enumerate(findings.changes)}
    groups = [sorted(group, key=lambda one: order[one.name]) for group in grouped(found)]
    total = len(findings.changes)
    if len(groups) > MOST_FACTORS:
        return [_own_factors([one for group in groups for one in group], total)]
    return [_one_factor(group, total) for group in groups]


def grouped(found: Sequence[Scaling]) -> list[list[Scaling]]:
    """Part tensors by factor: those of enough elements tell the factors, the others join where they agree."""
    tell = sorted((one for one in found if one.n_elements >= FEWEST), key=lambda one: one.factor)
    groups: list[list[Scaling]] = []
    for one in tell:
        last = groups[-1][-1] if groups else None
        if last and one.factor - last.factor <= one.tolerance + last.tolerance:
            groups[-1].append(one)
        else:
            groups.append([one])
    for one in found:
        if one.n_elements < FEWEST:
            for group in groups:
                if abs(mean_factor(group) - one.factor) <= one.tolerance:
                    group.append(one)
                    break
    return groups


def mean_factor(group: Sequence[Scaling]) -> float:
    """Return the factor of a group, by the weight of each in telling it."""
    weights = [1 / one.tolerance**2 for one in group]
    return sum(w * one.factor for w, one in zip(weights, group, strict=True)) / sum(weights)


def _explained(group: Sequence[Scaling]) -> float:
    return 1 - sum(one.unexplained for one in group) / sum(one.energy for one in group)


def _one_factor(group: Sequence[Scaling], total: int) -> Explanation:
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


def _own_factors(group: Sequence[Scaling], total: int) -> Explanation:
    factors, share = [one.factor for one in group], _explained(group)
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

"""Noise added: a change that is white, normal, unrelated to the weights, and as strong in every matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from weighttools.analyzers.compare.explain.context import ChangedPair, Findings
from weighttools.analyzers.compare.explain.rounding import rounding_energy
from weighttools.analyzers.compare.explain.sketch import CODE, SketchFigures
from weighttools.analyzers.compare.explain.spectrum_tail import parted
from weighttools.analyzers.compare.explain.wording import listed, part_of
from weighttools.analyzers.compare.pair import Explanation

SIGMAS = 5.0
"""Standard deviations within which every statistic must lie."""
FEWEST = 4096
"""Elements in all whose change can be called noise."""


class Whiteness(NamedTuple):
    """A change that is noise by itself: its strength, that by the weights', and how well either is known."""

    change: ChangedPair
    std: float
    relative: float
    tolerance: float


def white(change: ChangedPair, found: SketchFigures) -> Whiteness | None:
    """Return the strength of a change that looks like normal white noise; None of any other.

    Its spectrum is flat (John's test), its fourth moment is that of normal numbers, it does not correlate with the
    weights, and rounding makes no more than a hundredth of it.
    """
    figures = change.figures
    n, energy = figures.n_elements, figures.l2**2
    noise = rounding_energy(figures.l2_after, n, change.pair.after.dtype)
    tail = parted(found)
    if tail is None or tail.rank or abs(tail.departure) > SIGMAS or energy < 100 * noise or not figures.l2_before:
        return None
    along = (figures.dot - figures.l2_before**2) / (figures.l2 * figures.l2_before)
    kurtosis = n * found.fourth / energy**2
    if abs(kurtosis - 3) > SIGMAS * math.sqrt(24 / n) + 0.02 or abs(along) > SIGMAS / math.sqrt(n):
        return None
    tolerance = SIGMAS / math.sqrt(2 * n) + noise / energy + 1e-3
    return Whiteness(change, figures.l2 / math.sqrt(n), figures.l2 / figures.l2_before, tolerance)


def explain_noise(findings: Findings) -> list[Explanation]:
    """Say that noise of one strength was added, if all matrices that can tell agree."""
    asked = findings.open(CODE)
    found = [one for change, sketch in asked if (one := white(change, sketch))]
    if not found or len(found) < len(asked) or sum(one.change.figures.n_elements for one in found) < FEWEST:
        return []
    for key, what in (("std", "standard deviation"), ("relative", "norm relative to the weights'")):
        strength = _common([getattr(one, key) for one in found], [one.tolerance for one in found])
        if strength is not None:
            return [_explanation(key, what, strength, found, len(findings.changes))]
    return []


def _common(values: Sequence[float], tolerances: Sequence[float]) -> float | None:
    """Return the value that all agree with, each within its relative tolerance."""
    weights = [1 / tolerance**2 for tolerance in tolerances]
    mean = sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)
    agree = all(abs(value / mean - 1) <= t for value, t in zip(values, tolerances, strict=True))
    return mean if agree else None


def _explanation(key: str, what: str, strength: float, found: Sequence[Whiteness], total: int) -> Explanation:
    names = tuple(one.change.name for one in found)
    text = (
        f"The change of {part_of(len(found), total)} ({listed(names)}) looks like normal noise of one {what},"
        f" {strength:.4g}: white, and unrelated to the weights."
    )
    evidence: dict[str, object] = {key: strength, "n_tensors": len(found), "n_changed_tensors": total}
    return Explanation("noise", text, names, evidence)

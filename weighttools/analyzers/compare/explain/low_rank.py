"""Low rank: a change that is a product of thin factors but for rounding, as a merged LoRA leaves it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from weighttools.analyzers.compare.explain.context import ChangedPair, Findings
from weighttools.analyzers.compare.explain.rounding import rounding_energy
from weighttools.analyzers.compare.explain.sketch import CODE, LEAST_ENERGY, MOST_RANK, SketchFigures
from weighttools.analyzers.compare.explain.spectrum_tail import parted
from weighttools.analyzers.compare.explain.wording import counted, enumerated, percent
from weighttools.analyzers.compare.pair import Explanation
from weighttools.families.role_types import Role

LEAST_GAP = 3.0
"""The least square of a singular value that counts, by the largest of the rest."""
CLEAR = 0.25
"""The part of the spectrum's whole fall (of its logarithm) that one step makes: it then ends there, and sinks not."""
AGREEING = 4
"""Matrices, two thirds of a module's or of all, that have the very same rank tell it, though the step is small."""
ARITHMETIC = 1e-6
"""The error of products in float32, by the norm of the change: those of the factors, and those of the sketch."""


class RankedChange(NamedTuple):
    """A change of a rank, the energy of all of it and of the rest, and whether its spectrum clearly ends there."""

    change: ChangedPair
    rank: int
    energy: float
    rest: float
    is_clear: bool


def low_rank(change: ChangedPair, found: SketchFigures) -> RankedChange | None:
    """Return the rank of a change whose rest is no more than rounding makes; None of any other.

    Ranks of more than a quarter of the shorter side say nothing. Rounding is that of the new values, and of the change,
    which some tools round before they add it.
    """
    figures, dtype = change.figures, change.pair.after.dtype
    noise = sum(rounding_energy(l2, figures.n_elements, dtype) for l2 in (figures.l2_after, figures.l2))
    noise += (ARITHMETIC * figures.l2) ** 2
    tail = parted(found, noise)
    side, energy = min(change.matrix or (0, 0)), figures.l2**2
    if tail is None or not 1 <= tail.rank <= min(MOST_RANK, side // 4):
        return None
    if tail.energy > min(3 * noise, 0.3 * energy) or energy - tail.energy < LEAST_ENERGY * noise:
        return None
    is_clear = tail.gap >= LEAST_GAP and (tail.drop == math.inf or math.log(tail.gap) >= CLEAR * math.log(tail.drop))
    return RankedChange(change, tail.rank, energy, tail.energy, is_clear)


def explain_low_rank(findings: Findings) -> list[Explanation]:
    """Say which changes are of low rank, by what their modules are called."""
    found = [one for change, sketch in findings.open(CODE) if (one := low_rank(change, sketch))]
    by_module: dict[str, list[RankedChange]] = {}
    for one in found:
        by_module.setdefault(_module(one.change.name), []).append(one)
    of_all = _agreed(found)
    modules = {module: sure for module, each in by_module.items() if (sure := _sure(each, of_all))}
    found = [one for each in modules.values() for one in each]
    ranks: dict[int, list[str]] = {}
    for module, each in modules.items():
        ranks.setdefault(max(one.rank for one in each), []).append(module)
    is_alone = _is_alone({one.change.name for one in found}, findings)
    return [
        _explanation(rank, names, [one for name in names for one in modules[name]], is_alone)
        for rank, names in ranks.items()
    ]


def _agreed(found: Sequence[RankedChange]) -> int | None:
    """Return the rank that two thirds of many changes have; None where they do not agree."""
    (rank, n_agreeing), *_ = Counter(one.rank for one in found).most_common(1) or [(0, 0)]
    return rank if n_agreeing >= AGREEING and 3 * n_agreeing >= 2 * len(found) else None


def _sure(found: Sequence[RankedChange], of_all: int | None) -> list[RankedChange]:
    """Return the changes of a module whose rank is sure: those whose spectrum ends, and those near an agreed rank."""
    agreed = [rank for rank in (of_all, _agreed(found)) if rank is not None]
    return [one for one in found if one.is_clear or any(abs(one.rank - rank) <= max(1, rank // 8) for rank in agreed)]


def _is_alone(names: set[str], findings: Findings) -> bool:
    """Whether no other weight or bias changed in a way that nothing explains, as where an adapter was merged."""
    others = [change for change in findings.changes if change.name not in names | findings.explained.keys()]
    return not any(findings.context.role(change.pair) in (Role.WEIGHT, Role.BIAS) for change in others)


def _module(name: str) -> str:
    """Return what the module directly around a tensor is called, without its number: ``q_proj``."""
    parts = name.replace("/", ".").split(".")[:-1]
    return next((part for part in reversed(parts) if not part.isdigit() and part != "vars"), name)


def _explanation(rank: int, modules: Sequence[str], found: Sequence[RankedChange], is_alone: bool) -> Explanation:
    names = tuple(one.change.name for one in found)
    energy, rest = (sum(each) for each in zip(*((one.energy, one.rest) for one in found), strict=True))
    least, share = min(one.rank for one in found), 1 - rest / energy
    ranks = f"rank {rank}" if least == rank else f"ranks {least} to {rank}"
    as_lora = f", consistent with a LoRA of rank {rank}" if is_alone else ""
    text = (
        f"The change of {counted(len(found), 'weight')} is of {ranks}{as_lora} on {enumerated(modules, 8)}:"
        f" {percent(share)} of the change's energy, the rest being rounding."
    )
    evidence: dict[str, object] = {
        "rank": rank, "least_rank": least, "modules": list(modules), "n_tensors": len(found), "explained": share,
        "is_alone": is_alone,
    }  # fmt: skip
    return Explanation("low-rank", text, names, evidence)

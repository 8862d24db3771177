"""Matrices whose values are far larger than those of their likes in other layers, or than trained weights are."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

from weighttools.core.findings import WARNING, Finding
from weighttools.families.of_maps import wordings

if TYPE_CHECKING:
    from weighttools.analyzers.checks.values import SurveyedTensor

ABSOLUTE = 100.0
"""A root mean square that no trained matrix comes near: theirs are below 2."""

RELATIVE = 50.0
"""Times the median root mean square of its family."""

_ENOUGH = 4
"""Members that a family needs for a median to mean something."""


def check(seen: Sequence[SurveyedTensor]) -> Iterator[Finding]:
    """Yield a finding for each parameter matrix whose root mean square is beyond one of the limits."""
    matrices = [tensor for tensor in seen if tensor.is_parameter and len(tensor.spec.shape) > 1]
    usual = _medians(matrices)
    for tensor, words in zip(matrices, wordings(t.name for t in matrices), strict=True):
        rms = _rms(tensor)
        if usual.get(words, 0.0) and rms > RELATIVE * usual[words]:
            told = f"{rms / usual[words]:.3g} times the median of its likes in other layers"
        elif rms > ABSOLUTE:
            told = "far more than trained weights have"
        else:
            continue
        yield Finding(
            WARNING, "large-values", f"the root mean square of {tensor.name!r} is {rms:.4g}, {told}", tensor.name
        )


def _rms(tensor: SurveyedTensor) -> float:
    rms = tensor.moments.finish()["rms"]
    return 0.0 if rms is None else float(rms)


def _medians(matrices: Sequence[SurveyedTensor]) -> dict[str, float]:
    families: dict[str, list[float]] = defaultdict(list)
    for tensor, words in zip(matrices, wordings(t.name for t in matrices), strict=True):
        rms = _rms(tensor)
        if math.isfinite(rms):
            families[words].append(rms)
    return {words: median(found) for words, found in families.items() if len(found) >= _ENOUGH}

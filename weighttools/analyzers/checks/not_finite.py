"""NaN and Inf, with their first index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from weighttools.core.findings import ERROR, NOTE, WARNING, Finding

if TYPE_CHECKING:
    from weighttools.analyzers.checks.values import SurveyedTensor


def check(seen: Sequence[SurveyedTensor]) -> Iterator[Finding]:
    """Yield a finding for each tensor with NaN, and for each with Inf; masks in buffers hold Inf by right."""
    for tensor in seen:
        found = tensor.extremes
        if found.first_nan is not None:
            severity = ERROR if tensor.is_parameter else WARNING
            yield _finding(tensor, severity, "nan", "NaN", found.n_nan, found.first_nan)
        if found.first_inf is not None:
            severity = ERROR if tensor.is_parameter else NOTE
            yield _finding(tensor, severity, "inf", "infinite", found.n_inf, found.first_inf)


def _finding(tensor: SurveyedTensor, severity: str, code: str, word: str, n: int, first: int) -> Finding:
    of = f"{n:,} of {tensor.spec.n_elements:,} values"
    return Finding(severity, code, f"{of} of {tensor.name!r} are {word}, first at {tensor.place(first)}", tensor.name)

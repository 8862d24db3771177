"""Tensors that are zero throughout, or one value throughout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from weighttools.core.findings import NOTE, WARNING, Finding

if TYPE_CHECKING:
    from weighttools.analyzers.checks.values import SurveyedTensor


def check(seen: Sequence[SurveyedTensor]) -> Iterator[Finding]:
    """Yield a finding for each parameter of two elements or more that holds one value throughout."""
    for tensor in seen:
        if tensor.is_parameter and tensor.spec.n_elements > 1 and is_constant(tensor):
            value = tensor.extremes.least
            code = "all-zero" if value == 0 else "constant"
            severity = WARNING if len(tensor.spec.shape) > 1 else NOTE
            message = f"every value of {tensor.name!r} is {value:g}"
            yield Finding(severity, code, message, tensor.name)


def is_constant(tensor: SurveyedTensor) -> bool:
    """Whether a tensor holds one finite value throughout."""
    found = tensor.extremes
    return found.least is not None and found.least == found.greatest and tensor.moments.n == tensor.spec.n_elements

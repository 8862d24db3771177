"""Checks of an open map, from its headers: each is one file here and one line in the table.

A check is a function ``check(tensor_map) -> Iterator[Finding]``.
"""

from __future__ import annotations

from collections.abc import Iterator

from weighttools.core.findings import Finding
from weighttools.core.registry import Entry, Registry
from weighttools.core.tensormap import TensorMap

CHECKS = Registry("check", "weighttools.checks", {"names": Entry("weighttools.analyzers.checks.names:check")})


def findings(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield what each check finds, in the table's order."""
    for name in CHECKS:
        yield from CHECKS.load(name)(tensor_map)

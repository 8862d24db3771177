"""Checks of an open map: each is one file here and one line in a table.

A check of headers is a function ``check(tensor_map) -> Iterator[Finding]``. A check of values is a function
``check(seen) -> Iterator[Finding]`` of what one pass over all values has `seen` of each tensor; see `values`.
"""

from __future__ import annotations

from collections.abc import Iterator

from weighttools.core.findings import Finding
from weighttools.core.registry import Entry, Registry
from weighttools.core.tensormap import TensorMap
from weighttools.io.progress import Progress, silent

_HERE = "weighttools.analyzers.checks"

CHECKS = Registry(
    "check",
    "weighttools.checks",
    {
        name: Entry(f"{_HERE}.{name}:check")
        for name in (
            "names",
            "keras_code",
            "templates",
            "remote_code",
            "ties",
            "mixed_dtypes",
            "pt_format",
            "config",
            "tokenizer",
            "token_ids",
            "gguf_metadata",
        )
    },
)
VALUE_CHECKS = Registry(
    "check of values",
    "weighttools.value_checks",
    {
        name: Entry(f"{_HERE}.{name}:check")
        for name in ("not_finite", "constants", "dead_rows", "large_values", "outlier_exponents", "duplicates")
    },
)


def findings(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield what each check of headers finds, in the table's order."""
    for name in CHECKS:
        yield from CHECKS.load(name)(tensor_map)


def value_findings(tensor_map: TensorMap, threads: int | None = None, progress: Progress = silent) -> Iterator[Finding]:
    """Yield what each check of values finds, in the table's order, from one pass over the values."""
    from weighttools.analyzers.checks.values import survey

    seen, unread = survey(tensor_map, threads, progress)
    yield from unread
    for name in VALUE_CHECKS:
        yield from VALUE_CHECKS.load(name)(seen)

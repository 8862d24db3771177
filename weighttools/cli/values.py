"""Array values as JSON, row by row: the text of a large tensor is never in memory at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

AT_ONCE = 1 << 16
"""Elements that are turned into text at once."""


def json_pieces(name: str, array: Any) -> Iterator[str]:
    """Yield the text of a ``weighttools.get/1`` record: exact values, NaN and Inf as null with their counts."""
    numbers = array.astype(np.float64) if array.dtype.kind not in "biufc" else array
    record = {
        "schema": "weighttools.get/1",
        "name": name,
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "n_nan": int(np.isnan(numbers).sum()),
        "n_inf": int(np.isinf(numbers).sum()),
    }
    yield json.dumps(record, indent=2)[:-2] + ',\n  "values": '
    yield from _nested(numbers, "  ")
    yield "\n}"


def _nested(numbers: Any, indent: str) -> Iterator[str]:
    """Yield nested lists: what fits `AT_ONCE` and is at most a row on one line, the rest a line each."""
    if numbers.ndim < 2:
        yield from _row(numbers)
        return
    yield "["
    for i, part in enumerate(numbers):
        yield f"{',' if i else ''}\n{indent}  "
        yield from _nested(part, indent + "  ")
    yield f"\n{indent}]" if len(numbers) else "]"


def _row(row: Any) -> Iterator[str]:
    if row.ndim == 0:
        yield json.dumps(_plain(row))
        return
    yield "["
    for start in range(0, row.size, AT_ONCE):
        yield (", " if start else "") + json.dumps(_plain(row[start : start + AT_ONCE]))[1:-1]
    yield "]"


def _plain(numbers: Any) -> Any:
    """Return Python numbers, None for NaN and Inf; a complex number is a pair."""
    if np.iscomplexobj(numbers):
        numbers = np.stack([numbers.real, numbers.imag], -1)
    finite = np.isfinite(numbers)
    if finite.all():
        return numbers.tolist()
    hidden = numbers.astype(object)
    hidden[~finite] = None
    return hidden.tolist()

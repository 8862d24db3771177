"""Array values as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np


def array_record(name: str, array: Any) -> dict[str, Any]:
    """Return a ``weighttools.get/1`` record: exact values, NaN and Inf as null with their counts beside them."""
    numbers = array.astype(np.float64) if array.dtype.kind not in "biufc" else array
    finite = np.isfinite(numbers)
    return {
        "schema": "weighttools.get/1",
        "name": name,
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "n_nan": int(np.isnan(numbers).sum()),
        "n_inf": int(np.isinf(numbers).sum()),
        "values": _nested(numbers, finite),
    }


def _nested(numbers: Any, finite: Any) -> Any:
    if np.iscomplexobj(numbers):
        numbers = np.stack([numbers.real, numbers.imag], -1)
        finite = np.stack([finite, finite], -1)
    if finite.all():
        return numbers.tolist()
    hidden = numbers.astype(object)
    hidden[~finite] = None
    return hidden.tolist()

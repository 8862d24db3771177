"""The first few values of a tensor, and texts that are JSON: what is cheap to look at while headers are read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from weighttools.core import budgets
from weighttools.core.readers import aligned_read
from weighttools.core.tensor import Tensor
from weighttools.errors import WeighttoolsError
from weighttools.formats.base import plain
from weighttools.io.text import unique_keys

MOST_VALUES = 4
"""How many values are shown of a tensor."""


def first_values(tensor: Tensor) -> list[Any] | None:
    """Return the first values as JSON can hold them; None where that would take decoding many, or they are damaged.

    NaN, infinities and complex numbers are words.
    """
    n = min(MOST_VALUES, tensor.n_elements)
    try:
        reader = tensor.reader
        if reader.granularity > budgets.FIRST_ELEMENTS:
            return None
        return [_shown(value) for value in aligned_read(reader, 0, n, tensor.n_elements).tolist()]
    except (WeighttoolsError, OSError):
        return None


def _shown(value: Any) -> Any:
    if isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value if isinstance(value, (bool, int, float)) else float(value)


def expanded(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the texts among metadata mean that are JSON objects or arrays; others are left out.

    A text that names a key twice, nests deeper than `budgets.EXPANDED_DEPTH`, or is one of more than
    `budgets.EXPANDED_BYTES` in all, is left as it is.
    """
    found = {}
    left = budgets.EXPANDED_BYTES
    for key, text in metadata.items():
        if isinstance(text, str) and text[:1] in ("{", "[") and len(text) <= left:
            left -= len(text)
            value = _parsed(text)
            if value is not None and _depth(value) <= budgets.EXPANDED_DEPTH:
                found[key] = plain(value)
    return found


def _parsed(text: str) -> Any:
    """Return the object or array that a text is; None for one that is not, or not in one way."""
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError):
        return None


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
    return depth

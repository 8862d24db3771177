"""What bit patterns mean: of a dtype of one or two bytes there are so few that a table holds all their values."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from weighttools.core.spec import Array


class Meanings(NamedTuple):
    """What each bit pattern of a dtype means: its value in float64, and which are finite."""

    values: Array
    finite: Array


@cache
def meanings(dtype: Any) -> Meanings:
    """Return what the bit patterns of a dtype of one or two bytes mean; any byte of a bool but 0 is True, that is 1."""
    n = 1 << 8 * dtype.itemsize
    patterns = np.arange(n).astype(f"u{dtype.itemsize}")
    with np.errstate(all="ignore"):
        values = (patterns != 0).astype(np.float64) if dtype.kind == "b" else patterns.view(dtype).astype(np.float64)
    return Meanings(values, np.isfinite(values))

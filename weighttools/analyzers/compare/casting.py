"""Values in another dtype, rounded to nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from weighttools.core.spec import Array


def cast_values(values: Array, dtype: Any) -> Array:
    """Return values in a NumPy dtype; what is beyond its range is as NumPy and ml_dtypes have it.

    Floats of one byte go by way of float32, which holds them all: between some of them there is no direct cast.
    """
    is_narrow = values.dtype.itemsize == 1 and values.dtype.kind not in "biu"
    with np.errstate(all="ignore"):
        found: Array = (values.astype(np.float32) if is_narrow else values).astype(dtype)
    return found

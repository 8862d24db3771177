"""How much of a change rounding alone makes."""

from __future__ import annotations

import functools

from weighttools.core.dtypes import DType

_SPREAD = 0.541
"""The mean square of a unit in the last place by that of eps times the value, over an octave: 3 / (8 ln 2)."""


def rounding_energy(l2: float, n_elements: int, dtype: DType) -> float:
    """Return the expected sum of squared errors where elements are rounded to a floating dtype.

    Parameters
    ----------
    l2
        The norm of the elements.
    n_elements
        How many they are.
    dtype
        What they are rounded to.

    Notes
    -----
    An error is uniform within half a unit in the last place: its square is ulp² / 12 in the mean. Below the normal
    numbers the unit is the least subnormal number.
    """
    eps, least = _precision(dtype)
    return (_SPREAD * (eps * l2) ** 2 + n_elements * least**2) / 12


@functools.cache
def _precision(dtype: DType) -> tuple[float, float]:
    import ml_dtypes

    info = ml_dtypes.finfo(dtype.numpy)  # type: ignore[no-untyped-call]
    return float(info.eps), float(info.smallest_subnormal)


def eps_of(dtype: DType) -> float:
    """Return the distance from 1 to the next number of a floating dtype."""
    return _precision(dtype)[0]

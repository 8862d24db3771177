"""Independent figures: math.fsum, numpy.quantile, scipy and numpy.linalg in float64, on whole arrays."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

Array = np.ndarray[Any, Any]


class Scaled(NamedTuple):
    """Finite values times ``2**-exponent``, so that no square leaves float64."""

    values: Array
    exponent: int


def wide(array: Array) -> Array:
    """Return an array's values as flat float64; complex ones as magnitudes."""
    with np.errstate(all="ignore"):
        flat = array.reshape(-1)
        return np.abs(flat.astype(np.complex128)) if flat.dtype.kind == "c" else flat.astype(np.float64)


def scaled(array: Array) -> Scaled:
    """Return the finite values, scaled to magnitudes of at most 1."""
    x = wide(array)
    kept = x[np.isfinite(x)]
    exponent = math.frexp(float(np.abs(kept).max()))[1] if kept.size else 0
    return Scaled(np.ldexp(kept, -exponent), exponent)


def back(value: float, exponent: int) -> float | None:
    """Return ``value * 2**exponent``, None where that is beyond float64's range, as JSON has it."""
    with np.errstate(all="ignore"):
        number = float(np.ldexp(value, exponent))
    return number if math.isfinite(number) else None


def moments(array: Array) -> dict[str, Any]:
    """Return n, mean, std, l1, l2, rms by exact sums."""
    x, k = scaled(array)
    if not x.size:
        return {"n": 0, "mean": None, "std": None, "l1": 0.0, "l2": 0.0, "rms": None}
    mean = total(x) / x.size
    square = total(x * x)
    return {
        "n": x.size,
        "mean": back(mean, k),
        "std": back(math.sqrt(total((x - mean) ** 2) / x.size), k),
        "l1": back(total(np.abs(x)), k),
        "l2": back(math.sqrt(square), k),
        "rms": back(math.sqrt(square / x.size), k),
    }


def total(x: Array) -> float:
    """Return the sum: exact, and for millions of values exact but for float64's last digits."""
    return math.fsum(x.tolist()) if x.size < 200_000 else float(np.sum(x))


def close(found: float | None, expected: float | None, relative: float, against: float = 0.0) -> bool:
    """Whether two figures agree to a relative error, against the larger of the expected one and `against`."""
    if found is None or expected is None:  # where rounding decides whether the last binade is left, both may be
        return found is expected or min(abs(found or math.inf), abs(expected or math.inf)) > 1.7e308
    return abs(found - expected) <= relative * max(abs(expected), against) + 5e-324


def check_moments(row: dict[str, Any], array: Array, sums: float = 1e-7, variance: float = 1e-6) -> None:
    """Fail unless a row's moments agree with exact sums: sums and norms to `sums`, the variance to `variance`."""
    expected = moments(array)
    n = expected["n"]
    assert row["count"] == array.size
    assert n == row["count"] - row["n_nan"] - row["n_inf"]
    for name in ("l1", "l2", "rms"):
        assert close(row[name], expected[name], sums), (name, row[name], expected[name])
    magnitude = math.ldexp(total(np.abs(scaled(array).values)) / n, scaled(array).exponent) if n else 0.0
    assert close(row["mean"], expected["mean"], sums, magnitude), ("mean", row["mean"], expected["mean"])
    # the std is the root of the variance: half its relative error; float64 itself carries 1e-15 of the magnitudes
    floor = 1e-14 * magnitude / variance
    assert close(row["std"], expected["std"], variance / 2, floor), ("std", row["std"], expected["std"])


def check_extremes(row: dict[str, Any], array: Array, tiny: float) -> None:
    """Fail unless a row's extremes, counts and places are exactly those of the array."""
    x = wide(array)
    finite = np.isfinite(x)
    assert row["n_nan"] == np.isnan(x).sum()
    assert row["n_inf"] == np.isinf(x).sum()
    assert row["n_zero"] == (x == 0).sum()
    assert row["n_subnormal"] == ((np.abs(x) < tiny) & (x != 0)).sum()
    assert row["sparsity"] == ((x == 0).mean() if x.size else None)
    for key, which in (("first_nan", np.isnan(x)), ("first_inf", np.isinf(x))):
        place = np.argwhere(which.reshape(array.shape))
        assert row[key] == (place[0].tolist() if which.any() else None)
    whole = array.dtype.kind in "iu"
    kept = array.reshape(-1) if whole else x[finite]
    if not kept.size:
        assert row["min"] is row["max"] is row["linf"] is None
        return
    least, greatest = (int(kept.min()), int(kept.max())) if whole else (float(kept.min()), float(kept.max()))
    assert (row["min"], row["max"], row["linf"]) == (least, greatest, max(abs(least), abs(greatest)))


def shape_figures(array: Array) -> tuple[float, float] | None:
    """Return skewness and excess kurtosis by scipy; None where the values are too much alike for float64."""
    x = scaled(array).values
    if not x.size or np.std(x) <= 1e-5 * np.abs(x).max():
        return None
    return float(scipy.stats.skew(x)), float(scipy.stats.kurtosis(x))


def entropy(array: Array) -> float:
    """Return the entropy of the bit patterns, in bits an element, by scipy."""
    bits = array.reshape(-1).view(f"u{array.dtype.itemsize}")
    _, n = np.unique(bits, return_counts=True)
    return float(scipy.stats.entropy(n, base=2))

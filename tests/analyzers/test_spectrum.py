"""Spectra against `numpy.linalg.svd` in float64, scipy's entropy and Pareto fits."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from weighttools.analyzers.power_law import fit

RNG = np.random.default_rng(3)


def row_of(array: Any, **settings: Any) -> dict[str, Any]:
    record = wt.spectrum(wt.TensorMap.from_arrays({"w": array}), **settings)
    [row] = record["tensors"]
    return row


def true_values(array: Any) -> np.ndarray[Any, Any]:
    wide = np.asarray(array).astype(np.float64)
    return np.linalg.svd(wide.reshape(wide.shape[0], -1), compute_uv=False)


def close(found: Any, expected: Any, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(found, expected, rtol=rtol)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (30, 30), (2, 500), (12, 3, 3, 2)])
def test_figures(shape: tuple[int, ...], dtype: str) -> None:
    array = RNG.standard_normal(shape).astype(getattr(ml_dtypes, dtype, dtype))
    row, s = row_of(array, ranks=(1, 2), values=True), true_values(array)
    np.testing.assert_allclose(row["singular_values"], s, rtol=1e-9, atol=1e-7 * s[0])
    close(row["spectral_norm"], s[0])
    close(row["frobenius_norm"], math.sqrt((s * s).sum()))
    close(row["nuclear_norm"], s.sum(), 1e-8)
    close(row["stable_rank"], (s * s).sum() / s[0] ** 2)
    close(row["effective_rank"], math.exp(scipy.stats.entropy(s)), 1e-7)
    close(row["energy"]["2"], (s[:2] ** 2).sum() / (s * s).sum())
    eps = min(max(float(ml_dtypes.finfo(array.dtype).eps), 1e-7), 1e-3)
    rank = np.linalg.matrix_rank(
        array.astype(np.float64).reshape(len(array), -1), rtol=max(len(array), array.size // len(array)) * eps
    )
    assert (row["rank"], row["method"], row["error"], row["skipped"]) == (rank, "exact", 0.0, None)
    if rank == s.size:
        close(row["condition_number"], s[0] / s[-1], 1e-6)
    half = row["rank_for_energy"]["0.5"]
    assert (s[:half] ** 2).sum() >= 0.5 * (s * s).sum() > (s[: half - 1] ** 2).sum()


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_extreme_scales(scale: float) -> None:
    array = RNG.standard_normal((30, 20)) * scale
    row, s = row_of(array), true_values(array / scale)
    close(row["spectral_norm"], s[0] * scale)
    close(row["alpha"], fit(s * s).alpha, 1e-6)


@given(st.integers(1, 12), st.integers(12, 60), st.integers(12, 60), st.integers(0, 2**32 - 1))
def test_rank(rank: int, n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    array = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, m))
    row = row_of(array)
    assert row["rank"] == rank == np.linalg.matrix_rank(array)
    assert (row["condition_number"] is None) == (rank < min(n, m))


def test_bands_of_rows_make_no_difference() -> None:
    array = RNG.standard_normal((5000, 450)).astype(np.float32)  # three bands
    s = true_values(array)
    np.testing.assert_allclose(row_of(array, values=True)["singular_values"], s, rtol=1e-9)
    np.testing.assert_allclose(row_of(array.T, values=True)["singular_values"], s, rtol=1e-9)


def test_randomized_spectra_and_their_error() -> None:
    u, v = (np.linalg.qr(RNG.standard_normal((n, 600)))[0] for n in (900, 700))
    for s in (0.97 ** np.arange(600), 1 / np.arange(1, 601), np.linspace(2, 1, 600)):
        array = (u * s) @ v.T
        row = row_of(array, exact_limit=100, values=True, ranks=(1, 64))
        assert row["method"] == "randomized" and row["effective_rank"] is row["rank"] is None
        found = np.array(row["singular_values"])
        assert found.size == 256 and np.all(found <= s[:256] * (1 + 1e-9))
        assert np.abs(s - found[0]).min() <= row["error"] + 1e-12
        close(row["stable_rank"], (s * s).sum() / s[0] ** 2, 5e-2)
        close(row["energy"]["64"], (s[:64] ** 2).sum() / (s * s).sum(), 5e-2)
    close(row_of((u * (0.9 ** np.arange(600))) @ v.T, exact_limit=100)["spectral_norm"], 1.0, 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_randomized_alpha_is_that_of_the_largest_values(seed: int) -> None:
    """Heavy tails, as of trained layers: the fit is that of the exact values whose number it tells."""
    rng = np.random.default_rng(seed)
    array = (rng.standard_t(2.5, (900, 700)) * rng.pareto(2.0, 700)).astype(np.float32)
    exact, row = row_of(array), row_of(array, exact_limit=100)
    s = true_values(array)
    n = row["alpha_n_fitted"]
    assert row["method"] == "randomized" and 50 <= n <= 256 and exact["alpha_n_fitted"] == 700
    expected = fit(s[:n] ** 2)
    assert expected is not None
    close(row["alpha"], expected.alpha, 0.02)
    close(row["alpha_ks"], expected.ks, 0.05)
    if exact["alpha_n_tail"] < n:
        close(row["alpha"], exact["alpha"], 0.02)


def test_noise_stays_below_its_edge_and_a_signal_does_not() -> None:
    noise = RNG.standard_normal((800, 400)) * 0.1
    assert row_of(noise)["n_above_mp_edge"] <= 2
    close(row_of(noise)["mp_edge"], 0.1 * (math.sqrt(800) + math.sqrt(400)), 1e-2)
    signal = noise + 10 * np.outer(np.ones(800), np.ones(400)) / math.sqrt(800 * 400)
    assert row_of(signal)["n_above_mp_edge"] == row_of(noise)["n_above_mp_edge"] + 1


def brute(values: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """The fit, value by value, by scipy's Pareto law."""
    x = np.sort(values)
    best = (math.inf, 0.0, 0.0)
    for at in range(x.size - 1):
        tail = x[at:]
        b = 1 / np.log(tail / x[at]).mean() if tail[-1] > x[at] else math.inf
        if math.isfinite(b):
            law = scipy.stats.pareto(b, scale=x[at]).cdf(tail)
            distance = np.abs(law - np.arange(tail.size) / tail.size).max()
            best = min(best, (distance, b + 1, x[at]))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_power_law(seed: int) -> None:
    rng = np.random.default_rng(seed)
    s = np.linalg.svd(rng.standard_t(3, (90, 60)), compute_uv=False)
    found = fit(s * s)
    assert found is not None
    close((found.ks, found.alpha, found.xmin), brute(s * s))
    pareto = rng.pareto(2.0, 3000) + 1
    tail = fit(pareto)
    assert tail is not None and abs(tail.alpha - 3) < 5 * (tail.alpha - 1) / math.sqrt(tail.n)


def test_no_power_law() -> None:
    assert fit(np.ones(50)) is None and fit(np.arange(1.0, 5)) is None and fit(np.zeros(20)) is None
    assert row_of(np.eye(30))["alpha"] is None and row_of(np.eye(30))["effective_rank"] == pytest.approx(30)


def test_what_has_no_spectrum_says_why() -> None:
    holed = np.ones((4, 4), np.float32)
    holed[1, 2] = np.nan
    assert row_of(holed)["skipped"] == "it holds NaN or Inf" and row_of(holed)["spectral_norm"] is None
    assert row_of(np.zeros((4, 4)))["skipped"] == "it is zero"
    others = {
        "v": np.ones(5),
        "s": np.float32(1),
        "e": np.zeros((0, 4)),
        "i": np.ones((4, 4), np.int32),
        "o": np.ones((1, 9)),
    }
    record = wt.spectrum(wt.TensorMap.from_arrays(others))
    assert record["tensors"] == [] and record["n_left_out"] == 5


def test_threads_make_no_difference() -> None:
    tensor_map = wt.TensorMap.from_arrays({str(i): RNG.standard_normal((40, 30)) for i in range(9)})
    assert wt.spectrum(tensor_map, threads=1) == wt.spectrum(tensor_map, threads=3)

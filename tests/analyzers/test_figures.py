"""Every figure against independent float64 computations, on arrays of every dtype."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import weighttools as wt
from tests.analyzers import oracles
from tests.strategies import arrays, random_array, shapes
from weighttools.core.dtypes import DTYPES, from_numpy
from weighttools.errors import SpecError

KERNELS = ("numpy", "numba")
FAST = ("float32", "bfloat16", "float16")


def smallest_normal(dtype: np.dtype[Any]) -> float:
    """The smallest normal magnitude, by the reference dtypes' own words; 0 for what has no subnormals."""
    return 0.0 if dtype.kind in "iubc" else float(ml_dtypes.finfo(dtype).smallest_normal)


def row_of(array: np.ndarray[Any, Any], **options: Any) -> dict[str, Any]:
    """The statistics of one array, which must be those of the total as well."""
    record = wt.stats(wt.TensorMap.from_arrays({"x": array}), **options)
    [row] = record["tensors"]
    of_one = ("first_", "n_empty", "outlier", "n_outlier", "spectral", "nuclear")
    for key, value in record["total"].items():
        assert key == "n_tensors" or key.startswith(of_one) or row[key] == value, key
    return row  # type: ignore[no-any-return]


@given(arrays(shape=shapes(max_dims=3, max_side=12)))
def test_moments_and_extremes_of_random_bits(array: np.ndarray[Any, Any]) -> None:
    row = row_of(array)
    oracles.check_moments(row, array, sums=1e-12, variance=1e-9)
    oracles.check_extremes(row, array, smallest_normal(array.dtype))


@given(arrays(shape=shapes(max_dims=3, max_side=12)), st.sampled_from([0.0, 1e-30, 1e-3, 0.1, 1.0, 100.0]))
def test_near_zeros(array: np.ndarray[Any, Any], eps: float) -> None:
    assert row_of(array, eps=eps)["n_near_zero"] == (np.abs(oracles.wide(array)) <= eps).sum()
    assert "n_near_zero" not in row_of(array)


@given(arrays(shape=shapes(max_dims=3, max_side=12)), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_quantiles_are_numpys(array: np.ndarray[Any, Any], probabilities: list[float]) -> None:
    x = oracles.wide(array)
    kept = x[np.isfinite(x)] + 0.0
    found = row_of(array, quantiles=probabilities)["quantiles"]
    for p in probabilities:
        with np.errstate(all="ignore"):
            expected = float(np.quantile(kept, p)) if kept.size else None
        shown = found[f"{p:g}"]
        if expected is not None and not math.isfinite(expected):  # the step between two neighbours overflows
            assert shown is None or shown in kept
        elif array.dtype.name not in ("int64", "uint64"):
            same_text = [q for q in probabilities if f"{q:g}" == f"{p:g}"]
            with np.errstate(all="ignore"):
                assert shown in [None if not kept.size else float(np.quantile(kept, q)) for q in same_text]
        elif expected is not None:  # ours are exact order statistics; numpy's were rounded to float64 first
            assert shown == pytest.approx(expected, rel=1e-15)


@given(arrays(shape=shapes(max_dims=3, max_side=12)), st.integers(1, 60))
def test_histograms_are_numpys(array: np.ndarray[Any, Any], n_bins: int) -> None:
    x = oracles.wide(array)
    kept = x[np.isfinite(x)]
    hist = row_of(array, hist=n_bins)["hist"]
    if not kept.size:
        assert hist is None
        return
    with np.errstate(all="ignore"):
        if not np.isfinite(kept.max() - kept.min()):
            assert hist is None
            return
        try:
            edges = np.histogram_bin_edges(kept, n_bins)
            if np.any(edges[:-1] >= edges[1:]):  # as NumPy 2.2 does; before, it goes on and fails in odd ways
                raise ValueError("two edges are one")
            counts, edges = np.histogram(kept, n_bins)
        except ValueError:  # numpy finds no room for as many edges, nor do we
            assert hist is None
            return
    assert hist["edges"] == edges.tolist()
    assert hist["counts"] == counts.tolist()
    assert sum(hist["counts"]) == kept.size


@given(arrays([d.name for d in DTYPES.values() if d.bits <= 16], shapes(max_dims=3, max_side=12)))
def test_entropy_and_distinct_values(array: np.ndarray[Any, Any]) -> None:
    row = row_of(array, entropy=True)
    x = oracles.wide(array)
    assert row["n_distinct"] == np.unique(x[~np.isnan(x)]).size
    if array.size:
        assert row["entropy"] == pytest.approx(oracles.entropy(array), abs=1e-12)
    else:
        assert row["entropy"] is None


@given(arrays(shape=shapes(max_dims=3, max_side=12)))
def test_skewness_and_kurtosis_are_scipys(array: np.ndarray[Any, Any]) -> None:
    row = row_of(array, kurtosis=True)
    expected = oracles.shape_figures(array)
    if expected is not None:
        assert row["skewness"] == pytest.approx(expected[0], rel=1e-8, abs=1e-8)
        assert row["kurtosis"] == pytest.approx(expected[1], rel=1e-8, abs=1e-8)
    elif np.unique(oracles.scaled(array).values).size <= 1:
        assert row["skewness"] is row["kurtosis"] is None


def exact_shape(values: list[int]) -> tuple[float, float, float, float]:
    """Mean, standard deviation, skewness and excess kurtosis of integers, in fractions."""
    n = len(values)
    mean = Fraction(sum(values), n)
    m2, m3, m4 = (sum((v - mean) ** k for v in values) / n for k in (2, 3, 4))
    return float(mean), math.sqrt(m2), float(m3) / float(m2) ** 1.5, float(m4 / m2**2) - 3.0


@given(
    st.sampled_from(["int64", "uint64"]),
    st.integers(2**53, 2**64 - 1),
    st.lists(st.integers(0, 9) | st.integers(0, 2**40), min_size=2, max_size=40),
    st.integers(0, 3),
)
def test_integers_beyond_float64_are_exact(name: str, base: int, steps: list[int], n_small: int) -> None:
    limits = np.iinfo(name)
    base = base % (2**63) if name == "int64" else base
    values = [min(base + step, limits.max) for step in steps]
    values = [v - 2**62 if name == "int64" else v for v in values] + [7] * n_small
    assume(max(map(abs, values)) > 2**53)  # below, float64 holds them, and its own rounding of a mean shows
    found = row_of(np.array(values, name), kurtosis=True)
    assert (found["min"], found["max"]) == (min(values), max(values))
    if len(set(values)) == 1:
        assert found["skewness"] is found["kurtosis"] is None and found["std"] == 0
        return
    wanted = exact_shape(values)
    for key, value in zip(("mean", "std", "skewness", "kurtosis"), wanted, strict=True):
        assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-9 * (key != "std")), key


def test_integers_beyond_float64_merge_exactly() -> None:
    """Over blocks, over pieces, over tensors, and with small integers and floats among them."""
    n = 600_000
    big = (2**60 + np.arange(n) % 5).astype(np.int64)
    later = big + np.int64(3)
    record = wt.stats(wt.TensorMap.from_arrays({"m.a": big, "m.b": later}), by="module", kurtosis=True)
    for row in (record["groups"][0], record["total"]):
        wanted = exact_shape([2**60 + i % 5 + shift for i in range(5) for shift in (0, 3)])
        assert [row[key] for key in ("mean", "std", "skewness", "kurtosis")] == pytest.approx(
            wanted, rel=1e-9, abs=1e-9
        )
    mixed = {"m.a": big[:10], "m.b": np.arange(10), "m.c": np.arange(10.0) * 2.0**300, "m.d": np.array([2.0**600])}
    [row] = wt.stats(wt.TensorMap.from_arrays(mixed), by="module", kurtosis=True)["groups"]
    values = [int(v) for array in mixed.values() for v in array.tolist()]
    wanted = [float(Fraction(sum(values), len(values))), *exact_shape([v >> 500 for v in values])[2:]]
    assert [row["mean"], row["skewness"], row["kurtosis"]] == pytest.approx(wanted, rel=1e-6)


@given(
    st.sampled_from([(4, 8), (3, 8, 2), (40, 48), (1, 16), (33, 20), (2, 3, 3, 3), (64,), (7, 5), (0, 4), ()]),
    st.floats(0, 1),
    st.sampled_from(["float32", "bfloat16", "int8", "float64"]),
    st.integers(0, 2**32 - 1),
)
def test_patterns_of_zeros(shape: tuple[int, ...], share: float, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    array = np.where(rng.random(shape) < share, 0, rng.integers(1, 5, shape)).astype(DTYPES[name].numpy)
    if array.ndim == 2 and array.size:
        array[rng.integers(array.shape[0])] = 0
        array[:, rng.integers(array.shape[1])] = -0.0
    row = row_of(array, sparsity=True)
    filled = oracles.wide(array).reshape(shape) != 0
    for n, m in ((2, 4), (4, 8)):
        groups = filled.reshape(-1, m) if shape and shape[-1] % m == 0 and array.size else np.zeros((0, m))
        expected = float((groups.sum(axis=1) <= n).mean()) if len(groups) else None
        assert row[f"nm_{n}_{m}"] == expected
    if len(shape) < 2 or not array.size:
        assert row["n_empty_rows"] is row["n_empty_columns"] is row["n_empty_channels"] is row["n_empty_blocks"] is None
        return
    matrix = filled.reshape(shape[0], -1)
    assert row["n_empty_rows"] == (~matrix.any(axis=1)).sum()
    assert row["n_empty_columns"] == (~matrix.any(axis=0)).sum()
    assert row["n_empty_channels"] == sum(not filled[:, i].any() for i in range(shape[1]))
    tiles = [matrix[i : i + 16, j : j + 16] for i in range(0, shape[0], 16) for j in range(0, matrix.shape[1], 16)]
    assert row["n_empty_blocks"] == sum(not tile.any() for tile in tiles)


def test_outlier_channels() -> None:
    rng = np.random.default_rng(0)
    array = rng.uniform(0.5, 1.0, (50, 40)).astype(np.float32)
    array[7] *= 20
    array[:, 3] *= -30
    array[9, 9] = np.nan
    row = row_of(array, outliers=True)
    magnitudes = np.abs(array.astype(np.float64))
    rows, columns = np.delete(magnitudes, 9, 0).max(axis=1), np.delete(magnitudes, 9, 1).max(axis=0)
    assert row["outlier_rows"] == rows.max() / np.median(rows)
    assert row["outlier_channels"] == columns.max() / np.median(columns)
    assert row["n_outlier_rows"] == (rows > 6 * np.median(rows)).sum()
    assert row["n_outlier_channels"] == (columns > 6 * np.median(columns)).sum() > 0
    assert row_of(array[0], outliers=True)["outlier_rows"] is None


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 2), (1, 1), (6,), (), (0, 3)])
def test_spectral_and_nuclear_norms(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    row = row_of(array, norms=["spectral", "nuclear"])
    if array.ndim < 2 or not array.size:
        assert row["spectral"] is row["nuclear"] is None
        return
    singular = np.linalg.svd(array.astype(np.float64).reshape(shape[0], -1), compute_uv=False)
    assert row["spectral"] == pytest.approx(singular[0], rel=1e-12)
    assert row["nuclear"] == pytest.approx(singular.sum(), rel=1e-12)
    array[(0,) * array.ndim] = np.inf
    assert row_of(array, norms=["spectral"])["spectral"] is None


@pytest.mark.parametrize("shape", [(300, 90), (90, 300), (150, 150), (3000, 400)])
@pytest.mark.parametrize("kind", ["noise", "rank 5", "graded", "one", "huge", "tiny"])
def test_norms_by_singular_values_to_what_is_promised(kind: str, shape: tuple[int, int]) -> None:
    """A matrix that lacks rank, or whose values fall over many decades, is where a Gram matrix alone would not do."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal(shape)
    if kind == "rank 5":
        x = rng.standard_normal((shape[0], 5)) @ rng.standard_normal((5, shape[1]))
    elif kind == "graded":
        x *= np.logspace(0, -14, shape[1])
    elif kind == "one":
        x = np.zeros(shape)
        x[7, 9] = 3.0
    x = np.ldexp(x, {"huge": 900, "tiny": -900}.get(kind, 0))
    row = row_of(x, norms=["spectral", "nuclear"])
    singular = np.linalg.svd(x, compute_uv=False)
    assert row["spectral"] == pytest.approx(singular[0], rel=1e-12)
    assert row["nuclear"] == pytest.approx(singular.sum(), rel=1e-9)
    assert row_of(x, norms=["nuclear"], threads=1)["nuclear"] == row["nuclear"]
    assert row_of(np.zeros(shape), norms=["spectral"])["spectral"] == 0


N = 100_001
"""Elements: more than a block of the fast kernels, and not a whole number of rows."""


def _hard(name: str, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Large arrays on which float32 sums go wrong in their own ways."""
    normal = rng.standard_normal(N) * 0.02
    kinds = {
        "normal": normal,
        "layer norm": 1 + normal * 0.01,
        "constant": np.full(N, 0.1),
        "two values": np.where(rng.random(N) < 0.5, 1.1, -1.1),
        "ternary": rng.choice([-0.0123, 0.0, 0.0123], N),
        "large": normal * 1e31,
        "tiny": normal * 1e-24,
        "subnormal": normal * 1e-37,
        "zeros": np.where(rng.random(N) < 0.5, -0.0, 0.0),
        "one giant": np.where(np.arange(N) == 7_777, 1e30, normal),
        "sorted": np.sort(normal),
        "positive": np.abs(normal),
        "wide": np.exp(rng.uniform(-30, 30, N)),
    }
    return kinds[name]


HARD = ("normal", "layer norm", "constant", "two values", "ternary", "large", "tiny", "subnormal", "zeros")
HARD = (*HARD, "one giant", "sorted", "positive", "wide")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", FAST)
@pytest.mark.parametrize("name", HARD)
def test_large_blocks(name: str, dtype: str, kernel: str) -> None:
    with np.errstate(all="ignore"):
        array = _hard(name, np.random.default_rng(5)).astype(DTYPES[dtype].numpy)
    row = row_of(array, kernel=kernel, eps=0.01)
    oracles.check_moments(row, array)
    oracles.check_extremes(row, array, smallest_normal(array.dtype))
    assert row["n_near_zero"] == (np.abs(oracles.wide(array)) <= 0.01).sum()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [d.name for d in DTYPES.values()])
def test_large_random_bits_of_every_dtype(dtype: str, kernel: str) -> None:
    array = random_array(DTYPES[dtype], (3, N // 3), 11)
    row = row_of(array, kernel=kernel, kurtosis=True, quantiles=[0.001, 0.5], hist=7)
    oracles.check_moments(row, array)
    oracles.check_extremes(row, array, smallest_normal(array.dtype))
    x = oracles.wide(array)
    kept = x[np.isfinite(x)]
    with np.errstate(all="ignore"):
        for p in (0.001, 0.5):
            expected = float(np.quantile(kept, p))
            assert row["quantiles"][f"{p:g}"] == pytest.approx(expected, rel=1e-15)
        if np.isfinite(kept.max() - kept.min()):
            assert row["hist"]["counts"] == np.histogram(kept, 7)[0].tolist()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", FAST)
def test_a_constant_keeps_its_figures_at_any_size(dtype: str, kernel: str) -> None:
    """Float32 adds a constant with the same rounding again and again: the errors of long rows do not cancel."""
    for value in (0.1, 1 / 3, 1.0000001, 1.9999999, 7e-5):
        array = np.full(1 << 17, value).astype(DTYPES[dtype].numpy)
        row = row_of(array, kernel=kernel)
        exact = float(array[0])
        assert row["std"] == 0.0
        assert row["mean"] == exact
        assert row["l1"] == pytest.approx(exact * array.size, rel=1e-7)
        assert row["l2"] == pytest.approx(exact * math.sqrt(array.size), rel=1e-7)


def test_exact_integers_beyond_float64() -> None:
    array = np.array([2**62 + 1, -(2**63), 2**62 + 3], np.int64)
    row = row_of(array, quantiles=[0.0, 1.0])
    assert (row["min"], row["max"], row["linf"]) == (-(2**63), 2**62 + 3, 2**63)
    assert row["quantiles"] == {"0": -(2**63), "1": 2**62 + 3}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"quantiles": [1.5]}, "0 to 1"),
        ({"quantiles": [math.nan]}, "0 to 1"),
        ({"quantiles": [0.5] * 101}, "at most 100"),
        ({"hist": 0}, "1 to 10,000"),
        ({"norms": ["l3"]}, "one of l1, l2, inf, spectral, nuclear"),
        ({"by": "colour"}, "tensor, module, dtype, depth"),
        ({"sort": "size"}, "one of name"),
        ({"top": -1}, "0 or more"),
        ({"kernel": "fortran"}, "auto, numpy, numba"),
        ({"where": "sparsty > 1"}, "sparsity"),
        ({"eps": math.nan}, "0 or more"),
        ({"eps": -1.0}, "0 or more"),
        ({"threads": 0}, "1 or more"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        row_of(np.zeros(3, np.float32), **options)


def test_from_numpy_covers_what_is_tested() -> None:
    assert {from_numpy(random_array(d, (1,), 0).dtype) for d in DTYPES.values()} == set(DTYPES.values())


@pytest.mark.parametrize("values", [[1e300], [-5e34, -5e34], [2.0**60, 2.0**60 + 256]])
def test_a_range_too_narrow_for_edges_has_no_histogram(values: list[float]) -> None:
    assert row_of(np.array(values), hist=20)["hist"] is None

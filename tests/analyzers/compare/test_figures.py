"""Figures of a pair against float64 NumPy, for every dtype, and how often bytes are read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.strategies import arrays, dtypes, random_array
from tests.thorough import at_most
from weighttools.analyzers.compare.figures import PairStateOf, compare_pairs
from weighttools.analyzers.compare.matching import match
from weighttools.analyzers.compare.pair import Pair, PairFigures
from weighttools.core.dtypes import from_numpy
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap


def figures(before: Any, after: Any, kernel: str = "numpy", **tolerances: float) -> PairFigures:
    old, new = (TensorMap.from_arrays({"w": one})["w"] for one in (before, after))
    [found] = compare_pairs([Pair("w", "w", "name", old, new)], PairStateOf(**tolerances, kernel=kernel))
    return found


def wide(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with np.errstate(all="ignore"):  # a signalling NaN
        return values.ravel().astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def close(found: float | None, expected: float) -> bool:
    return found is not None and (
        math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-300) or (math.isinf(expected) and math.isinf(found))
    )


def assert_are_numpys(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], kernel: str = "numpy") -> PairFigures:
    """Hold all figures against plain NumPy, in long double where squares leave float64's range."""
    found = figures(before, after, kernel)
    x, y = wide(before), wide(after)
    finite = np.isfinite(x) & np.isfinite(y)
    both_nan = np.isnan(x) & np.isnan(y)
    with np.errstate(all="ignore"):
        distance = np.abs(y - x)
    assert found.n_elements == x.size
    assert found.n_changed == int(((x != y) & ~both_nan).sum())
    assert found.n_not_finite == int((~finite).sum())
    assert (found.n_zero_before, found.n_zero_after) == (int((x == 0).sum()), int((y == 0).sum()))
    assert found.n_zeroed == int(((y == 0) & (x != 0)).sum())
    if finite.any():
        assert found.max_abs == distance[finite].max()
        assert found.max_at is not None and found.max_at == int(np.flatnonzero(finite & (distance == found.max_abs))[0])
    else:
        assert found.max_abs is None and found.max_at is None
    long_x, long_y = (np.abs(one[finite]).astype(np.longdouble) for one in (x, y))
    assert close(found.l2_before, float(np.sqrt((long_x**2).sum())))
    assert close(found.l2_after, float(np.sqrt((long_y**2).sum())))
    assert close(found.l2, float(np.sqrt((distance[finite].astype(np.longdouble) ** 2).sum())))
    if before.dtype == after.dtype:
        width = before.dtype.itemsize
        bits = [np.ascontiguousarray(one).reshape(-1).view(np.uint8).reshape(-1, width) for one in (before, after)]
        assert found.n_bits == int((bits[0] != bits[1]).any(axis=1).sum())
    return found


@given(arrays(), st.data())
def test_figures_are_numpys_for_every_dtype(before: np.ndarray[Any, Any], data: st.DataObject) -> None:
    if before.dtype.itemsize == 8 and before.dtype.kind in "iu":
        before = before >> 12  # what float64 holds; the others have a test of their own
    after = random_array(from_numpy(before.dtype), before.shape, data.draw(st.integers(0, 99)))
    if after.dtype.itemsize == 8 and after.dtype.kind in "iu":
        after = after >> 12
    keep = np.random.default_rng(data.draw(st.integers(0, 99))).random(before.shape) < 0.5
    mixed = np.where(keep, before.view(f"V{before.itemsize}"), after.view(f"V{after.itemsize}")).view(before.dtype)
    assert_are_numpys(before, mixed.reshape(before.shape))


@given(arrays(), dtypes(("float32", "float64", "bfloat16", "float16", "int32", "float8_e4m3fn")))
def test_dtypes_are_compared_by_value(before: np.ndarray[Any, Any], other: Any) -> None:
    if before.dtype.kind == "c" or before.dtype.itemsize == 8:
        return
    with np.errstate(all="ignore"):
        after = before.astype(np.float32).astype(other.numpy)
    assert_are_numpys(before, after)


KERNELS = ["numpy", pytest.param("numba", marks=pytest.mark.skipif(not find_spec("numba"), reason="no numba"))]
NARROW = [np.float32, np.float16, ml_dtypes.bfloat16]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("spoil", ["", "nan", "huge", "tiny", "zeros", "signs"])
def test_large_blocks_are_numpys(dtype: Any, spoil: str, kernel: str) -> None:
    rng = np.random.default_rng(3)
    before = rng.standard_normal(300_001).astype(dtype)
    after = (before.astype(np.float64) + rng.standard_normal(before.size) * 1e-2).astype(dtype)
    values = {"nan": np.nan, "huge": np.inf, "tiny": 1e-30, "zeros": 0.0, "signs": 0.0}
    if spoil:
        after[1000:1010] = values[spoil]
        before[5000:5010] = values[spoil]
    if spoil == "signs":
        before[1000:1005], after[2000], before[2000] = -0.0, -0.0, -0.0
    assert_are_numpys(before, after, kernel)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtypes", [(np.float32, ml_dtypes.bfloat16), (np.float16, np.float32)])
def test_large_blocks_of_two_dtypes_are_numpys(dtypes: tuple[Any, Any], kernel: str) -> None:
    values = np.random.default_rng(5).standard_normal(270_001)
    values[::1000] = 0
    before, after = values.astype(dtypes[0]), (values * 1.01).astype(dtypes[1])
    assert assert_are_numpys(before, after, kernel).n_bits is None


BYTES = ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn", "int8", "uint8", "bool"]


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("other", ["", "float32"])
def test_large_blocks_of_bytes_are_numpys(dtype: str, other: str) -> None:
    """Of every bit pattern that the dtype has, NaN among them in half."""
    rng = np.random.default_rng(6)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    n_patterns = {"float4_e2m1fn": 16, "bool": 2}.get(dtype, 256)
    bits = rng.integers(0, n_patterns, 300_001).astype(np.uint8)
    before, after = bits.view(kind), np.where(rng.random(bits.size) < 0.9, bits, bits[::-1]).view(kind)
    finite = np.isfinite(wide(before)) & np.isfinite(wide(after))
    for one, another in ((before, after), (before[finite], after[finite]), (before, before.copy())):
        assert_are_numpys(one, another.astype(np.float32) if other else another)


def test_bytes_of_one_truth_value_are_no_other_values() -> None:
    """Any byte but 0 is true."""
    before, after = (np.full(70_000, byte, np.uint8).view(np.bool_) for byte in (1, 1))
    after.view(np.uint8)[5] = 2
    assert (figures(before, after).n_bits, figures(before, after).n_changed) == (1, 0)


@pytest.mark.parametrize("kernel", KERNELS)
@given(st.data())
@at_most(15)
def test_few_changes_anywhere_in_large_blocks_are_seen(kernel: str, data: st.DataObject) -> None:
    """Among equal, zero or constant values, at the ends of rows and blocks too."""
    n, dtype = data.draw(st.integers(40_000, 270_000)), data.draw(st.sampled_from(NARROW))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    before = data.draw(st.sampled_from([rng.standard_normal(n), np.zeros(n), np.ones(n)])).astype(dtype)
    after = before.copy()
    for at in data.draw(st.lists(st.integers(0, n - 1), max_size=4)):
        after[at] = data.draw(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, 1e-3]))
    assert_are_numpys(before, after, kernel)


@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("bfloat16", "float16")])
def test_machine_code_gives_what_numba_itself_does(
    dtypes: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    from weighttools.analyzers.compare import compiled

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    values = np.random.default_rng(3).standard_normal(100_003)
    values[::97] = 0
    before, after = (
        one.astype(getattr(ml_dtypes, name, name)) for one, name in zip((values, values + 1e-3), dtypes, strict=True)
    )
    found = []
    for kernel in (compiled.native_kernel(*dtypes), compiled.numba_kernel(*dtypes)):
        if kernel is not None:  # machine code is for Linux
            monkeypatch.setitem(compiled._KERNELS, dtypes, kernel)
            found.append(compiled.compiled_state(before, after, 0))
    assert found[0] == found[-1] is not None


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", NARROW)
def test_tolerances_in_large_blocks_are_those_of_isclose(dtype: Any, kernel: str) -> None:
    rng = np.random.default_rng(4)
    before = rng.standard_normal(300_001).astype(dtype)
    after = (before.astype(np.float64) * (1 + 1e-2 * rng.standard_normal(before.size))).astype(dtype)
    for rtol, atol in ((1e-2, 0.0), (0.0, 1e-2), (1e-3, 1e-2), (0.0, 10.0), (2.0**-7, 0.0)):
        near = np.isclose(wide(after), wide(before), rtol=rtol, atol=atol)
        assert figures(before, after, kernel, rtol=rtol, atol=atol).n_beyond == int((~near).sum())


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_greatest_differences_that_are_equal_in_float32_are_told_apart(kernel: str) -> None:
    """One is greater by less than float32 holds, and of equal ones the first counts, of either sign."""
    before, after = np.zeros(300_000, np.float32), np.zeros(300_000, np.float32)
    after[[70_000, 90_000, 250_000]] = [3.0, -3.0, 3.0]
    before[90_000] = 2.0**-30
    found = figures(before, after, kernel)
    assert (found.max_abs, found.max_at) == (3 + 2.0**-30, 90_000)
    assert figures(before * 0, after, kernel).max_at == figures(before * 0, -after, kernel).max_at == 70_000


def test_long_integers_are_compared_as_integers() -> None:
    before = np.array([2**60, 2**63 - 1, -(2**63), 5], np.int64)
    after = np.array([2**60 + 1, -(2**63), -(2**63), 5], np.int64)
    found = figures(before, after)
    assert found.n_changed == 2 and found.max_abs == float(2**64 - 1) and found.max_at == 1
    held = figures(np.array([2**53 + 1, 2**53]), np.array([2.0**53, 2.0**53]))
    assert held.n_changed == 1
    assert figures(np.array([2**64 - 1], np.uint64), np.array([2.0**64])).n_changed == 1


@given(st.lists(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2**12)), min_size=1), st.booleans(), st.data())
def test_long_integers_are_held_against_floats_exactly(whole: list[int], is_signed: bool, data: st.DataObject) -> None:
    """By Python's own integers and fractions, which know no rounding."""
    values = [one - 2**63 if is_signed else one for one in whole]
    floats = [float(one) if data.draw(st.booleans()) else float(one // 2) for one in values]
    found = figures(np.array(values, np.int64 if is_signed else np.uint64), np.array(floats))
    exact = [abs(Fraction(a) - Fraction(b)) for a, b in zip(values, floats, strict=True)]
    assert found.n_changed == found.n_beyond == sum(one != 0 for one in exact)
    assert found.max_abs == pytest.approx(float(max(exact)), rel=1e-15)
    assert found.max_at is not None and float(exact[found.max_at]) == pytest.approx(found.max_abs, rel=1e-15)


def test_bits_and_values_are_told_apart() -> None:
    before, after = np.array([0.0, np.nan, 1.0], np.float32), np.array([-0.0, np.nan, 1.0], np.float32)
    after.view(np.uint32)[1] ^= 1
    found = figures(before, after)
    assert (found.n_bits, found.n_changed) == (2, 0)


@given(arrays(("float32", "bfloat16", "float64")), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9))
def test_tolerances_are_those_of_isclose(before: np.ndarray[Any, Any], rtol: float, atol: float, seed: int) -> None:
    after = random_array(from_numpy(before.dtype), before.shape, seed)
    found = figures(before, after, rtol=rtol, atol=atol)
    with np.errstate(all="ignore"):
        near = np.isclose(wide(after), wide(before), rtol=rtol, atol=atol, equal_nan=True)
    assert found.n_beyond == int((~near).sum())


def test_cosines_of_huge_and_tiny_values() -> None:
    for scale in (1e300, 1e-300, 1.0):
        found = figures(np.array([1.0, 2, 3]) * scale, np.array([3.0, 2, 1]) * scale)
        assert found.cosine == pytest.approx(10 / 14) and found.rel_l2 == pytest.approx(math.sqrt(8 / 14))


@at_most(20)
@given(st.integers(0, 2**16), st.integers(1, 3))
def test_threads_and_cuts_make_no_difference(seed: int, threads: int) -> None:
    rng = np.random.default_rng(seed)
    old = {f"t{i}": rng.standard_normal(40_000 * i + 7).astype(np.float32) for i in range(3)}
    new = {
        name: one + rng.standard_normal(one.size).astype(np.float32) * (i == 1)
        for i, (name, one) in enumerate(old.items())
    }
    pairs = match(TensorMap.from_arrays(old), TensorMap.from_arrays(new)).pairs
    with ThreadPoolExecutor(threads) as pool:
        assert list(compare_pairs(pairs)) == list(compare_pairs(pairs, executor=pool))


class Counting:
    """A source that counts what is read of it."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.n_read = inner, 0
        self.name, self.size = inner.name, inner.size

    def read(self, offset: int, length: int) -> bytes:
        self.n_read += length
        return bytes(self.inner.read(offset, length))

    def readinto(self, offset: int, buffer: memoryview) -> None:
        self.n_read += len(buffer)
        self.inner.readinto(offset, buffer)


def test_each_side_is_read_once_and_the_same_file_not_at_all(tmp_path: Path) -> None:
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    wt.save(path, TensorMap.from_arrays({"w": np.arange(5000, dtype=np.float32)}))
    other.write_bytes(path.read_bytes())
    (tmp_path / "link.safetensors").hardlink_to(path)
    pairs = match(wt.open(path), wt.open(tmp_path / "link.safetensors")).pairs
    [same] = compare_pairs(list(_no_reading(pairs)))
    assert same.n_bits == same.n_changed == 0
    [pair] = match(wt.open(path), wt.open(other)).pairs
    sides = [_counting(tensor) for tensor in (pair.before, pair.after)]
    [found] = compare_pairs([pair._replace(before=sides[0], after=sides[1])])
    assert found.n_bits == 0
    assert [side.stored.source.n_read for side in sides] == [20_000, 20_000]


def _counting(tensor: Any) -> Any:
    span = tensor.stored
    return type(tensor)(tensor.spec, None, span._replace(source=Counting(span.source)))


def _no_reading(pairs: list[Pair]) -> Iterator[Pair]:
    for pair in pairs:
        for tensor in (pair.before, pair.after):
            assert tensor.stored is not None
            tensor.stored.source.readinto = pytest.fail  # type: ignore[method-assign,assignment]
        yield pair


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("size", [1e-5, 1e-3, 0.05, 1.0])
def test_what_the_cosine_is_short_of_one_is_float64s(dtype: Any, size: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(90_000).astype(dtype)
    y = (wide(x) * (1 + size) * (1 + size * rng.standard_normal(x.size))).astype(dtype)
    a, b = (wide(one) for one in (x, y))
    d = a / np.linalg.norm(a) - b / np.linalg.norm(b)
    [found] = compare_pairs([Pair("w", "w", "name", Tensor.from_array(x), Tensor.from_array(y))])
    assert found.cosine is not None and 1 - found.cosine == pytest.approx(d @ d / 2, rel=1e-3)

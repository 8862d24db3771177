"""Casts against exact arithmetic: the nearest representable value, ties to even, and against torch."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from functools import cache

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import random_array, same_bits
from weighttools.core.dtypes import DTYPES
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, TensorNotFoundError
from weighttools.transforms.cast import cast, cast_block

NARROW = [
    "float16", "bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e4m3",
    "float8_e3m4", "float8_e4m3b11fnuz",
]  # fmt: skip
SOURCES = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e5m2",
    "float8_e4m3fn",
    "float6_e2m3fn",
    "float4_e2m1fn",
]


@cache
def positive(name: str) -> tuple[list[float], list[int]]:
    """Every finite value of a dtype from 0 up, ascending, and its bit pattern."""
    dtype = DTYPES[name].numpy
    patterns = np.arange(1 << (dtype.itemsize * 8 - 1)).astype(f"u{dtype.itemsize}")
    with np.errstate(invalid="ignore"):
        values = patterns.view(dtype).astype(np.float64)
    kept = [(float(v), int(p)) for v, p in zip(values, patterns, strict=True) if np.isfinite(v)]
    assert kept == sorted(kept)  # so the pattern after the last is where the next value would lie
    return [v for v, _ in kept], [p for _, p in kept]


def nearest(x: float, name: str) -> float:
    """Round by exact comparison; beyond the middle to the value that would come next is Inf, or NaN."""
    values, patterns = positive(name)
    if np.isnan(x):
        return float("nan")
    size = abs(Fraction(x)) if np.isfinite(x) else None
    at = len(values) if size is None else bisect_left(values, abs(x))
    if at < len(values) and Fraction(values[at]) == size:
        found = values[at]
    else:
        beyond = Fraction(values[-1]) * 2 - Fraction(values[-2])
        low = Fraction(values[at - 1])
        high = Fraction(values[at]) if at < len(values) else beyond
        below = size is not None and (size - low, patterns[at - 1] % 2) < (high - size, 1 - patterns[at - 1] % 2)
        found = float(low) if below else float(high) if at < len(values) else overflow(name)
    signed = -found if np.signbit(x) else found
    return 0.0 if signed == 0 and "fnuz" in name else signed  # these have no -0


def overflow(name: str) -> float:
    with np.errstate(all="ignore"):
        has_infinity = np.isinf(np.array(np.inf).astype(DTYPES[name].numpy).astype(np.float64))
    return float("inf") if has_infinity else float("nan")


def exact(block: np.ndarray) -> np.ndarray:
    """Widen to float64; signalling NaNs may set flags here, but not in the package's own casts."""
    with np.errstate(invalid="ignore"):
        return block.astype(np.float64)


def same_number(a: float, b: float) -> bool:
    """Whether two numbers are both NaN, or equal with the same sign, of 0 too."""
    if np.isnan(a) or np.isnan(b):
        return bool(np.isnan(a) and np.isnan(b))
    return a == b and np.signbit(a) == np.signbit(b)


def assert_rounded(block: np.ndarray, name: str) -> None:
    found = exact(cast_block(block, DTYPES[name]))
    for x, y in zip(exact(block).tolist(), found.tolist(), strict=True):
        expected = nearest(x, name)
        assert same_number(y, expected), (x, y, expected)


@pytest.mark.parametrize("name", NARROW)
@given(st.lists(st.floats(width=64) | st.floats(-1e5, 1e5) | st.floats(-1e-3, 1e-3), min_size=1, max_size=30))
def test_float64_is_rounded_once(name: str, numbers: list[float]) -> None:
    assert_rounded(np.array(numbers), name)


@pytest.mark.parametrize("name", NARROW)
def test_middles_and_their_neighbours_are_rounded_exactly(name: str) -> None:
    """The middle of two neighbours goes to the even one; the next float64 to either side goes to the nearer."""
    values = positive(name)[0]
    step = max(1, len(values) // 150)
    places = sorted({*range(0, len(values) - 1, step), *range(min(20, len(values) - 1)), len(values) - 2})
    middles = [(values[i] + values[i + 1]) / 2 for i in places] + [values[-1] * 1.5 - values[-2] * 0.5]
    around = np.array([x for m in middles for x in (m, np.nextafter(m, 0), np.nextafter(m, np.inf))])
    assert_rounded(np.concatenate([around, -around]), name)
    with np.errstate(over="ignore"):
        assert_rounded(around.astype(np.float32), name)


@pytest.mark.parametrize("name", [*NARROW, "float32", "float64"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_kind_of_float_casts_to_every_other(source: str, name: str) -> None:
    block = random_array(DTYPES[source], (300,), 9)
    if name in ("float32", "float64"):
        with np.errstate(all="ignore"):
            expected = exact(block).astype(name)
        found = cast_block(block, DTYPES[name])
        same = found.view("u1").reshape(300, -1) == expected.view("u1").reshape(300, -1)
        assert (same.all(axis=1) | np.isnan(expected)).all()
    elif source != name:
        assert_rounded(block, name)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("float32", "bfloat16"),
        ("float32", "float16"),
        ("float64", "float16"),
        ("bfloat16", "float32"),
        ("float16", "bfloat16"),
        ("float64", "float32"),
    ],
)
def test_casts_are_those_of_torch(source: str, name: str) -> None:
    block = random_array(DTYPES[source], (20_000,), 5)
    raw = torch.from_numpy(block.view("u1").copy()).view(getattr(torch, source))
    theirs = raw.to(getattr(torch, name)).view(torch.uint8).numpy().view(DTYPES[name].numpy)
    ours = cast_block(block, DTYPES[name])
    nan = np.isnan(exact(block))
    assert np.isnan(exact(ours[nan])).all() and np.isnan(exact(theirs[nan])).all()
    assert same_bits(ours[~nan], theirs[~nan])


EIGHT = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]


@pytest.mark.parametrize("name", EIGHT)
@pytest.mark.parametrize("source", ["float32", "float16", "bfloat16", "float64"])
def test_eight_bits_are_those_of_torch(source: str, name: str) -> None:
    """torch saturates to float8_e4m3fn, and follows IEEE 754 to the others."""
    rng = np.random.default_rng(8)
    with np.errstate(over="ignore"):
        block = np.concatenate([rng.normal(0, s, 500) for s in (1e-6, 1e-2, 1, 300, 1e5)])
        block = np.concatenate([block, [np.inf, -np.inf, np.nan, 0.0, -0.0]]).astype(DTYPES[source].numpy)
    wide = torch.from_numpy(block.astype(np.float32 if source != "float64" else np.float64))
    if source == "float64":  # torch goes by way of float32, and rounds twice
        block = block.astype(np.float32).astype(np.float64)
    theirs = wide.to(getattr(torch, name)).view(torch.uint8).numpy()
    ours = cast_block(block, DTYPES[name], saturate=name == "float8_e4m3fn")
    nan = np.isnan(ours.astype(np.float32))
    assert (theirs[~nan] == ours.view("u1")[~nan]).all()
    assert np.isnan(theirs[nan].view(DTYPES[name].numpy).astype(np.float32)).all()


@pytest.mark.parametrize("name", [*NARROW, "float32"])
def test_saturation_clips_what_is_beyond_and_nothing_else(name: str) -> None:
    largest = float(ml_dtypes.finfo(DTYPES[name].numpy).max)
    block = np.array([largest, largest * 1.001, 1e300, np.inf, -np.inf, -1e300, np.nan, 0.5])
    found = cast_block(block, DTYPES[name], saturate=True).astype(np.float64)
    assert found[:4].tolist() == [largest] * 4 and found[4:6].tolist() == [-largest] * 2
    assert np.isnan(found[6]) and found[7] == 0.5
    plain = cast_block(block, DTYPES[name]).astype(np.float64)
    expected = overflow(name) if name != "float32" else float("inf")
    assert np.isinf(plain[2]) == np.isinf(expected) and not np.isfinite(plain[2])


def test_only_floating_tensors_are_cast_and_only_when_pulled() -> None:
    arrays = {
        "w": np.float32([[1.5, -0.0]]),
        "keep.norm": np.float32([2]),
        "i": np.int64([3]),
        "flag": np.array([True]),
        "c": np.complex64([1]),
        "done": np.ones(2, ml_dtypes.bfloat16),
        "empty": np.zeros((0, 3)),
        "scalar": np.float64(0.1),
    }
    before = TensorMap.from_arrays(arrays, {"k": "v"}, {"tie": "w"})
    after = cast(DTYPES["bfloat16"], ["keep.*"])(before)
    assert {name: t.dtype.name for name, t in after.items()} == {
        "w": "bfloat16", "keep.norm": "float32", "i": "int64", "flag": "bool", "c": "complex64", "done": "bfloat16",
        "empty": "bfloat16", "scalar": "bfloat16",
    }  # fmt: skip
    assert after["done"] is before["done"] and after["i"] is before["i"]
    assert after.metadata == {"k": "v"} and after.aliases == {"tie": "w"}
    assert same_bits(after["w"].read(), arrays["w"].astype(ml_dtypes.bfloat16))
    assert after["empty"].read().shape == (0, 3) and after["scalar"].read().shape == ()
    with pytest.raises(TensorNotFoundError):
        cast(DTYPES["float16"], ["none*"])(before)


@pytest.mark.parametrize("name", ["int8", "bool", "complex64", "float4_e2m1fn", "float6_e2m3fn", "float8_e8m0fnu"])
def test_what_is_no_target_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=f"cannot cast to {name}; expected one of float64"):
        cast(DTYPES[name])

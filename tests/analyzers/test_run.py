"""The fold: what every statistic must hold to, whatever cuts, threads, processes and readers it meets."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import weighttools as wt
from tests.analyzers import oracles
from tests.strategies import arrays, random_array, shapes
from tests.thorough import first
from weighttools.analyzers import extremes, histogram, moments, quantiles, shape, sparsity, zeros
from weighttools.analyzers.run import Block, FoldOptions, Statistic, fold, merged
from weighttools.core.dtypes import DTYPES, from_numpy
from weighttools.core.readers import Elementwise, Held, Joined, Raw, Whole
from weighttools.core.scratch import Scratch
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.io.source import Bytes

Array = np.ndarray[Any, Any]

KEY = quantiles.Key("float32", 32)
STATISTICS: dict[str, Statistic] = {
    "moments": moments.of,
    "extremes": extremes.of,
    "zeros": zeros.of,
    "structure": sparsity.structure,
    "powers": shape.powers,
    "channels": shape.channels,
    "bins": histogram.Bins(-1.0, 1.0, 9),
    "digits": quantiles.Digits(KEY, 16),
}
NARROW: dict[str, Statistic] = {"patterns": histogram.patterns}
SUMS = {"mean", "std", "l1", "l2", "rms", "skewness", "kurtosis"}
"""Figures that rounding touches; all others must be the same."""

WIDE = [d.name for d in DTYPES.values() if d.kind != "complex"]


def held(array: Array) -> Tensor:
    return Tensor(Spec(from_numpy(array.dtype), array.shape), Held(array))


def of_run(statistic: Statistic, array: Array, start: int, stop: int) -> Any:
    """The state of a run of elements, as one block."""
    spec = Spec(from_numpy(array.dtype), array.shape)
    with np.errstate(all="ignore"):
        return statistic(Block(array.reshape(-1)[start:stop], start, spec, FoldOptions(), Scratch()))


def figures(state: Any, spec: Spec) -> dict[str, Any]:
    if isinstance(state, quantiles.DigitCounts):
        return {str(prefix): n.tolist() for prefix, n in state.counts.items()}
    return state.finish(spec)  # type: ignore[no-any-return]


def assert_alike(found: dict[str, Any], expected: dict[str, Any], array: Array) -> None:
    """Exactly equal, but for the last digits of sums."""
    assert found.keys() == expected.keys()
    span = float(np.abs(oracles.scaled(array).values).max(initial=0.0))
    alike = oracles.shape_figures(array) is None or not span
    for key, value in expected.items():
        if key in ("skewness", "kurtosis"):
            assert alike or found[key] == pytest.approx(value, rel=1e-7, abs=1e-7), key
        elif key in SUMS and isinstance(value, float) and math.isfinite(value):
            assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-9 * (expected.get("rms") or 0.0)), key
        else:
            assert found[key] == value, key


@given(
    arrays(WIDE, shapes(min_dims=1, max_dims=3, max_side=12, zero=False)),
    st.lists(st.floats(0, 1), max_size=4),
    st.sampled_from([*STATISTICS, *NARROW]),
    st.randoms(use_true_random=False),
)
def test_merge_law(array: Array, cuts: list[float], name: str, random: Any) -> None:
    """Parts merged, in order and grouped in any way, are the whole; and every state pickles on the way."""
    statistic = {**STATISTICS, **NARROW}[name]
    if name in NARROW and array.dtype.itemsize > 2:
        return
    unit = 8 if name == "structure" else 1  # groups of a pattern are not cut
    ends = sorted({0, array.size, *(int(c * array.size) // unit * unit for c in cuts)})
    parts = [of_run(statistic, array, a, b) for a, b in itertools.pairwise(ends)]
    while len(parts) > 1:  # any neighbours first
        at = random.randrange(len(parts) - 1)
        left, right = pickle.loads(pickle.dumps(parts[at])), pickle.loads(pickle.dumps(parts[at + 1]))
        parts[at : at + 2] = [left.merge(right)]
    spec = Spec(from_numpy(array.dtype), array.shape)
    assert_alike(figures(parts[0], spec), figures(of_run(statistic, array, 0, array.size), spec), array)


@given(
    arrays(WIDE, shapes(min_dims=1, max_dims=3, max_side=12)),
    st.sampled_from([1, 7, 64, 1000]),
    st.sampled_from([64, 256, 1000]),
)
def test_any_block_size_gives_the_same(array: Array, block: int, piece: int) -> None:
    tensor = held(array)
    whole = next(fold([tensor], list(STATISTICS.values())))
    cut = next(fold([tensor], list(STATISTICS.values()), FoldOptions(block_elements=block, piece_elements=piece)))
    for found, expected in zip(cut, whole, strict=True):
        assert_alike(figures(found, tensor.spec), figures(expected, tensor.spec), array)


SIZES = ((0,), (), (1500, 1000), (3,), (5, 300_000), (0, 4), (2_000_003,), (17,))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of tensors small and large, of several dtypes."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.safetensors"
    names = ("float32", "float16", "float64", "int8", "int64", "bool", "float32", "uint16")
    random = {
        f"t{i}": random_array(DTYPES[name], size, i) for i, (name, size) in enumerate(zip(names, SIZES, strict=True))
    }
    save_file({**random, "normal": np.random.default_rng(0).standard_normal((1200, 1000)).astype(np.float32)}, path)
    return path


OPTIONS: dict[str, Any] = {"quantiles": [0.1, 0.5], "hist": 5, "sparsity": True, "kurtosis": True, "outliers": True}


@pytest.fixture(scope="module")
def alone(mixed: Path) -> dict[str, Any]:
    return wt.stats(mixed, threads=1, entropy=True, **OPTIONS)


@pytest.mark.parametrize("threads", first([5, 2]))
@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_threads_give_the_same_bits(mixed: Path, threads: int, kernel: str) -> None:
    one = wt.stats(mixed, threads=1, kernel=kernel, entropy=True, **OPTIONS)
    assert wt.stats(mixed, threads=threads, kernel=kernel, entropy=True, **OPTIONS) == one


@pytest.mark.parametrize(
    "pool",
    [partial(ThreadPoolExecutor, 3), partial(ProcessPoolExecutor, 2, mp_context=get_context("spawn"))],
    ids=["threads", "processes"],
)
def test_executors_give_the_same_bits(mixed: Path, alone: dict[str, Any], pool: Callable[[], Executor]) -> None:
    with pool() as executor:
        assert wt.stats(mixed, executor=executor, entropy=True, **OPTIONS) == alone


def test_progress_tells_every_byte_that_was_planned(mixed: Path) -> None:
    told: list[int] = []
    record = wt.stats(mixed, progress=told.append)
    assert sum(told) == record["read_bytes"] == wt.open(mixed).totals()[1]
    told.clear()
    planned = wt.stats(mixed, quantiles=[0.1], hist=3, dry_run=True)
    assert "tensors" not in planned
    wt.stats(mixed, quantiles=[0.1], hist=3, progress=told.append)
    assert 0.8 * planned["read_bytes"] < sum(told) <= planned["read_bytes"]


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"quantiles": [0.1, 0.9], "hist": 9}, {"float32": 2, "bfloat16": 1, "int8": 1}),
        ({"hist": 9, "entropy": True}, {"float32": 2, "float64": 2, "bfloat16": 1}),
        ({"quantiles": [0.5]}, {"float64": 4, "float32": 4, "bfloat16": 1}),
        ({"entropy": True, "kurtosis": True}, {"float64": 1, "float32": 1}),
    ],
)
def test_no_more_passes_than_needed(options: dict[str, Any], passes: dict[str, int]) -> None:
    """Wide dtypes: all quantiles, the histogram and the total share them; dtypes of up to two bytes: one is all."""
    rng = np.random.default_rng(0)
    arrays = {
        f"{name}.{i}": rng.standard_normal(n).astype(getattr(ml_dtypes, name, name))
        for name in passes
        for i, n in enumerate((100, 3000))
    }
    tensor_map = wt.TensorMap.from_arrays(arrays)
    for by in ("tensor", "dtype"):
        told: list[int] = []
        record = wt.stats(tensor_map, by=by, progress=told.append, **options)
        assert sum(told) == sum(array.nbytes * passes[name.split(".")[0]] for name, array in arrays.items())
        assert sum(told) <= record["read_bytes"]
        whole = np.concatenate([array.astype(np.float64) for array in arrays.values()])
        for p, value in record["total"].get("quantiles", {}).items():
            assert value == np.quantile(whole, float(p))
        if "hist" in options:
            assert record["total"]["hist"]["counts"] == np.histogram(whole, 9)[0].tolist()


@dataclass(frozen=True)
class Quantised:
    """A reader as quantised formats have: blocks of 32 elements, a scale for each; nothing smaller can be read."""

    levels: Array
    scales: Array

    @property
    def granularity(self) -> int:
        return 32

    def __call__(self, start: int, stop: int) -> Array:
        assert start % 32 == 0
        scale = np.repeat(self.scales, 32)[start:stop]
        values: Array = self.levels[start:stop].astype(np.float32) * scale
        return values


def doubled(block: Array) -> Array:
    return block * 2


def test_every_reader_is_read_by_its_granularity() -> None:
    rng = np.random.default_rng(2)
    n = 32 * 20_011
    levels, scales = rng.integers(-8, 8, n).astype(np.int8), rng.random(n // 32).astype(np.float32)
    quantised = Quantised(levels, scales)
    values = levels.astype(np.float32) * np.repeat(scales, 32)
    spec = Spec(DTYPES["float32"], (n,), "q4")
    readers = {
        "quantised": Tensor(spec, quantised),
        "whole": Tensor(spec, Whole(lambda: values, n)),
        "joined": Tensor(spec, Joined((Held(values[:1000]), Held(values[1000:])), (1000, n))),
        "elementwise": Tensor(spec, Elementwise(Held(values / 2), doubled)),
        "transposed": Tensor(Spec(DTYPES["float32"], (n,)), Held(np.stack([values, values])[0])),
    }
    for name, tensor in readers.items():
        row = wt.stats(wt.TensorMap({"x": tensor}), quantiles=[0.5])["tensors"][0]
        oracles.check_moments(row, values)
        assert row["n_zero"] == (values == 0).sum(), name
        assert row["quantiles"]["0.5"] == np.quantile(values.astype(np.float64), 0.5), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "float4_e2m1fn", "float6_e2m3fn", "bool"])
def test_raw_reads_into_a_given_buffer(dtype: str) -> None:
    from weighttools.core.packing import pack
    from weighttools.core.spec import Span

    kind = DTYPES[dtype]
    array = random_array(kind, (64,), 4)
    data = pack(array.view("u1"), kind.bits) if kind.bits < 8 else array.view("u1")
    reader = Raw(Span(Bytes(b"junk!" + data.tobytes()), 5, data.size), kind)
    buffer = np.full(1000, 255, np.uint8)
    for start, stop in ((0, 64), (8, 24), (60, 64), (4, 4)):
        found = reader.read_into(start, stop, buffer)
        assert found.tobytes() == array[start:stop].tobytes() == reader(start, stop).tobytes()
        assert kind.bits < 8 or not found.size or np.shares_memory(found, buffer)


def test_big_endian_elements_are_turned_over() -> None:
    from weighttools.core.spec import Span

    array = np.array([1.5, -2.0, np.nan], np.float32)
    data = array.astype(">f4").tobytes()
    tensor = Tensor(Spec(DTYPES["float32"], (3,)), Raw(Span(Bytes(data), 0, 12), DTYPES["float32"], ">"))
    row = wt.stats(wt.TensorMap({"x": tensor}))["tensors"][0]
    assert (row["min"], row["max"], row["first_nan"]) == (-2.0, 1.5, [2])


def test_values_in_memory_are_left_as_they_are() -> None:
    array = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    array[3] = np.nan
    before = array.tobytes()
    wt.stats(wt.TensorMap.from_arrays({"x": array}), kurtosis=True, outliers=True, quantiles=[0.5], sparsity=True)
    assert array.tobytes() == before


def test_merged_keeps_order() -> None:
    parts = [[extremes.Extremes(first_nan=5)], [extremes.Extremes(first_nan=9)], [extremes.Extremes()]]
    assert merged(parts) == [extremes.Extremes(first_nan=5)]


@pytest.mark.parametrize("block", [1, 7, 8, 100])
def test_groups_of_a_pattern_are_never_cut(block: int) -> None:
    rng = np.random.default_rng(0)
    array = np.where(rng.random((30, 40)) < 0.5, 0, 1.0)
    recipe = FoldOptions(block_elements=block, piece_elements=3 * block)
    [state] = next(fold([held(array)], [sparsity.structure], recipe))
    found = state.finish(Spec(DTYPES["float64"], array.shape))
    assert found["nm_2_4"] == ((array.reshape(-1, 4) != 0).sum(axis=1) <= 2).mean()
    assert found["nm_4_8"] == ((array.reshape(-1, 8) != 0).sum(axis=1) <= 4).mean()

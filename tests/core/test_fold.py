"""The fold over several maps at once: formats, dtypes and granularities side by side, against NumPy."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants
from safetensors.numpy import save_file

import weighttools as wt
from tests.sources import CountingSource
from weighttools.core.dtypes import DTYPES
from weighttools.core.fold import Blocks, BlockSizes, Fold, fold_blocks, side_by_side
from weighttools.core.readers import Held, Raw
from weighttools.core.spec import Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.errors import SpecError

Array = np.ndarray[Any, Any]

SHAPES = {"big": (1500, 1024), "small": (3, 32), "none": (0, 4), "line": (4096,)}
SMALL = BlockSizes(block_elements=1000, piece_elements=100_000)


def largest_difference(blocks: Blocks) -> float:
    """The state of a toy comparison."""
    first, *others = (values.astype(np.float64) for values in blocks.values)
    return max((float(np.abs(first - other).max(initial=0.0)) for other in others), default=0.0)


def total(blocks: Blocks) -> float:
    """A sum, which tells in which order states were merged."""
    return float(sum(values.astype(np.float64).sum() for values in blocks.values))


def add(a: float, b: float) -> float:
    return a + b


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[wt.TensorMap], dict[str, list[Array]]]:
    """The same weights in three formats, as float32, float16 and quantised, and what NumPy and gguf say they are."""
    home = tmp_path_factory.mktemp("maps")
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    save_file(arrays, home / "a.safetensors")
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    np.savez_compressed(home / "b.npz", **halves)
    writer = GGUFWriter(home / "c.gguf", "llama")
    for name, array in arrays.items():
        if array.size:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    decoded = {t.name: quants.dequantize(t.data, t.tensor_type) for t in GGUFReader(home / "c.gguf").tensors}
    expected = {name: [arrays[name], halves[name], decoded[name]] for name in decoded}
    return [wt.open(home / name) for name in ("a.safetensors", "b.npz", "c.gguf")], expected


@pytest.mark.parametrize("sizes", [None, SMALL, BlockSizes(7, 20)], ids=["usual", "small", "odd"])
def test_maps_of_several_formats_are_compared_block_by_block(
    maps: tuple[list[wt.TensorMap], dict[str, list[Array]]], sizes: BlockSizes | None
) -> None:
    opened, expected = maps
    names = [name for name in expected if name != "big"] if sizes and sizes.block_elements == 7 else list(expected)
    tensors = side_by_side(opened, ([name] * len(opened) for name in names))
    found = fold_blocks((Fold(each, largest_difference) for each in tensors), max, sizes)
    for name, difference in zip(names, found, strict=True):
        first, *others = (array.astype(np.float64).reshape(-1) for array in expected[name])
        assert difference == max(np.abs(first - other).max() for other in others) > 0


def test_a_map_beside_itself_differs_in_nothing_and_nothing_is_an_empty_block(
    maps: tuple[list[wt.TensorMap], dict[str, list[Array]]],
) -> None:
    first, second, _ = maps[0]
    tensors = side_by_side([first, second], [("none", "none")])
    assert list(fold_blocks([Fold(each, largest_difference) for each in tensors], max)) == [0.0]
    same = side_by_side([first, first], ((name, name) for name in first))
    assert set(fold_blocks([Fold(each, largest_difference) for each in same], max)) == {0.0}


@pytest.mark.parametrize(
    "pool",
    [partial(ThreadPoolExecutor, 3), partial(ProcessPoolExecutor, 2, mp_context=get_context("spawn"))],
    ids=["threads", "processes"],
)
def test_executors_give_the_same_bits(
    maps: tuple[list[wt.TensorMap], dict[str, list[Array]]], pool: Callable[[], Executor]
) -> None:
    opened, expected = maps
    folds = [Fold(each, total) for each in side_by_side(opened, ([name] * 3 for name in expected))]
    alone = list(fold_blocks(folds, add, SMALL))
    with pool() as executor:
        assert list(fold_blocks(folds, add, SMALL, executor)) == alone


@pytest.mark.parametrize("dtype", ["float32", "float4_e2m1fn"])
def test_each_byte_is_read_once_and_told(dtype: str) -> None:
    n, told = 1_000_000, list[int]()
    wide = np.zeros(n, np.float32)
    data = bytes(DTYPES[dtype].nbytes(n))
    source = CountingSource(data)
    packed = Tensor(Spec(DTYPES[dtype], (n,)), Raw(Span(source, 0, len(data)), DTYPES[dtype]))
    beside = Tensor(Spec(DTYPES["float32"], (n,)), Held(wide))
    [difference] = fold_blocks([Fold((packed, beside), largest_difference)], max, SMALL, progress=told.append)
    assert difference == 0
    places = sorted(source.reads)
    assert places[0][0] == 0
    assert all(at + length == following for (at, length), (following, _) in pairwise(places))
    assert sum(length for _, length in places) == len(data)
    assert sum(told) == len(data) + wide.nbytes


@dataclass(frozen=True)
class Chunked:
    """Elements of which none can be read without its chunk, as in a compressed file."""

    values: Array
    granularity: int

    def __call__(self, start: int, stop: int) -> Array:
        assert start % self.granularity == 0
        return self.values[start:stop].copy()


def test_granularities_with_no_small_multiple_keep_blocks_small() -> None:
    """Chunks of 37,000 elements beside such of 4,099: both at once would be 151 million elements."""
    n = 1_500_000
    values = np.arange(n, dtype=np.float64)
    tensors = tuple(Tensor(Spec(DTYPES["float64"], (n,)), Chunked(values, size)) for size in (37_000, 4_099))
    lengths: list[int] = []

    def seen(blocks: Blocks) -> float:
        lengths.append(len(blocks.values[0]))
        return largest_difference(blocks)

    [difference] = fold_blocks([Fold(tensors, seen)], max)
    assert difference == 0
    assert sum(lengths) == n
    assert max(lengths) <= 1 << 18


def test_memory_is_a_block_of_each(tmp_path: Path) -> None:
    peaks = []
    for n in (2_000_000, 8_000_000):
        save_file({"x": np.zeros(n, np.float32)}, tmp_path / f"{n}.safetensors")
        np.savez(tmp_path / f"{n}.npz", x=np.zeros(n, np.float16))
        opened = [wt.open(tmp_path / f"{n}.safetensors"), wt.open(tmp_path / f"{n}.npz")]
        tracemalloc.start()
        folds = [Fold(each, largest_difference) for each in side_by_side(opened, [("x", "x")])]
        assert list(fold_blocks(folds, max)) == [0.0]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 14 << 20  # blocks of 1 and 0.5 MiB, and float64 temporaries of 2 MiB each
    assert peaks[1] < peaks[0] + (1 << 20)


def test_what_does_not_lie_side_by_side_is_refused() -> None:
    one, other = (wt.TensorMap.from_arrays({"x": np.zeros(shape, np.float32)}) for shape in ((2, 3), (3, 2)))
    with pytest.raises(SpecError, match="x"):
        list(side_by_side([one, other], [("x", "x")]))
    short = wt.TensorMap.from_arrays({"x": np.zeros(5, np.float32)})
    with pytest.raises(SpecError, match="side by side"):
        list(fold_blocks([Fold((one["x"], short["x"]), largest_difference)], max))

"""Every readable format to every writable one and back: each dtype that both can hold, bit for bit."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.strategies import assert_same, random_array
from tests.thorough import amount, at_most
from weighttools.core.dtypes import DTYPES
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, UnsupportedError
from weighttools.formats import load

FIXTURES = Path(__file__).parents[2] / "fixtures"
TARGETS = {
    "safetensors": "model.safetensors",
    "npz": "model.npz",
    "npy": "model.npy",
    "pytorch": "model.pt",
    "hdf5": "model.h5",
    "gguf": "model.gguf",
    "directory": "model/",
}
TIES = ("safetensors", "npz", "pytorch", "hdf5", "directory")
TEXT = ("safetensors", "npz", "hdf5", "directory")
SHAPES = ((), (0,), (1,), (3,), (2, 0, 3), (2, 4), (3, 1, 2), (2, 3, 2, 2))
SOURCES = sorted(
    path.relative_to(FIXTURES).as_posix()
    for pattern in (
        "flax/*.msgpack",
        "onnx/*.onnx",
        "keras/*.keras",
        "hdf5/*.h5",
        "gguf/values.gguf",
        "pytorch/state.pt",
    )
    for path in FIXTURES.glob(pattern)
)


@cache
def holds(format_name: str, dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether a format can hold such a tensor, asked of the format itself."""
    name = "safetensors" if format_name == "directory" else format_name
    try:
        load(name).losses(TensorMap.from_arrays({"t": random_array(DTYPES[dtype], shape, 0)}))
    except (SpecError, UnsupportedError):
        return False
    return True


def common(src: str, dst: str, seed: int) -> dict[str, object]:
    """Arrays of random bits: one for each dtype and shape that both formats hold (just one for NPY)."""
    kinds = [
        (dtype, shape)
        for dtype, shape in itertools.product(DTYPES, SHAPES)
        if holds(src, dtype, shape) and holds(dst, dtype, shape)
    ]
    assert kinds, f"{src} and {dst} have nothing in common"
    if "npy" in (src, dst):
        kinds = [kinds[seed % len(kinds)]]
    return {f"block.{i}.weight": random_array(DTYPES[d], shape, seed + i) for i, (d, shape) in enumerate(kinds)}


@pytest.mark.parametrize(("src", "dst"), list(itertools.product(TARGETS, TARGETS)))
@at_most(amount(1, 2))
@given(seed=st.integers(0, 2**31))
def test_there_and_back(tmp_path_factory: pytest.TempPathFactory, src: str, dst: str, seed: int) -> None:
    folder = tmp_path_factory.mktemp("matrix")
    arrays = common(src, dst, seed)
    first, second, third = (folder / f"{i}" / TARGETS[name] for i, name in enumerate((src, dst, src)))
    for path in (first, second, third):
        path.parent.mkdir()
    wt.save(f"{first}/" if src == "directory" else first, TensorMap.from_arrays(arrays))
    wt.convert(first, f"{second}/" if dst == "directory" else second)
    wt.convert(second, f"{third}/" if src == "directory" else third)
    renamed = {"model": next(iter(arrays.values()))} if "npy" in (src, dst) else arrays
    for path in (second, third):
        found = wt.open(path).read()
        assert_same(found if len(renamed) > 1 else {"model": next(iter(found.values()))}, renamed)


@pytest.mark.parametrize(("src", "dst"), list(itertools.permutations(TIES, 2)))
def test_ties_and_metadata_survive(tmp_path: Path, src: str, dst: str) -> None:
    arrays = {"embed.weight": random_array(DTYPES["bfloat16"], (3, 2), 1)}
    tied = TensorMap.from_arrays(arrays, {"format": "pt", "note": "ключ"}, {"head.weight": "embed.weight"})
    first, second = (
        tmp_path / f"a{TARGETS[src].removeprefix('model')}",
        tmp_path / f"b{TARGETS[dst].removeprefix('model')}",
    )
    wt.save(f"{first}/" if src == "directory" else first, tied)
    wt.convert(first, f"{second}/" if dst == "directory" else second)
    found = wt.open(second)
    names = {*found, *found.aliases}
    assert names == {"embed.weight", "head.weight"} and len(found) == 1
    assert_same(found.read(), {next(iter(found)): arrays["embed.weight"]})
    if src in TEXT and dst in TEXT:
        assert dict(found.metadata) == {"format": "pt", "note": "ключ"}


@pytest.mark.parametrize("dst", [name for name in TARGETS if name not in ("npy", "gguf")])
@pytest.mark.parametrize("source", SOURCES)
def test_fixtures_of_the_reference_libraries_arrive(tmp_path: Path, source: str, dst: str) -> None:
    tensor_map = wt.open(FIXTURES / source)
    name = "safetensors" if dst == "directory" else dst
    kept = {n: t for n, t in tensor_map.items() if holds(name, t.dtype.name, t.shape)}
    assert kept
    target = tmp_path / TARGETS[dst]
    wt.save(
        f"{target}/" if dst == "directory" else target, tensor_map.replace(tensors=kept, aliases={}), dequantize=True
    )
    assert_same(wt.open(target).read(aliases=True), {n: t.read() for n, t in kept.items()})

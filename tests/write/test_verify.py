"""`convert --verify`: another library reads back what was written, before it gets its name."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import weighttools as wt
from tests.conftest import ROOT
from tests.formats.test_matrix import SHAPES, TARGETS, holds
from tests.strategies import random_array
from weighttools.core.dtypes import DTYPES
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, SpecError
from weighttools.io.sink import FileSink
from weighttools.write.verify import first_difference

READERS = {
    "safetensors": "safetensors ",
    "npz": "numpy ",
    "npy": "numpy ",
    "pytorch": "torch ",
    "hdf5": "h5py ",
    "gguf": "gguf ",
    "directory": "safetensors ",
}


def of(format_name: str, folder: Path) -> Path:
    return folder / TARGETS[format_name].rstrip("/")


def everything(format_name: str) -> dict[str, Any]:
    """Random bits of every dtype and shape that a format holds."""
    kinds = [(dtype, shape) for dtype in DTYPES for shape in SHAPES if holds(format_name, dtype, shape)]
    return {f"block.{i}.weight": random_array(DTYPES[dtype], shape, i) for i, (dtype, shape) in enumerate(kinds)}


def readers(record: dict[str, Any]) -> list[tuple[str, int, bool]]:
    return [(row["reader"].split()[0], row["n_tensors"], row["why"] is not None) for row in record["verified_with"]]


@pytest.mark.parametrize("format_name", TARGETS)
def test_every_dtype_and_shape_is_read_back_by_the_reference(format_name: str, tmp_path: Path) -> None:
    arrays = everything(format_name)
    if format_name == "gguf":  # gguf.GGUFReader ends in an IndexError on it
        arrays = {name: array for name, array in arrays.items() if array.shape or array.dtype.name != "bfloat16"}
    maps = [{name: arrays[name]} for name in list(arrays)[::5]] if format_name == "npy" else [arrays]
    for i, one in enumerate(maps):
        (tmp_path / f"{i}").mkdir()
        target = of(format_name, tmp_path / f"{i}")
        record = wt.convert(TensorMap.from_arrays(one, {"format": "pt"}), target, verify=True)
        assert record["n_verified"] == len(one)
        assert readers(record) == [(READERS[format_name].strip(), len(one), False)]
        assert sorted(wt.open(target)) == sorted(one) if format_name != "npy" else True


@pytest.mark.parametrize("name", ["a/b", "a.npy", "ü", "x" * 300, "a b", "__metadata__x", "data.pkl"])
@pytest.mark.parametrize("format_name", ["npz", "hdf5", "pytorch", "safetensors", "gguf"])
def test_odd_names(format_name: str, name: str, tmp_path: Path) -> None:
    arrays = {"a": np.ones(3, np.float32), name: np.arange(4, dtype=np.float32)}
    assert wt.convert(TensorMap.from_arrays(arrays), of(format_name, tmp_path), verify=True)["n_verified"] == 2


def test_ties_are_compared_once(tmp_path: Path) -> None:
    tied = TensorMap.from_arrays({"a": np.ones((2, 3), np.float32)}, {}).replace(aliases={"b": "a"})
    for format_name in ("safetensors", "npz", "hdf5", "pytorch", "directory"):
        assert wt.convert(tied, of(format_name, tmp_path), verify=True)["n_verified"] == 1


def test_compressed_hdf5(tmp_path: Path) -> None:
    arrays = {"w": np.arange(40_000, dtype=np.float32).reshape(200, 200), "b": np.ones(3)}
    record = wt.convert(TensorMap.from_arrays(arrays), tmp_path / "m.h5", compression="gzip", verify=True)
    assert readers(record) == [("h5py", 2, False)]


def test_shards(tmp_path: Path) -> None:
    arrays = {f"w{i}": np.full((10, 10), i, np.float32) for i in range(5)}
    record = wt.convert(TensorMap.from_arrays(arrays), tmp_path / "m", max_shard_size=900, verify=True)
    assert len(record["files"]) == 3 and readers(record) == [("safetensors", 5, False)]


@pytest.mark.parametrize("target", ["m.safetensors", "m"])
def test_our_own_encoding_is_read_back_by_us_and_said(tmp_path: Path, target: str) -> None:
    arrays = {"zeros": np.zeros((300, 300), np.float32), "full": np.ones(7, np.float32)}
    arrays["zeros"][3, 4] = np.float32(-0.0)
    record = wt.convert(TensorMap.from_arrays(arrays), tmp_path / target, store="bitmask", verify=True)
    assert sorted(readers(record)) == [("safetensors", 1, False), ("weighttools", 1, True)]
    assert record["n_verified"] == 2 and any("bitmask" in (row["why"] or "") for row in record["verified_with"])


GGUF = sorted(path for path in (ROOT / "fixtures" / "gguf").glob("*.gguf"))


@pytest.mark.parametrize("path", GGUF, ids=lambda path: path.name)
def test_quantised_tensors_by_their_stored_bytes(path: Path, tmp_path: Path) -> None:
    opened = wt.open(path)
    record = wt.convert(path, tmp_path / "m.gguf", verify=True)
    known = {kind.name.lower() for kind in gguf.GGMLQuantizationType}
    by_them = all(spec.encoding in known or not spec.is_quantized for spec in opened.specs())
    assert record["n_verified"] == len(opened)
    assert readers(record) == [("gguf" if by_them else "weighttools", len(opened), not by_them)]


def test_quantising(tmp_path: Path) -> None:
    arrays = {
        "a.weight": np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32),
        "b": np.ones(3, np.float32),
    }
    record = wt.convert(TensorMap.from_arrays(arrays), tmp_path / "m.gguf", quantize="q8_0", verify=True)
    assert record["n_quantized"] == 1 and readers(record) == [("gguf", 2, False)]


@pytest.mark.parametrize(("format_name", "package"), [("pytorch", "torch"), ("gguf", "gguf")])
def test_without_the_package_we_read_it_ourselves_and_say_so(
    format_name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"weighttools.formats.{package}.readback.find_spec", lambda name: None)
    record = wt.convert(TensorMap.from_arrays({"a": np.ones(3, np.float32)}), of(format_name, tmp_path), verify=True)
    (row,) = record["verified_with"]
    assert (row["reader"], row["n_tensors"]) == ("weighttools", 1) and "not installed" in row["why"]


def test_an_encoding_that_the_package_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "GGMLQuantizationType", [gguf.GGMLQuantizationType.F16])
    record = wt.convert(TensorMap.from_arrays({"a": np.ones(3, np.float32)}), tmp_path / "m.gguf", verify=True)
    (row,) = record["verified_with"]
    assert row["reader"] == "weighttools" and "does not read float32" in row["why"]


def test_what_the_package_cannot_read_is_left_to_us(tmp_path: Path) -> None:
    scalar = random_array(DTYPES["bfloat16"], (), 0)
    record = wt.convert(TensorMap.from_arrays({"a": scalar}), tmp_path / "m.gguf", verify=True)
    (row,) = record["verified_with"]
    assert row["reader"] == "weighttools" and "does not read bfloat16 without axes" in row["why"]
    with pytest.raises(IndexError):
        gguf.GGUFReader(tmp_path / "m.gguf")


# -- what is not as it should be


@pytest.fixture
def flipped(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Make one bit of what is written come out wrong, where these bytes are found."""

    def flip(content: bytes) -> None:
        finish = FileSink.finish

        def finished(sink: FileSink) -> None:
            finish(sink)
            path = Path(sink.path or sink.name)
            at = path.read_bytes().find(content)
            if at >= 0:
                with path.open("r+b") as file:
                    file.seek(at + 5)
                    file.write(bytes([content[5] ^ 1]))

        monkeypatch.setattr(FileSink, "finish", finished)

    return flip


ARRAYS = {
    "good": np.linspace(0, 1, 50, dtype=np.float32),
    "bad": np.linspace(2, 3, 60, dtype=np.float32).reshape(6, 10),
}


@pytest.mark.parametrize("format_name", [name for name in TARGETS if name != "npy"])
@pytest.mark.parametrize("there", [True, False])
def test_a_wrong_bit_is_an_error_and_nothing_gets_the_name(
    format_name: str, there: bool, tmp_path: Path, flipped: Callable[[bytes], None], inside: Any
) -> None:
    save_file(ARRAYS, tmp_path / "src.safetensors")
    target, old = of(format_name, tmp_path), {"old": np.ones(2, np.float32)}
    if there:
        wt.convert(TensorMap.from_arrays(old), target)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    flipped(ARRAYS["bad"].tobytes())
    done = inside("convert", tmp_path / "src.safetensors", target, "--verify", "--force")
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    assert "verification failed" in done.err and "bad" in done.err and str(target) in done.err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert target.exists() == there


def test_a_wrong_bit_in_our_own_encoding(tmp_path: Path, flipped: Callable[[bytes], None]) -> None:
    array = np.zeros(3000, np.float32)
    array[:20] = np.linspace(2, 3, 20)
    flipped(array[:20].tobytes())
    with pytest.raises(CorruptFileError, match="'w', as weighttools reads it back, differs from its byte 5 on"):
        wt.convert(TensorMap.from_arrays({"w": array}), tmp_path / "m.safetensors", store="bitmask", verify=True)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_bit_of_quantised_blocks(tmp_path: Path, flipped: Callable[[bytes], None]) -> None:
    path = ROOT / "fixtures" / "gguf" / "quantized.gguf"
    name, tensor = next((n, t) for n, t in wt.open(path).items() if t.spec.is_quantized and t.spec.encoding == "q8_0")
    assert tensor.stored is not None
    flipped(tensor.stored.source.read(tensor.stored.offset, tensor.stored.length))
    with pytest.raises(CorruptFileError, match="differs from its byte 5 on") as caught:
        wt.convert(path, tmp_path / "m.gguf", verify=True)
    assert repr(name) in str(caught.value) and list(tmp_path.iterdir()) == []


def test_a_change_of_layout_is_proven_before_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {"fc.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "fc.bias": np.ones(3, np.float32)}
    source = TensorMap.from_arrays(arrays)
    record = wt.convert(source, tmp_path / "good.npz", layout="keras", layout_from="torch", verify=True)
    assert record["n_verified"] == 2 and readers(record) == [("numpy", 2, False)]
    monkeypatch.setattr("weighttools.transforms.layout_verify._equal", lambda one, other: False)
    with pytest.raises(CorruptFileError, match="taken back differs"):
        wt.convert(source, tmp_path / "m.npz", layout="keras", layout_from="torch", verify=True)
    assert [path.name for path in tmp_path.iterdir()] == ["good.npz"]


def test_standard_output_cannot_be_read_back(tiny: Path) -> None:
    with pytest.raises(SpecError, match="verify reads what was written"):
        wt.convert(tiny, "-", verify=True)


def test_command(tiny: Path, tmp_path: Path, inside: Any) -> None:
    done = inside("convert", tiny, tmp_path / "m.npz", "--verify")
    assert done.code == 0, done.err
    line = f"verified: 3 tensors, read back by numpy {np.__version__}, bit for bit what was to be written\n"
    assert line in done.out
    record = json.loads(inside("convert", tiny, tmp_path / "m.h5", "--verify", "--json").out)
    assert record["n_verified"] == 3 and record["verified_with"][0]["reader"].startswith("h5py ")
    dry = json.loads(inside("convert", tiny, tmp_path / "n.npz", "--verify", "--json", "--dry-run").out)
    assert dry["n_verified"] == 0 and dry["verified_with"] == [] and not (tmp_path / "n.npz").exists()


def test_without_it_the_record_is_as_it_was(tiny: Path, tmp_path: Path) -> None:
    assert not {"n_verified", "verified_with"} & set(wt.convert(tiny, tmp_path / "m.npz"))


def test_what_a_transform_changed_is_computed_again_and_counted_once(make: Any, tmp_path: Path) -> None:
    path = make({"a.weight": np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)})
    pruned = wt.prune(path, sparsity=0.5)
    plain = wt.convert(pruned, tmp_path / "a.safetensors")
    proven = wt.convert(wt.prune(path, sparsity=0.5), tmp_path / "b.safetensors", verify=True)
    assert proven["transforms"] == plain["transforms"] and proven["n_verified"] == 1
    np.testing.assert_array_equal(*(load_file(tmp_path / f"{n}.safetensors")["a.weight"] for n in "ab"))


def test_a_deflated_source_is_read_twice(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", w=np.arange(5000, dtype=np.int32))
    assert wt.convert(tmp_path / "a.npz", tmp_path / "b.safetensors", verify=True)["n_verified"] == 1


@pytest.mark.parametrize("format_name", ["safetensors", "npy", "hdf5", "gguf"])
def test_memory_is_that_of_pieces(format_name: str, tmp_path: Path) -> None:
    size = 96 << 20
    with (tmp_path / "big.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (1024, size >> 12)}
        )
        os.truncate(file.fileno(), file.tell() + size)
    wt.convert(tmp_path / "big.npy", of(format_name, tmp_path), verify=True, force=True)  # imports
    tracemalloc.start()
    try:
        wt.convert(tmp_path / "big.npy", of(format_name, tmp_path), verify=True, force=True)
        assert tracemalloc.get_traced_memory()[1] < size // 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seed", range(20))
def test_runs_of_bytes_are_compared_however_they_are_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, int(rng.integers(1, 60)), np.uint8)

    def cut(array: Any) -> list[Any]:
        return np.split(array, sorted(rng.integers(0, array.size + 1, 4)))

    other = data.copy()
    at = int(rng.integers(0, data.size))
    other[at] ^= 1
    assert first_difference(cut(data), cut(data)) is None
    assert first_difference(cut(data), cut(other)) == at
    assert first_difference(cut(data), cut(data[:at])) == at

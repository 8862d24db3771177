"""safetensors against its official library."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import save_torch_state_dict
from hypothesis import given
from hypothesis import strategies as st
from safetensors import TensorSpec, deserialize, safe_open, serialize_file

import weighttools as wt
from tests import strategies
from tests.formats.conformance import Arrays, FormatConformance
from tests.formats.packed import pack_bits, unpack_bits
from tests.sources import CountingSource
from tests.strategies import ODD_NAMES, assert_same
from tests.work import bounded
from weighttools.core.dtypes import DTYPES
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.formats.safetensors import format as safetensors
from weighttools.formats.safetensors import header as safetensors_header
from weighttools.io.source import Bytes

CODES = {
    "BOOL": "bool",
    "F4": "float4_e2m1fn",
    "F6_E2M3": "float6_e2m3fn",
    "F6_E3M2": "float6_e3m2fn",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
WRITABLE = tuple(name for code, name in CODES.items() if not code.startswith("F6"))
"""What the official writer takes: it reads 6-bit floats, but has no name to write them by."""


def official_write(path: Path, arrays: Arrays, metadata: dict[str, str] | None = None) -> None:
    """Write arrays by the official library's own serializer."""
    specs, alive = {}, []
    for name, array in arrays.items():
        dtype, shape = array.dtype.name, list(array.shape)
        data = np.frombuffer(pack_bits(array, 4) if "float4" in dtype else array.tobytes(), np.uint8)
        if "float4" in dtype:
            dtype, shape = "float4_e2m1fn_x2", [*shape[:-1], shape[-1] // 2]
        alive.append(data)
        specs[name] = TensorSpec(dtype=dtype, shape=shape, data_ptr=data.ctypes.data, data_len=data.nbytes)
    serialize_file(specs, path, metadata)


def official_read(data: bytes) -> Arrays:
    """Read every tensor by the official library; it knows no meaning of packed bits, so these are unpacked here."""
    found = {}
    for name, tensor in deserialize(data):
        dtype, shape = DTYPES[CODES[tensor["dtype"]]], tuple(tensor["shape"])
        raw = np.frombuffer(bytes(tensor["data"]), np.uint8)
        if dtype.bits < 8:
            raw = unpack_bits(raw.tobytes(), dtype.bits, math.prod(shape))
        found[name] = raw.view(dtype.numpy).reshape(shape)
    return found


class TestSafetensors(FormatConformance):
    format_name, suffix = "safetensors", ".safetensors"
    dtypes = tuple(CODES.values())
    golden_dtypes = WRITABLE
    keeps_order = False
    header_without_numpy = True

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        official_write(path, arrays)

    def golden_holds(self, array: np.ndarray[Any, Any]) -> bool:
        return array.dtype.name != "float4_e2m1fn" or (array.ndim > 0 and array.shape[-1] % 2 == 0)

    def golden_read(self, path: Path) -> Arrays:
        return official_read(path.read_bytes())


def test_the_table_of_dtypes_is_the_official_one() -> None:
    assert {code: dtype.name for code, dtype in safetensors_header.NAMES.items()} == CODES


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}, {"ключ": 'tab\t "quote" \\ \x1f\x7f /\u2028'}])
def test_bytes_are_those_of_the_official_writer(tmp_path: Path, metadata: dict[str, str]) -> None:
    """With more than one metadata entry the official order is that of a hash table, so there is nothing to match."""
    suite = TestSafetensors()
    arrays = suite.examples()
    arrays |= {name: np.float32([1, 2]) for name in ODD_NAMES if name}
    official_write(tmp_path / "theirs.safetensors", arrays, metadata or None)
    ours = suite.write(TensorMap.from_arrays(arrays, metadata), tmp_path / "ours.safetensors")
    assert ours == (tmp_path / "theirs.safetensors").read_bytes()


def test_bytes_are_those_of_the_official_writer_for_drawn_maps(tmp_path: Path) -> None:
    suite = TestSafetensors()
    drawn = strategies.arrays(WRITABLE, strategies.shapes(), whole_bytes=True).filter(suite.golden_holds)

    @given(st.dictionaries(strategies.names().filter(lambda name: name != "__metadata__"), drawn, max_size=8))
    def check(arrays: Arrays) -> None:
        official_write(tmp_path / "theirs.safetensors", arrays)
        ours = suite.write(TensorMap.from_arrays(arrays), tmp_path / "ours.safetensors")
        assert ours == (tmp_path / "theirs.safetensors").read_bytes()

    check()


def test_torch_reads_ours(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    arrays = TestSafetensors().examples()
    TestSafetensors().write(TensorMap.from_arrays(arrays, {"format": "pt"}), path)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(arrays)
        for name, array in arrays.items():
            tensor = file.get_tensor(name)
            if "float4" in name:
                assert tensor.dtype is torch.float4_e2m1fn_x2
                assert tensor.view(torch.uint8).numpy().tobytes() == pack_bits(array, 4)
                continue
            assert str(tensor.dtype) == f"torch.{array.dtype.name}"
            assert tuple(tensor.shape) == array.shape
            assert tensor.reshape(-1).view(torch.uint8).numpy().tobytes() == array.tobytes() or array.size == 0


@pytest.mark.parametrize(
    ("tensor_map", "message"),
    [
        (TensorMap.from_arrays({"__metadata__": np.zeros(1)}), "cannot hold a tensor called '__metadata__'"),
        (TensorMap.from_arrays({"\ud800": np.zeros(1)}), "cannot hold a tensor called"),
        (TensorMap.from_arrays({"a": np.zeros(1, np.complex128)}), "has no dtype complex128 (tensor 'a')"),
        (TensorMap.from_arrays({"a": np.zeros(3, DTYPES["float4_e2m1fn"].numpy)}), "has 3 elements of 4 bits"),
        (TensorMap.from_arrays({"a": np.zeros(2, DTYPES["float6_e2m3fn"].numpy)}), "has 2 elements of 6 bits"),
        (TensorMap.from_arrays({}, {"k": "\udfff"}), "metadata entry 'k' is not valid Unicode"),
        (TensorMap.from_arrays({"a": np.zeros(1)}, {}, {"\udfff": "a"}), "is not valid Unicode"),
    ],
)
def test_what_cannot_be_written_is_refused_before_a_byte(tmp_path: Path, tensor_map: TensorMap, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        TestSafetensors().write(tensor_map, tmp_path / "x.safetensors")
    assert message in str(caught.value) and str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_header_beyond_the_limit_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = {"a": TensorMap.from_arrays({"a": np.zeros(1)})["a"].spec}
    n = len(safetensors.encode_header(specs, {})) - 8
    monkeypatch.setattr(safetensors, "MAX_HEADER", n)
    assert len(safetensors.encode_header(specs, {})) == n + 8
    monkeypatch.setattr(safetensors, "MAX_HEADER", n - 1)
    with pytest.raises(SpecError, match="the header would take"):
        safetensors.encode_header(specs, {})


def test_metadata_that_is_not_text_becomes_json_and_is_said(tmp_path: Path) -> None:
    tensor_map = TensorMap.from_arrays({"a": np.zeros(1)}, {"step": 3, "b": [1, None], "t": "x"})
    assert safetensors.losses(tensor_map) == ["metadata that is not text becomes JSON text: step, b"]
    TestSafetensors().write(tensor_map, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        assert file.metadata() == {"step": "3", "b": "[1, null]", "t": "x"}


def test_ties_are_recorded_as_huggingface_hub_records_them(tmp_path: Path) -> None:
    """save_torch_state_dict writes {dropped name: kept name} into the metadata."""
    shared = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    state = {"embed.weight": shared, "head.weight": shared, "other": torch.ones(2)}
    save_torch_state_dict(state, tmp_path)
    found = wt.open(tmp_path)
    assert sorted(found) == ["embed.weight", "other"]
    assert dict(found.aliases) == {"head.weight": "embed.weight"}
    assert dict(found.metadata) == {"format": "pt"}
    assert found["head.weight"].read().tobytes() == shared.view(torch.uint8).numpy().tobytes()
    ours = TestSafetensors().write(found, tmp_path / "ours.safetensors")
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "head.weight": "embed.weight"}
    assert len(ours) == (tmp_path / "model.safetensors").stat().st_size


def test_only_the_bytes_of_a_slice_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    official_write(path, {"a": np.arange(1000, dtype=np.float32).reshape(100, 10)})
    source = CountingSource(path.read_bytes())
    tensor = safetensors.read(source)["a"]
    source.reads.clear()
    np.testing.assert_array_equal(tensor[7], np.arange(70, 80, dtype=np.float32))
    assert tensor.stored is not None
    assert source.reads == [(tensor.stored.offset + 280, 40)]
    source.reads.clear()
    assert tensor[99, 9] == 999
    assert source.reads == [(tensor.stored.offset + 3996, 4)]


def test_memory_of_a_header_is_bounded_for_many_tensors() -> None:
    """100,000 zero-size tensors are legal: they open, with a few calls each."""
    record = '":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = "{" + ",".join(f'"t{i}{record}' for i in range(100_000)) + "}"
    data = len(text).to_bytes(8, "little") + text.encode()
    with bounded(20 * 100_000):
        assert len(safetensors.read(Bytes(data, "x"))) == 100_000


@pytest.mark.parametrize("name", ["model", "float4"])
def test_fixture_reads_as_the_official_library_reads_it(name: str) -> None:
    path = Path(__file__).parents[2] / "fixtures" / "safetensors" / "dtypes" / f"{name}.safetensors"
    found = wt.open(path)
    assert_same(found.read(), official_read(path.read_bytes()))
    if name == "float4":
        values = found["every.float4_e2m1fn"].read().reshape(-1).astype(np.float32)
        table = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]  # OCP Microscaling Formats 1.0, table 5
        np.testing.assert_array_equal(values, np.float32([*table, *[-v for v in table]]))


@given(st.lists(st.sampled_from(["first file", "second file", "memory"]), max_size=8))
def test_tensors_of_several_files_and_of_memory_are_written_in_any_mixture(
    tmp_path_factory: pytest.TempPathFactory, origins: list[str]
) -> None:
    """Neighbours in one file are copied as one span, others one by one, and those in memory are encoded between."""
    base = tmp_path_factory.getbasetemp()
    arrays = {f"t{i}": strategies.random_array(DTYPES["float32"], (i + 1,), i) for i in range(len(origins))}
    official_write(base / "first.safetensors", arrays)
    official_write(base / "second.safetensors", arrays)
    places = {
        "first file": wt.open(base / "first.safetensors"),
        "second file": wt.open(base / "second.safetensors"),
        "memory": TensorMap.from_arrays(arrays),
    }
    mixed = TensorMap({name: places[place][name] for name, place in zip(arrays, origins, strict=True)})
    assert_same(official_read(TestSafetensors().write(mixed, base / "mixed.safetensors")), arrays)

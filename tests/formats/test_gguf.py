"""GGUF against the ``gguf`` package."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from gguf.scripts.gguf_convert_endian import byteswap_tensors
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.formats.conformance import Arrays, FormatConformance, run_python
from tests.formats.gguf_golden import FIXTURES, finish, golden_read, golden_write, values
from tests.strategies import assert_same
from weighttools.core.encodings import QUANTIZED
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, MissingDependencyError, SourceError, SpecError
from weighttools.formats import load
from weighttools.formats.base import plain
from weighttools.formats.gguf.header import BLOCKS, RAW
from weighttools.formats.gguf.numbers import Float32, Float64, Int8, UInt8, UInt16, UInt64
from weighttools.formats.gguf.values import MetadataArray


class TestGguf(FormatConformance):
    format_name, suffix = "gguf", ".gguf"
    dtypes = ("float32", "float16", "bfloat16", "float64", "int8", "int16", "int32", "int64")
    keeps_aliases = False
    header_without_numpy = True
    trailing_slack = 24  # the padding behind 8 bytes of float16

    def examples(self, dtypes: tuple[str, ...] | None = None) -> Arrays:
        """All but a 0-d bfloat16, over which the package's reader stumbles."""
        return {name: array for name, array in super().examples(dtypes).items() if name != "t.bfloat16.scalar"}

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        golden_write(path, arrays)

    def golden_read(self, path: Path) -> Arrays:
        return golden_read(path)


def quantized() -> TensorMap:
    return wt.open(FIXTURES / "quantized.gguf")


def kinds() -> list[GGMLQuantizationType]:
    return [kind for kind in GGMLQuantizationType if kind in quants._type_traits and kind.name != "BF16"]


# -- metadata -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["values.gguf", "big_endian.gguf"])
def test_every_metadata_type_is_read_as_the_package_reads_it(name: str) -> None:
    tensor_map = wt.open(FIXTURES / name)
    expected = values(FIXTURES / name)
    assert plain(tensor_map.metadata) == expected
    assert list(tensor_map.metadata) == list(expected)


@pytest.mark.parametrize("name", ["values.gguf", "big_endian.gguf"])
def test_plain_tensors_of_either_byte_order_are_what_was_written(name: str) -> None:
    for i, dtype in enumerate(("float32", "float16", "float64", "int8", "int16", "int32", "int64")):
        found = wt.open(FIXTURES / name)[f"t.{dtype}"].read()
        assert found.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(found, (np.arange(12) - 5 + i).astype(dtype).reshape(3, 4))


def test_values_keep_their_types_and_arrays_stay_in_the_file() -> None:
    metadata = wt.open(FIXTURES / "values.gguf").metadata
    types = {"uint8": UInt8, "int8": Int8, "uint16": UInt16, "uint64": UInt64, "float32": Float32, "bool": bool}
    assert all(type(metadata[f"one.{name}"]) is kind for name, kind in types.items())
    array = metadata["tokens"]
    assert isinstance(array, MetadataArray) and len(array) == 4
    assert (array[0], array[-1], array[1:3], list(array)) == ("a", "\x1b[31m", ["", "ß"], ["a", "", "ß", "\x1b[31m"])
    numbers = metadata["many.int16"]
    assert (numbers[1], numbers[-1], list(reversed(numbers)), 2 in numbers) == (2, 3, [3, 2, 1], True)
    assert (numbers == [1, 2, 3], numbers == metadata["many.int8"], array == [1]) == (True, False, False)
    assert str(metadata["one.float32"]) == "0.1"
    assert pickle.loads(pickle.dumps(metadata["one.float32"])).bits == metadata["one.float32"].bits
    with pytest.raises(IndexError):
        array[4]


@pytest.mark.parametrize("name", ["values.gguf", "quantized.gguf"])
def test_a_file_written_again_is_the_same_file(name: str, tmp_path: Path) -> None:
    wt.convert(FIXTURES / name, tmp_path / name)
    assert (tmp_path / name).read_bytes() == (FIXTURES / name).read_bytes()


def test_a_big_endian_file_is_written_little_endian(tmp_path: Path) -> None:
    wt.convert(FIXTURES / "big_endian.gguf", tmp_path / "little.gguf")
    assert values(tmp_path / "little.gguf") == values(FIXTURES / "values.gguf")
    assert (tmp_path / "little.gguf").read_bytes() == (FIXTURES / "values.gguf").read_bytes()


def test_a_nan_in_the_metadata_keeps_its_payload_and_is_null_in_json(tmp_path: Path) -> None:
    data = (FIXTURES / "values.gguf").read_bytes()
    before = data.index(b"one.float32") + len(b"one.float32") + 4
    path = tmp_path / "nan.gguf"
    path.write_bytes(data[:before] + b"\x01\x00\xa0\x7f" + data[before + 4 :])
    wt.convert(path, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()
    assert json.loads(json.dumps(wt.inspect(path), allow_nan=False))["metadata"]["one.float32"] is None


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda k: "." not in k),
        st.one_of(
            st.booleans(),
            st.integers(-(2**63), 2**64 - 1),
            st.floats(allow_nan=False),
            st.text(max_size=8).filter(lambda t: t.isprintable()),
            st.lists(st.integers(0, 9), max_size=3),
            st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=3),
        ),
        max_size=4,
    )
)
def test_plain_python_metadata_survives(tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("metadata") / "m.gguf"
    wt.save(path, TensorMap.from_arrays({"a": np.zeros(2, np.float32)}, metadata))
    assert plain(wt.open(path).metadata) == plain(metadata)


def test_metadata_that_is_no_text_survives_in_an_npz(tmp_path: Path) -> None:
    data = (FIXTURES / "values.gguf").read_bytes().replace("ß".encode(), b"\xff\xfe")
    (tmp_path / "odd.gguf").write_bytes(data)
    wt.convert(tmp_path / "odd.gguf", tmp_path / "t.npz", dtype="float32")
    found = wt.open(tmp_path / "t.npz").metadata
    assert found["tokens"] == ["a", "", "\udcff\udcfe", "\x1b[31m"] and found["many.uint64"] == [1, 2, 3]


def test_metadata_becomes_text_elsewhere_and_it_is_said(tmp_path: Path) -> None:
    record = wt.convert(FIXTURES / "values.gguf", tmp_path / "t.safetensors")
    assert any("becomes JSON text" in note and "one.uint8" in note for note in record["notes"])
    metadata = wt.open(tmp_path / "t.safetensors").metadata
    assert metadata["text"] == "Zażółć gęślą jaźń 🧠\n{% if x %}"
    assert json.loads(metadata["many.float64"]) == [1.0, 2.0, 3.0]


# -- quantised tensors ---------------------------------------------------------------------------------------------


def test_the_table_of_encodings_is_the_packages() -> None:
    codes = {**RAW, **BLOCKS}
    assert {int(kind) for kind in GGMLQuantizationType} == set(codes)
    for kind in GGMLQuantizationType:
        if kind in BLOCKS.items() or int(kind) in BLOCKS:
            assert kind.name.lower() == BLOCKS[int(kind)]
            assert tuple(QUANTIZED[BLOCKS[int(kind)]]) == gguf.GGML_QUANT_SIZES[kind]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name.lower())
def test_every_quantisation_decodes_as_the_package_decodes_it(kind: GGMLQuantizationType) -> None:
    tensor = quantized()[f"q.{kind.name.lower()}"]
    assert (tensor.spec.dtype.name, tensor.spec.encoding) == ("float32", kind.name.lower())
    with np.errstate(all="ignore"):
        expected = quants.dequantize(golden_read(FIXTURES / "quantized.gguf")[f"q.{kind.name.lower()}"], kind)
    assert_equal_floats(tensor.read(), expected)
    n = tensor.reader.granularity
    assert_equal_floats(tensor.reader(n, 2 * n), expected.reshape(-1)[n : 2 * n])
    assert_equal_floats(tensor[1, 3:9], expected[1, 3:9])


def swapped(path: Path, kind: GGMLQuantizationType, swap: Any) -> Any:
    """Write a big-endian file of one quantised tensor, its blocks swapped by the package's own script."""
    blocks = golden_read(FIXTURES / "quantized.gguf")[f"q.{kind.name.lower()}"]
    data = np.array(blocks).reshape(-1)
    for offset in range(0, data.size, gguf.GGML_QUANT_SIZES[kind][1]):
        swap(SimpleNamespace(data=data), offset)
    writer = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("w", data.reshape(blocks.shape), raw_dtype=kind, tensor_endianess=gguf.GGUFEndian.BIG)
    finish(writer)
    return blocks


@pytest.mark.parametrize("kind", byteswap_tensors, ids=lambda kind: kind.name.lower())
def test_big_endian_blocks_decode_as_the_little_endian_ones(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    blocks = swapped(tmp_path / "big.gguf", kind, byteswap_tensors[kind])
    with np.errstate(all="ignore"):
        expected = quants.dequantize(blocks, kind)
    tensor = wt.open(tmp_path / "big.gguf")["w"]
    assert tensor.spec.encoding == f"{kind.name.lower()}_be" and tensor.spec.is_quantized
    assert_equal_floats(tensor.read(), expected)
    with pytest.raises(SpecError, match="give dequantize, or dtype with"):
        wt.convert(tmp_path / "big.gguf", tmp_path / "copied.gguf")
    wt.convert(tmp_path / "big.gguf", tmp_path / "decoded.gguf", dequantize=True)
    assert_equal_floats(golden_read(tmp_path / "decoded.gguf")["w"], expected)


def test_big_endian_blocks_of_unknown_layout_are_listed_not_decoded(tmp_path: Path) -> None:
    swapped(tmp_path / "big.gguf", GGMLQuantizationType.Q5_0, lambda tensor, offset: None)
    assert wt.params(tmp_path / "big.gguf")["n_parameters"] == 128
    with pytest.raises(wt.errors.UnsupportedError, match="big-endian q5_0"):
        wt.open(tmp_path / "big.gguf")["w"].read()


def assert_equal_floats(found: Any, expected: Any) -> None:
    """Bit for bit where finite or infinite; NaN where NaN."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found.view(np.uint32)[~nan], expected.view(np.uint32)[~nan])


def test_quantised_floats_are_parameters_and_grouped_by_encoding() -> None:
    record = wt.params(FIXTURES / "quantized.gguf")
    groups = {group["group"]: group for group in record["groups"]}
    assert set(groups) == {kind.name.lower() for kind in kinds()}
    assert groups["q4_k"]["n_parameters"] == 1024 and groups["q4_k"]["stored_bytes"] == 4 * 144
    assert record["n_buffers"] == 0
    row = wt.inspect(FIXTURES / "quantized.gguf")["tensors"][0]
    assert (row["dtype"], row["encoding"]) == ("float32", "q4_0")


@pytest.mark.parametrize("target", ["t.safetensors", "t.npz", "directory"])
def test_quantised_tensors_are_refused_elsewhere_before_a_byte_is_written(target: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="give dequantize, or dtype with"):
        wt.convert(FIXTURES / "quantized.gguf", tmp_path / target)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["t.safetensors", "t.npz", "t.gguf"])
def test_dequantize_writes_what_reading_gives(target: str, tmp_path: Path) -> None:
    record = wt.convert(FIXTURES / "quantized.gguf", tmp_path / target, dequantize=True)
    assert record["n_dequantized"] == len(kinds())
    found = wt.open(tmp_path / target)
    assert {tensor.spec.encoding for tensor in found.values()} == {"raw"}
    assert_same(found.read(), quantized().read())


def test_dtype_decodes_and_casts(tmp_path: Path) -> None:
    wt.convert(FIXTURES / "quantized.gguf", tmp_path / "t.gguf", dtype="float32", keep_dtype=["q.q4_0"])
    found = wt.open(tmp_path / "t.gguf")
    assert found["q.q4_0"].spec.encoding == "q4_0" and found["q.q4_1"].spec.encoding == "raw"
    wt.convert(FIXTURES / "quantized.gguf", tmp_path / "t.safetensors", dtype="float16", include=["q.q8_0"])
    expected = quantized()["q.q8_0"].read()
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(wt.open(tmp_path / "t.safetensors")["q.q8_0"].read(), expected.astype(np.float16))


def test_the_file_type_is_left_out_once_it_would_be_wrong(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    golden_write(source, {"w": np.ones((2, 32), np.float32)}, general__file_type=0)
    wt.convert(source, tmp_path / "q8.gguf", quantize="q8_0")
    assert "general.file_type" not in wt.open(tmp_path / "q8.gguf").metadata
    wt.convert(source, tmp_path / "same.gguf")
    assert wt.open(tmp_path / "same.gguf").metadata["general.file_type"] == 0


def test_q8_0_is_rounded_as_the_package_rounds(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weights = (rng.standard_normal((6, 96)) * 10.0 ** rng.integers(-6, 4, (6, 1))).astype(np.float32)
    weights[2] = 0
    weights[3, :32] = np.arange(32) * np.float32(0.5)
    arrays = {
        "w": weights,
        "half": weights.astype(np.float16),
        "norm": weights[0],
        "odd": weights[:, :95].copy(),
        "ids": np.arange(64, dtype=np.int32).reshape(2, 32),
    }
    source = tmp_path / "w.safetensors"
    wt.save(source, TensorMap.from_arrays(arrays))
    record = wt.convert(source, tmp_path / "w.gguf", quantize="q8_0")
    assert record["n_quantized"] == 2
    blocks = golden_read(tmp_path / "w.gguf")
    for name in ("w", "half"):
        expected = quants.quantize(arrays[name].astype(np.float32), GGMLQuantizationType.Q8_0)
        np.testing.assert_array_equal(blocks[name], expected)
        assert_equal_floats(
            wt.open(tmp_path / "w.gguf")[name].read(), quants.dequantize(expected, GGMLQuantizationType.Q8_0)
        )
    for name in ("norm", "odd", "ids"):
        np.testing.assert_array_equal(blocks[name], arrays[name])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e7])
def test_what_no_block_can_hold_is_refused_and_the_target_kept(bad: float, tmp_path: Path) -> None:
    target = tmp_path / "t.gguf"
    target.write_bytes(b"old")
    weights = np.ones((2, 32), np.float32)
    weights[1, 5] = bad
    source = tmp_path / "w.safetensors"
    wt.save(source, TensorMap.from_arrays({"w": weights}))
    with pytest.raises(SpecError, match="do not fit q8_0"):
        wt.convert(source, target, quantize="q8_0", force=True)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.gguf", "w.safetensors"]


def test_a_missing_package_is_named_but_headers_need_none() -> None:
    code = """
import sys
sys.modules["gguf"] = None
import weighttools as wt
from weighttools.errors import MissingDependencyError
path = sys.argv[1]
print(wt.params(path)["n_parameters"], wt.open(path)["q.q4_k"].read().size)
try:
    wt.open(path)["q.iq2_xs"].read()
except MissingDependencyError as error:
    print(error)
"""
    counted, line = run_python(code, str(FIXTURES / "quantized.gguf")).splitlines()
    assert counted == "16512 1024"
    assert "pip install '.[gguf]'" in line and "iq2_xs" in line
    assert issubclass(MissingDependencyError, ImportError)


def test_encodings_that_nothing_decodes_are_listed_and_copied(tmp_path: Path) -> None:
    data = (FIXTURES / "quantized.gguf").read_bytes()
    at = data.index(b"q.q8_0") + 6 + 4 + 16
    assert data[at] == int(GGMLQuantizationType.Q8_0)
    path = tmp_path / "q8_1.gguf"
    path.write_bytes(data[:at] + bytes([int(GGMLQuantizationType.Q8_1)]) + data[at + 1 :])
    tensor = wt.open(path)["q.q8_0"]
    assert tensor.spec.encoding == "q8_1" and tensor.stored_bytes == 4 * 40
    with pytest.raises(wt.errors.UnsupportedError, match="q8_1"):
        tensor.read()


# -- what cannot be held ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros(2, np.uint8), "no dtype uint8"),
        (np.zeros(2, np.bool_), "no dtype bool"),
        (np.zeros(2, np.complex64), "no dtype complex64"),
        (np.zeros((1, 1, 1, 1, 1), np.float32), "5 dimensions"),
    ],
)
def test_what_gguf_cannot_hold_is_refused(array: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=match):
        wt.save(tmp_path / "t.gguf", TensorMap.from_arrays({"a": array}))
    assert not (tmp_path / "t.gguf").exists()


def test_long_names_and_ties_are_said(tmp_path: Path) -> None:
    tensor_map = TensorMap.from_arrays({"n" * 64: np.ones(3, np.float32)}, aliases={"tied": "n" * 64})
    notes = " ".join(wt.save(tmp_path / "t.gguf", tensor_map)["notes"])
    assert "llama.cpp refuses: 1" in notes and "tied will be lost" in notes
    assert list(golden_read(tmp_path / "t.gguf")) == ["n" * 64]


def test_an_alignment_of_the_metadata_is_kept_and_a_bad_one_refused(tmp_path: Path) -> None:
    tensor_map = TensorMap.from_arrays(
        {"a": np.ones(1, np.int8), "b": np.ones(1, np.int8)}, {"general.alignment": "256"}
    )
    wt.save(tmp_path / "t.gguf", tensor_map)
    found = wt.open(tmp_path / "t.gguf")
    spans = [tensor.stored for tensor in found.values()]
    assert all(span is not None and span.offset % 256 == 0 for span in spans)
    assert set(golden_read(tmp_path / "t.gguf")) == {"a", "b"}
    with pytest.raises(SpecError, match="power of two"):
        wt.save(tmp_path / "u.gguf", tensor_map.replace(metadata={"general.alignment": "48"}))


# -- the command line --------------------------------------------------------------------------------------------------


def invoke(*args: object) -> Any:
    from click.testing import CliRunner

    from weighttools.cli.main import main

    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_inspect_shows_encodings_and_clips_long_metadata(tmp_path: Path) -> None:
    shown = invoke("inspect", FIXTURES / "quantized.gguf", "--flat").output
    assert "q.q4_k" in shown and "quantized checkpoint" in shown
    assert any(line.split()[:2] == ["q.q6_k", "q6_k"] for line in shown.splitlines())
    tensor_map = TensorMap.from_arrays({"a": np.ones(2, np.float32)}, {"tokens": [f"token{i}" for i in range(50_000)]})
    wt.save(tmp_path / "t.gguf", tensor_map)
    shown = invoke("inspect", tmp_path / "t.gguf").output
    assert "… 50,000 in all" in shown and len(shown) < 2000
    assert len(json.loads(invoke("inspect", tmp_path / "t.gguf", "--json").output)["metadata"]["tokens"]) == 50_000


def test_convert_and_get_from_the_command_line(tmp_path: Path) -> None:
    source = FIXTURES / "quantized.gguf"
    assert "23 dequantized" in invoke("convert", source, tmp_path / "t.safetensors", "--dequantize").output
    assert "1 quantized" in invoke(
        "convert", tmp_path / "t.safetensors", tmp_path / "u.gguf", "--quantize", "q8_0", "-i", "q.tq2_0"
    ).output  # fmt: skip
    refused = invoke("convert", source, tmp_path / "t.npz")
    assert refused.exit_code and isinstance(refused.exception, SpecError) and not (tmp_path / "t.npz").exists()
    assert invoke("get", source, "q.q4_0", "-o", tmp_path / "t.npy").exit_code == 0
    assert_equal_floats(np.load(tmp_path / "t.npy"), quantized()["q.q4_0"].read())
    unknown = invoke("convert", source, tmp_path / "x.gguf", "--quantize", "q3_k")
    assert "q8_0" in str(unknown.exception)


def test_rotary_tables_are_buffers(tmp_path: Path) -> None:
    golden_write(tmp_path / "t.gguf", {"rope_freqs.weight": np.ones(4, np.float32), "w": np.ones(2, np.float32)})
    record = wt.params(tmp_path / "t.gguf")
    assert (record["n_parameters"], record["n_buffers"]) == (2, 4)


# -- split files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for path in FIXTURES.glob("split-*.gguf"):
        shutil.copy(path, tmp_path)
    return tmp_path


@pytest.mark.parametrize("which", ["", "split-00001-of-00003.gguf", "split-00003-of-00003.gguf"])
def test_any_part_or_the_directory_opens_the_whole(which: str, parts: Path, tmp_path: Path) -> None:
    tensor_map = wt.open(parts / which)
    assert {name: float(t.read().max()) for name, t in tensor_map.items()} == {f"t{i}": float(i) for i in range(6)}
    assert dict(tensor_map.metadata) == {"general.architecture": "llama", "general.name": "split"}
    assert len(tensor_map.origin.files) == 3
    wt.save(tmp_path / "joined.gguf", tensor_map)
    assert set(golden_read(tmp_path / "joined.gguf")) == {f"t{i}" for i in range(6)}


def test_missing_parts_are_named(parts: Path) -> None:
    (parts / "split-00002-of-00003.gguf").unlink()
    with pytest.raises(SourceError, match=r"1 of 3 parts are missing: split-00002-of-00003\.gguf"):
        wt.open(parts / "split-00001-of-00003.gguf")


def test_parts_that_contradict_each_other_are_refused(parts: Path) -> None:
    shutil.copy(parts / "split-00003-of-00003.gguf", parts / "split-00002-of-00003.gguf")
    with pytest.raises(CorruptFileError, match=r"split\.no 2"):
        wt.open(parts)


def test_a_part_without_its_name_is_read_alone_and_that_is_said(parts: Path) -> None:
    shutil.copy(parts / "split-00002-of-00003.gguf", parts / "alone.gguf")
    tensor_map = wt.open(parts / "alone.gguf")
    assert list(tensor_map) == ["t2", "t3"]
    assert "one part of 3" in tensor_map.origin.notes[0]


def test_format_table_names_the_extra() -> None:
    row = next(row for row in wt.list_formats() if row["format"] == "gguf")
    assert (row["reads"], row["writes"], row["extra"]) == (True, True, "gguf")
    assert load("gguf").encodings == frozenset(QUANTIZED)
    assert isinstance(Float64(1.5), float)

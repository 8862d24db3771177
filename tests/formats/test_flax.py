"""Flax msgpack, against bytes packed by the msgpack package exactly as ``flax.serialization`` packs them."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.formats.conformance import Arrays, FormatConformance
from tests.formats.refusals import refusal
from tests.strategies import assert_same, random_array
from weighttools.core.dtypes import DTYPES
from weighttools.errors import CorruptFileError, UnsupportedError, WeighttoolsError
from weighttools.formats import read_file
from weighttools.formats.flax import format as flax
from weighttools.io.source import Bytes


def ndarray(array: Any, code: int = 1) -> msgpack.ExtType:
    """``flax.serialization._ndarray_to_bytes`` in an extension, as ``_msgpack_ext_pack`` wraps it."""
    array = np.asarray(array)
    return msgpack.ExtType(code, msgpack.packb((array.shape, array.dtype.name, array.tobytes("C")), use_bin_type=True))


def numbered(values: Any) -> dict[str, Any]:
    """``flax.serialization._tuple_to_dict``."""
    return {str(i): value for i, value in enumerate(values)}


def chunked(array: np.ndarray[Any, Any], n_elements: int) -> dict[str, Any]:
    """``flax.serialization._chunk``, with chunks of `n_elements`."""
    flat = array.reshape(-1)
    pieces = [ndarray(flat[i : i + n_elements]) for i in range(0, flat.size, n_elements)]
    return {"__msgpack_chunked_array__": True, "shape": numbered(array.shape), "chunks": numbered(pieces)}


def packed(tree: Any) -> bytes:
    """``flax.serialization.msgpack_serialize``."""
    return msgpack.packb(tree, strict_types=True)


def nested(arrays: Arrays) -> dict[str, Any]:
    """The tree whose flattened names are those of `arrays`."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = ndarray(array)
    return tree


def opened(data: bytes) -> wt.TensorMap:
    return read_file(Bytes(data, "model.msgpack"))


class TestFlax(FormatConformance):
    format_name = "flax"
    suffix = ".msgpack"
    dtypes = tuple(DTYPES)
    writes = False
    whole_bytes = False
    header_without_numpy = True

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        path.write_bytes(packed(nested(arrays)))


def test_names_are_paths_and_other_leaves_metadata() -> None:
    kernel, mean = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(3, np.float32)
    tree = {
        "params": {"Dense_0": {"kernel": ndarray(kernel)}},
        "batch_stats": {"BatchNorm_0": {"mean": ndarray(mean)}},
        "list": [ndarray(np.int8(1)), {"deep": ndarray(np.uint8(2), code=3)}],
        "step": 3,
        "rate": 0.5,
        "nothing": None,
        "name": "net",
        "loss": float("nan"),
        "complex": msgpack.ExtType(2, msgpack.packb((1.0, -2.0))),
        "blob": b"\x00\x01",
        "empty": {},
    }
    found = opened(packed(tree))
    expected = {
        "params/Dense_0/kernel": kernel,
        "batch_stats/BatchNorm_0/mean": mean,
        "list/0": np.int8(1),
        "list/1/deep": np.uint8(2),
    }
    assert list(found) == list(expected)
    assert_same(found.read(), expected)
    assert dict(found.metadata) == {
        "step": 3, "rate": 0.5, "nothing": None, "name": "net", "loss": "nan", "complex": "(1-2j)", "blob": "<2 bytes>"
    }  # fmt: skip
    assert (wt.inspect(found)["n_tensors"], wt.inspect(found)["n_parameters"]) == (4, 6), "no running statistics"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "float8_e4m3fn", "float4_e2m1fn"])
@pytest.mark.parametrize("shape", [(5, 7), (35,), (1, 1)])
def test_chunked_arrays_are_joined(dtype: str, shape: tuple[int, ...]) -> None:
    array = random_array(DTYPES[dtype], shape, 1)
    found = opened(packed({"a": {"big": chunked(array, 4)}, "b": ndarray(array)}))
    assert_same(found.read(), {"a/big": array, "b": array})
    assert list(found["a/big"].shape) == list(shape)
    assert found["a/big"][0].tobytes() == np.ascontiguousarray(array[0]).tobytes()


@pytest.mark.parametrize("name", ["int4", "uint4", "int2", "uint2"])
def test_narrow_integers_are_widened(name: str) -> None:
    kind = getattr(ml_dtypes, name)
    array = np.arange(ml_dtypes.iinfo(kind).min, ml_dtypes.iinfo(kind).max + 1).astype(kind)
    tensor = opened(packed({"q": ndarray(array)}))["q"]
    assert tensor.spec.encoding == name
    np.testing.assert_array_equal(tensor.read(), array.astype(tensor.dtype.name))


def test_a_lone_array_is_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "alone.msgpack"
    path.write_bytes(packed(ndarray(np.arange(3))))
    assert_same(wt.open(path).read(), {"alone": np.arange(3)})


def test_arrays_without_numbers_are_left_out_and_said() -> None:
    bad = msgpack.ExtType(1, msgpack.packb(((1,), "datetime64[ns]", bytes(8))))
    found = opened(packed({"when": bad, "w": ndarray(np.zeros(2))}))
    assert list(found) == ["w"] and found.origin.notes == ("left out: when (no plain numbers)",)
    with pytest.raises(UnsupportedError, match=r"no array that can be read: when \(no plain numbers\)"):
        opened(packed({"when": bad}))


def test_values_lie_where_the_map_says(tmp_path: Path) -> None:
    path = tmp_path / "raw.msgpack"
    array = np.arange(12, dtype=np.float32)
    path.write_bytes(packed({"w": ndarray(array)}))
    span = wt.open(path)["w"].stored
    assert span is not None
    assert path.read_bytes()[span.offset : span.offset + span.length] == array.tobytes()


def test_survives_conversion_to_safetensors(tmp_path: Path) -> None:
    arrays = {
        f"layer_{i}/{dtype}": random_array(DTYPES[dtype], (3, 4), i) for i, dtype in enumerate(["bfloat16", "float32"])
    }
    (tmp_path / "a.msgpack").write_bytes(packed({**nested(arrays), "step": 7}))
    wt.convert(tmp_path / "a.msgpack", tmp_path / "a.safetensors")
    back = wt.open(tmp_path / "a.safetensors")
    assert_same(back.read(), arrays)
    assert back.metadata["step"] == "7"


BAD = {
    "empty map cut": b"\x81",
    "unused byte": b"\x81\xa1a\xc1",
    "huge map": b"\xdf\xff\xff\xff\xff" + b"\xa1a\x01",
    "huge array": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "huge bytes": b"\x81\xa1a\xc6\xff\xff\xff\xff",
    "huge ext": b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
    "duplicate key": b"\x82\xa1a\x01\xa1a\x02",
    "duplicate path": packed({"a/b": ndarray(np.zeros(1)), "a": {"b": ndarray(np.zeros(1))}}),
    "float key": b"\x81\xca\x00\x00\x00\x00\x01",
    "not UTF-8": b"\x81\xa2\xff\xfe\x01",
    "trailing bytes": packed({"a": 1}) + b"\x00",
    "shape too large": packed({"a": msgpack.ExtType(1, msgpack.packb(((1 << 62, 4), "float32", bytes(8))))}),
    "negative axis": packed({"a": msgpack.ExtType(1, msgpack.packb(((-1,), "float32", bytes(4))))}),
    "true axis": packed({"a": msgpack.ExtType(1, msgpack.packb(((True,), "float32", bytes(4))))}),
    "float axis": packed({"a": msgpack.ExtType(1, msgpack.packb(((1.0,), "float32", bytes(4))))}),
    "not a triple": packed({"a": msgpack.ExtType(1, msgpack.packb((1, 2)))}),
    "ext runs over": packed({"a": msgpack.ExtType(1, msgpack.packb(((1,), "float32", bytes(4)))[:-1])}) + b"\x00" * 9,
    "bytes after array": packed({"a": msgpack.ExtType(1, msgpack.packb(((1,), "float32", bytes(4))) + b"\x00")}),
    "nested ext": packed({"a": msgpack.ExtType(1, b"")}),
    "chunk missing": packed({"a": {**chunked(np.zeros(9), 4), "chunks": {"0": ndarray(np.zeros(4))}}}),
    "chunks misnumbered": packed({"a": {**chunked(np.zeros(3), 4), "chunks": {"1": ndarray(np.zeros(3))}}}),
    "chunks of two dtypes": packed(
        {"a": {**chunked(np.zeros(2), 1), "chunks": numbered([ndarray(np.zeros(1)), ndarray(np.zeros(1, np.int64))])}}
    ),
    "bad complex": packed({"a": msgpack.ExtType(2, msgpack.packb(("x", "y")))}),
    "no map": packed("text"),
    "deep maps": b"\x81\xa1a" * 5000 + b"\x01",
    "deep arrays": b"\x81\xa1a" + b"\x91" * 200_000 + b"\x01",
    "many empty arrays": b"\x81\xa1a\xdd" + (1_500_000).to_bytes(4, "big") + b"\x90" * 1_500_000,
    "many numbers": b"\x81\xa1a\xdd" + (1_000_000).to_bytes(4, "big") + b"\x00" * 1_000_000,
    "long names": packed({"k" * 60_000: [ndarray(np.zeros(0)) for _ in range(3000)]}),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_quickly(case: str) -> None:
    refusal(flax.read, BAD[case], "bad.msgpack", CorruptFileError)


def test_truncation_says_how_much_is_missing() -> None:
    with pytest.raises(CorruptFileError, match="24 bytes are missing"):
        opened(packed({"w": ndarray(np.zeros(4))})[:-24])


headers = st.one_of(st.binary(max_size=6), st.sampled_from([bytes([n]) for n in range(0x80, 0x100)]))


@given(st.lists(headers, max_size=30).map(b"".join))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        for tensor in flax.read(Bytes(b"\x81\xa1a" + data)).values():
            tensor.read()
    except WeighttoolsError as error:
        assert str(error).isprintable()


def test_fixture() -> None:
    folder = Path(__file__).parents[2] / "fixtures"
    found = wt.open(folder / "flax" / "state.msgpack")
    expected = runpy.run_path(str(folder / "make_flax.py"))["arrays"]()
    assert list(found) == list(expected) and dict(found.metadata) == {"step": 3}
    assert_same(found.read(), expected)

"""ONNX models, against the onnx package's own ``numpy_helper``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import weighttools as wt
from tests.formats.conformance import Arrays, FormatConformance
from tests.formats.refusals import refusal
from tests.real import real_file, row
from tests.strategies import assert_same, random_array
from weighttools.core.dtypes import DTYPES
from weighttools.errors import CorruptFileError, SourceError, UnsafeFileError, UnsupportedError, WeighttoolsError
from weighttools.formats import read_file
from weighttools.formats.onnx import format as onnx_format
from weighttools.formats.onnx.elements import ELEMENTS
from weighttools.io.source import Bytes

NARROW = ("int4", "uint4", "int2", "uint2")
KNOWN = dict(TensorProto.DataType.items())
CODES = {name: code for name, code in KNOWN.items() if code in ELEMENTS}
MODELS = [name for name in CODES if not name.startswith("FLOAT6")]


def model(tensors: list[TensorProto] = [], nodes: list[Any] = [], **extra: Any) -> onnx.ModelProto:  # noqa: B006
    graph = helper.make_graph(nodes, "g", [], [], initializer=tensors)
    return helper.make_model(graph, producer_name="tests", opset_imports=[helper.make_opsetid("", 21)], **extra)


def opened(found: onnx.ModelProto | bytes) -> wt.TensorMap:
    data = found if isinstance(found, bytes) else found.SerializeToString()
    return read_file(Bytes(data, "model.onnx"))


def plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Narrow integers as the byte-wide ones that they are read as."""
    name = array.dtype.name
    return array.astype("uint8" if name.startswith("u") else "int8") if name in NARROW else array


class TestOnnx(FormatConformance):
    format_name = "onnx"
    suffix = ".onnx"
    dtypes = tuple(
        {ELEMENTS[code].dtype.name: None for name, code in CODES.items() if ELEMENTS[code].encoding == "raw"}
    )
    writes = False
    whole_bytes = False
    header_without_numpy = True

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        path.write_bytes(model(tensors).SerializeToString())


@pytest.mark.parametrize("name", [n for n in CODES if ELEMENTS[CODES[n]].encoding != "raw"])
@pytest.mark.parametrize("n", [0, 1, 5, 8])
def test_narrow_integers_are_widened(name: str, n: int) -> None:
    kind = helper.tensor_dtype_to_np_dtype(CODES[name])
    array = np.random.default_rng(n).integers(0, 4, n).astype(np.uint8).view(np.uint8).astype(kind)
    proto = numpy_helper.from_array(array, "q")
    tensor = opened(model([proto]))["q"]
    assert tensor.spec.encoding == name.lower()
    expected = plain(numpy_helper.to_array(proto))
    np.testing.assert_array_equal(tensor.read(), expected)
    np.testing.assert_array_equal(np.concatenate([*tensor.blocks(1), expected[:0]]), expected)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_typed_data(name: str, shape: tuple[int, ...]) -> None:
    kind = helper.tensor_dtype_to_np_dtype(CODES[name])
    n = int(np.prod(shape, dtype=int))
    small = (
        np.arange(n) % 2
        if name in ("BOOL", "INT2", "UINT2", "FLOAT8E8M0")
        else np.arange(n) % 7 - (3 if "U" not in name else 0)
    )
    values = small.astype(kind)
    proto = helper.make_tensor("t", CODES[name], shape, values.reshape(-1), raw=False)
    assert not proto.HasField("raw_data")
    tensor = opened(model([proto]))["t"]
    expected = numpy_helper.to_array(proto)
    assert_same({"t": tensor.read()}, {"t": plain(expected)})
    assert tensor.read().tobytes() == plain(values).tobytes()


def test_extreme_varints() -> None:
    for kind, code in (
        ("int64", TensorProto.INT64),
        ("int32", TensorProto.INT32),
        ("uint64", TensorProto.UINT64),
        ("uint32", TensorProto.UINT32),
    ):
        info = np.iinfo(kind)
        array = np.array([info.min, info.max, 0, 1, 127, 128, 255, 256, info.max // 3], kind)
        proto = helper.make_tensor("t", code, array.shape, array)
        assert_same(opened(model([proto])).read(), {"t": array})


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def tagged(number: int, wire: int, body: bytes) -> bytes:
    return varint(number << 3 | wire) + (varint(len(body)) if wire == 2 else b"") + body


def wrapped(tensor: bytes) -> bytes:
    """A model whose one initializer has these bytes."""
    return tagged(1, 0, b"\x08") + tagged(7, 2, tagged(5, 2, tensor)) + tagged(8, 2, tagged(2, 0, b"\x15"))


def test_unpacked_and_split_fields_are_joined() -> None:
    floats = np.arange(5, dtype=np.float32)
    head = tagged(1, 0, b"\x05") + tagged(8, 2, b"t")
    data = (
        head
        + tagged(2, 0, b"\x01")
        + b"".join(tagged(4, 5, x.tobytes()) for x in floats[:3])
        + tagged(4, 2, floats[3:].tobytes())
    )
    assert_same(opened(wrapped(data)).read(), {"t": numpy_helper.to_array(TensorProto.FromString(data))})
    data = (
        head
        + tagged(2, 0, b"\x07")
        + b"".join(tagged(7, 0, varint(n)) for n in (1, 300))
        + tagged(7, 2, b"\x01\x02\x03")
    )
    assert_same(opened(wrapped(data)).read(), {"t": numpy_helper.to_array(TensorProto.FromString(data))})
    data = (
        tagged(1, 2, b"\x01\x02")
        + tagged(8, 2, b"t")
        + tagged(2, 0, b"\x0e")
        + b"".join(tagged(4, 5, x.tobytes()) for x in floats[:4])
    )
    assert_same(opened(wrapped(data)).read(), {"t": numpy_helper.to_array(TensorProto.FromString(data))})


def constant(name: str, **value: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], **value)


def test_constant_nodes() -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    nodes = [
        constant("w", value=numpy_helper.from_array(weight)),
        constant("f", value_float=0.5),
        constant("i", value_int=-3),
        constant("fs", value_floats=[1.0, 2.5]),
        constant("is", value_ints=[1, -2, 1 << 40]),
        constant("s", value_string="text"),
        helper.make_node("ConstantOfShape", ["i"], ["zeros"], value=numpy_helper.from_array(np.zeros(1))),
    ]
    found = opened(model(nodes=nodes))
    expected = {
        "w": weight, "f": np.float32(0.5), "i": np.int64(-3),
        "fs": np.float32([1, 2.5]), "is": np.int64([1, -2, 1 << 40]),
    }  # fmt: skip
    assert_same(found.read(), expected)
    assert list(found) == list(expected)
    assert list(found.origin.notes) == ["left out: s (text or a sparse tensor of a Constant node)"]


def test_subgraphs_and_functions() -> None:
    one, two, three = (np.full(3, n, np.float32) for n in (1, 2, 3))
    branches = [
        helper.make_graph(
            [constant("same", value=numpy_helper.from_array(a))], "b", [], [], [numpy_helper.from_array(a, f"own{i}")]
        )
        for i, a in enumerate((one, two))
    ]
    inner = helper.make_node("If", ["c"], ["x"], then_branch=branches[0], else_branch=branches[1])
    outer = helper.make_graph([inner], "loop", [], [])
    nodes = [helper.make_node("Loop", ["n", "c"], ["y"], name="repeat", body=outer)]
    body = [constant("in_function", value=numpy_helper.from_array(three))]
    function = helper.make_function("d", "f", [], [], body, [helper.make_opsetid("", 21)])
    found = opened(model(nodes=nodes, functions=[function]))
    assert_same(
        found.read(),
        {"own1": two, "same": two, "own0": one, "repeat/body/x/then_branch/same": one, "in_function": three},
    )


def test_metadata() -> None:
    found = model([numpy_helper.from_array(np.zeros(2), "a")], ir_version=9)
    found.opset_import.append(helper.make_opsetid("com.example", 2))
    helper.set_model_props(found, {"author": "someone", "": "nameless"})
    assert dict(opened(found).metadata) == {
        "onnx.ir_version": "9", "onnx.producer_name": "tests", "author": "someone", "": "nameless",
        "onnx.opset": "ai.onnx 21, com.example 2",
    }  # fmt: skip


def test_strings_and_sparse_tensors_are_left_out_and_said() -> None:
    found = model([helper.make_tensor("s", TensorProto.STRING, [1], [b"x"]), numpy_helper.from_array(np.zeros(2), "a")])
    values, indices = numpy_helper.from_array(np.ones(1), "sp"), numpy_helper.from_array(np.zeros(1, np.int64))
    found.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    opened_map = opened(found)
    assert list(opened_map) == ["a"]
    assert list(opened_map.origin.notes) == ["left out: s (text, not numbers)", "left out: sp (a sparse initializer)"]
    del found.graph.initializer[1]
    with pytest.raises(UnsupportedError, match=r"no tensor that can be read: s \(text, not numbers\), sp "):
        opened(found)


def test_weights_in_attributes_of_other_nodes_are_said() -> None:
    linear = helper.make_node("LinearRegressor", ["x"], ["y"], name="fit", domain="ai.onnx.ml", coefficients=[0.5] * 20)
    set_up = helper.make_node("Scaler", ["y"], ["z"], domain="ai.onnx.ml", scale=[0.5] * 3)
    found = model([numpy_helper.from_array(np.zeros(2), "a")], nodes=[linear, set_up])
    said = "left out: fit/coefficients (numbers in an attribute of LinearRegressor)"
    assert list(opened(found).origin.notes) == [said]
    with pytest.raises(UnsupportedError, match="fit/coefficients"):
        opened(model(nodes=[linear]))


# -- external data -----------------------------------------------------------------------------------------------------


def external(location: str, offset: int = 0, length: int | None = 8, n: int = 2) -> onnx.ModelProto:
    proto = TensorProto(name="w", dims=[n], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    entries = {"location": location, "offset": str(offset)} | ({} if length is None else {"length": str(length)})
    for key, value in entries.items():
        proto.external_data.add(key=key, value=value)
    return model([proto])


def test_external_data_as_the_onnx_package_saves_it(tmp_path: Path) -> None:
    arrays = {
        f"t{i}": random_array(DTYPES[name], (40, 30), i) for i, name in enumerate(["float32", "bfloat16", "int8"])
    }
    found = model([numpy_helper.from_array(a, n) for n, a in arrays.items()])
    path = tmp_path / "m.onnx"
    onnx.save_model(found, path, save_as_external_data=True, location="m.data", size_threshold=0)
    opened_map = wt.open(path)
    assert_same(opened_map.read(), arrays)
    assert opened_map.origin.files == (str(path), str(tmp_path / "m.data"))
    assert {t.stored.source.name for t in opened_map.values() if t.stored} == {str(tmp_path / "m.data")}
    wt.convert(path, tmp_path / "m.safetensors")
    assert_same(wt.open(tmp_path / "m.safetensors").read(), arrays)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "a/../../secret", "", "C:secret", "a\\b", "a\0b"])
def test_external_data_outside_the_directory_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(8))
    (tmp_path / "dir" / "a").mkdir(parents=True)
    path = tmp_path / "dir" / "m.onnx"
    path.write_bytes(external(location).SerializeToString())
    with pytest.raises(UnsafeFileError):
        wt.open(path)


def test_external_data_through_links_and_missing(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    path = tmp_path / "dir" / "m.onnx"
    path.write_bytes(external("data").SerializeToString())
    with pytest.raises(SourceError, match=r"data: is named by m\.onnx, but there is no such file"):
        wt.open(path)
    (tmp_path / "secret").write_bytes(bytes(8))
    (tmp_path / "dir" / "data").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeFileError, match="leaves"):
        wt.open(path)
    (tmp_path / "dir" / "data").unlink()
    (tmp_path / "dir" / "data").mkdir()
    with pytest.raises(SourceError, match="directory"):
        wt.open(path)


@pytest.mark.parametrize(
    "changes",
    [{"offset": 1}, {"length": 4}, {"length": 12}, {"n": 3, "length": None}, {"n": 1 << 40, "length": 1 << 42}],
)
def test_external_data_must_fit(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "data").write_bytes(bytes(8))
    path = tmp_path / "m.onnx"
    path.write_bytes(external("data", **changes).SerializeToString())
    with pytest.raises(CorruptFileError):
        wt.open(path)


def test_external_data_needs_a_path() -> None:
    with pytest.raises(UnsupportedError, match="another file"):
        opened(external("data"))


# -- broken files ------------------------------------------------------------------------------------------------------


def nested_graphs(depth: int) -> bytes:
    body = b""
    for _ in range(depth):
        body = tagged(1, 2, tagged(4, 2, b"If") + tagged(5, 2, tagged(6, 2, body)))
    return tagged(7, 2, body) + tagged(8, 2, b"")


T = tagged(8, 2, b"t") + tagged(2, 0, b"\x01")
BAD = {
    "no graph": tagged(1, 0, b"\x08") + tagged(8, 2, b""),
    "two graphs": tagged(7, 2, b"") + tagged(7, 2, b""),
    "no opset": tagged(1, 0, b"\x08") + tagged(7, 2, b""),
    "graph is a number": tagged(1, 0, b"\x08") + tagged(7, 0, b"\x08"),
    "wire type 3": tagged(1, 3, b""),
    "field 0": b"\x00\x01",
    "endless varint": b"\x08" + b"\xff" * 20,
    "length past the end": b"\x08\x08\x3a\xff\xff\xff\xff\x0f",
    "length of 2**64": b"\x08\x08\x3a" + b"\xff" * 9 + b"\x01",
    "no data": wrapped(T + tagged(1, 0, b"\x02")),
    "too much data": wrapped(T + tagged(1, 0, b"\x02") + tagged(9, 2, bytes(12))),
    "huge shape": wrapped(T + tagged(1, 0, varint((1 << 63) - 1)) * 3 + tagged(9, 2, bytes(12))),
    "negative axis": wrapped(T + tagged(1, 0, varint((1 << 64) - 1)) + tagged(9, 2, bytes(12))),
    "many axes": wrapped(T + tagged(1, 2, b"\x01" * 1_000_000) + tagged(9, 2, bytes(4))),
    "many axes, unpacked": wrapped(T + tagged(1, 0, b"\x01") * 1000 + tagged(9, 2, bytes(4))),
    "raw and typed": wrapped(T + tagged(9, 2, bytes(4)) + tagged(4, 2, bytes(4))),
    "raw twice": wrapped(T + tagged(9, 2, bytes(4)) + tagged(9, 2, bytes(4))),
    "wrong field": wrapped(T + tagged(7, 2, b"\x01")),
    "no type": wrapped(tagged(8, 2, b"t") + tagged(9, 2, bytes(4))),
    "floats as bytes of odd length": wrapped(T + tagged(4, 2, bytes(3))),
    "too few varints": wrapped(
        tagged(8, 2, b"t") + tagged(2, 0, b"\x07") + tagged(1, 0, b"\x03") + tagged(7, 2, b"\x01\x01")
    ),
    "same name twice": tagged(7, 2, tagged(5, 2, T + tagged(9, 2, bytes(4))) * 2) + tagged(8, 2, b""),
    "name not UTF-8": wrapped(tagged(8, 2, b"\xff\xfe") + tagged(2, 0, b"\x01") + tagged(9, 2, bytes(4))),
    "name of 100 kB": wrapped(tagged(8, 2, b"n" * 100_000) + tagged(2, 0, b"\x01") + tagged(9, 2, bytes(4))),
    "deep graphs": nested_graphs(2000),
    "many small fields": tagged(7, 2, tagged(10, 2, b"") * 400_000) + b"\x08",
    "name again in a subgraph": tagged(
        7, 2, tagged(1, 2, tagged(5, 2, tagged(6, 2, tagged(5, 2, T + tagged(9, 2, bytes(4))) * 2)))
    ) + tagged(8, 2, b""),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_quickly(case: str) -> None:
    refusal(onnx_format.read, BAD[case], "bad.onnx", CorruptFileError)


def test_varints_that_do_not_fill_the_shape_are_refused_when_read() -> None:
    tensor = tagged(8, 2, b"t") + tagged(2, 0, b"\x07") + tagged(1, 0, b"\x02") + tagged(7, 2, b"\x01\x01\x01")
    found = opened(wrapped(tensor))
    with pytest.raises(CorruptFileError, match="3 whole numbers"):
        found["t"].read()
    unfinished = tagged(8, 2, b"t") + tagged(2, 0, b"\x07") + tagged(1, 0, b"\x01") + tagged(7, 2, b"\x01\x81")
    with pytest.raises(CorruptFileError):
        opened(wrapped(unfinished))["t"].read()


def test_segments_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="segments"):
        opened(wrapped(T + tagged(3, 2, b"")))


part = st.one_of(
    st.binary(max_size=6),
    st.builds(tagged, st.integers(1, 16), st.just(2), st.binary(max_size=12)),
    st.builds(lambda n, v: tagged(n, 0, varint(v)), st.integers(1, 16), st.integers(0, (1 << 64) - 1)),
)


@given(st.lists(part, max_size=12).map(b"".join))
def test_any_tensor_is_read_or_refused(data: bytes) -> None:
    try:
        for tensor in onnx_format.read(Bytes(wrapped(data), "any.onnx")).values():
            tensor.read()
    except WeighttoolsError as error:
        assert str(error).isprintable()


# -- fixtures and real weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["types.onnx", "external.onnx"])
def test_fixtures(name: str) -> None:
    path = Path(__file__).parents[2] / "fixtures" / "onnx" / name
    reference = onnx.load(path)
    expected = {proto.name: plain(numpy_helper.to_array(proto)) for proto in reference.graph.initializer}
    constants = {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in reference.graph.node}
    assert_same(wt.open(path).read(), expected | constants)


@pytest.mark.real
def test_a_real_model() -> None:
    path = real_file("basic-pitch", "nmp.onnx")
    expected = {proto.name: numpy_helper.to_array(proto) for proto in onnx.load(path).graph.initializer}
    found = wt.open(path)
    assert len(found) == row("basic-pitch", "nmp.onnx")["n_tensors"] == 102
    assert list(found) == list(expected)
    assert_same(found.read(), expected)

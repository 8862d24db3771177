"""The table of dtypes against NumPy, ml_dtypes, torch and the official safetensors reader."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

import weighttools as wt
from tests.formats.conformance import run_python
from weighttools.core.dtypes import ALIASES, DTYPES, dtype, from_numpy
from weighttools.errors import SpecError
from weighttools.formats.safetensors.header import NAMES
from weighttools.transforms.cast import cast

KINDS = {"i": "int", "u": "uint", "b": "bool", "c": "complex", "f": "float"}


@pytest.mark.parametrize("name", list(DTYPES))
def test_each_is_what_numpy_or_ml_dtypes_calls_so(name: str) -> None:
    ours = DTYPES[name]
    theirs = np.dtype(getattr(ml_dtypes, name, name))
    assert ours.numpy == theirs and str(ours) == name == theirs.name
    assert from_numpy(theirs) == ours
    assert theirs.itemsize == -(-ours.bits // 8)
    if hasattr(ml_dtypes, name):
        assert ours.bits == ml_dtypes.finfo(theirs).bits
        assert ours.kind == "float"
    else:
        assert ours.bits == theirs.itemsize * 8
        assert ours.kind == KINDS[theirs.kind]
    assert ours.is_float == (ours.kind == "float")


@pytest.mark.parametrize("name", [name for name in DTYPES if hasattr(torch, name)])
def test_widths_are_those_of_torch(name: str) -> None:
    assert getattr(torch, name).itemsize * 8 == DTYPES[name].bits


@pytest.mark.parametrize(("code", "ours"), NAMES.items())
def test_bits_are_those_of_the_official_reader(code: str, ours: object) -> None:
    """It takes 8 elements in just as many bytes as the dtype has bits."""
    for n_bytes in range(1, 65):
        header = f'{{"a":{{"dtype":"{code}","shape":[8],"data_offsets":[0,{n_bytes}]}}}}'.encode()
        data = len(header).to_bytes(8, "little") + header + bytes(n_bytes)
        if n_bytes == NAMES[code].bits:
            assert len(deserialize(data)) == 1
        else:
            with pytest.raises(SafetensorError):
                deserialize(data)


@given(st.sampled_from(list(DTYPES.values())), st.integers(0, 2**70))
def test_packed_size_is_exact_at_any_count(ours: object, n: int) -> None:
    assert isinstance(ours, type(DTYPES["bool"]))
    n_bytes = ours.nbytes(n)
    assert 0 <= n_bytes * 8 - n * ours.bits < 8
    assert ours.pack * ours.bits % 8 == 0
    assert all(k * ours.bits % 8 for k in range(1, ours.pack))


def test_short_forms_and_case() -> None:
    assert all(dtype(short).name == name for short, name in ALIASES.items())
    assert dtype("BF16").name == "bfloat16" and dtype("Float32").name == "float32"


@pytest.mark.parametrize("name", ["bfloat", "", "float128", "object", "\x1b[31m", "__class__"])
def test_unknown_name_gives_near_ones(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        dtype(name)
    line = str(caught.value)
    assert "unknown dtype" in line and "expected a dtype such as" in line and line.isprintable()
    assert "bfloat16" in line or name != "bfloat"


def test_byte_order_does_not_matter() -> None:
    assert from_numpy(np.dtype(">f4")) == from_numpy(np.dtype("<f4")) == DTYPES["float32"]


@pytest.mark.parametrize("theirs", ["O", "U3", "S3", "V2", "M8[s]", "m8[s]", "i4,f4"])
def test_what_holds_no_numbers_is_refused(theirs: str) -> None:
    with pytest.raises(SpecError, match="holds no plain numbers"):
        from_numpy(np.dtype(theirs))


def test_the_table_loads_no_numpy() -> None:
    code = "import weighttools.core.dtypes as d; assert d.dtype('bf16').nbytes(3) == 6; print('numpy' in sys.modules)"
    assert run_python(code) == "False"


@pytest.mark.parametrize("name", list(DTYPES))
def test_a_dtype_is_equal_to_its_name_and_hashed_as_it_is(name: str) -> None:
    ours, other = DTYPES[name], next(other for other in DTYPES if other != name)
    same = type(ours)(*ours)
    assert same is not ours
    for twin in (name, same, ours):
        assert (ours == twin, twin == ours, ours != twin, twin != ours) == (True, True, False, False)
        assert hash(ours) == hash(twin) and ours in {twin} and twin in {ours} and {ours: 1}[twin] == 1
    for stranger in (other, DTYPES[other], tuple(ours), None, 3, ours.bits, b"float32"):
        assert (ours == stranger, stranger == ours, ours != stranger, stranger != ours) == (False, False, True, True)


@pytest.mark.parametrize("name", list(DTYPES))
def test_dtypes_of_numpy_ml_dtypes_and_torch_are_taken(name: str) -> None:
    theirs = getattr(ml_dtypes, name, None) or getattr(np, name if name != "bool" else "bool_")
    assert dtype(theirs) is DTYPES[name] is dtype(np.dtype(theirs)) is dtype(DTYPES[name])
    if hasattr(torch, name):
        assert dtype(getattr(torch, name)) is DTYPES[name]


@pytest.mark.parametrize(
    "given", [None, 3, object, "object", np.dtype("O"), np.dtype("M8[s]"), [("a", "f4")], torch.quint8, ml_dtypes.int4]
)
def test_what_is_no_dtype_is_one_line(given: object) -> None:
    with pytest.raises(SpecError) as caught:
        dtype(given)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("given", ["float16", "fp16", np.float16, np.dtype("f2"), DTYPES["float16"], torch.float16])
def test_verbs_take_any_dtype(given: object, tmp_path) -> None:
    tensor_map = wt.TensorMap.from_arrays({"a": np.ones((2, 2), np.float32)})
    assert tensor_map["a"].dtype == "float32"
    assert tensor_map.pipe(cast(given))["a"].dtype == "float16"
    wt.convert(tensor_map, tmp_path / "a.safetensors", dtype=given)
    assert wt.open(tmp_path / "a.safetensors")["a"].dtype == "float16"
    assert wt.estimate(tensor_map, cache_dtype=given)["load"]

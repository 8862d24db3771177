"""NPY against numpy."""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import weighttools as wt
from tests.formats.conformance import Arrays, FormatConformance
from tests.formats.refusals import refusal
from tests.refused import refused
from tests.sources import CountingSource
from tests.strategies import same_bits
from weighttools.core.dtypes import DTYPES, dtype
from weighttools.core.spec import Spec
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, SpecError, UnsafeFileError, UnsupportedError, WeighttoolsError
from weighttools.formats import npy_header, read_file
from weighttools.formats.base import ReadOptions
from weighttools.formats.numpy import npy
from weighttools.io.source import Bytes

FIXTURES = Path(__file__).parents[2] / "fixtures" / "npy"
NUMPYS_OWN = [
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
    "complex128",
    "complex64",
]


class TestNpy(FormatConformance):
    format_name, suffix = "npy", ".npy"
    dtypes = tuple(DTYPES)
    golden_dtypes = tuple(NUMPYS_OWN)
    whole_bytes = False
    n_tensors = (1, 1)
    keeps_names = keeps_metadata = keeps_aliases = False
    header_without_numpy = True

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        (array,) = arrays.values()
        np.save(path, array)

    def golden_read(self, path: Path) -> Arrays:
        return {path.stem: np.load(path)}


def made(header: str | bytes, data: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    """An NPY file with this header."""
    text = header.encode("utf-8" if version == 3 else "latin-1") if isinstance(header, str) else header
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return npy_header.MAGIC + bytes([version, 0]) + size + text + data


def described(descr: str = "'<f4'", order: str = "False", shape: str = "(1,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def read(data: bytes, assume: str | None = None) -> TensorMap:
    return read_file(Bytes(data, "bad.npy"), ReadOptions(assume))


ORDINARY = ["float32", "big_endian", "fortran", "big_endian_fortran", "scalar", "empty"]
ORDINARY += ["version1", "version2", "version3"]


@pytest.mark.parametrize("name", ORDINARY)
def test_fixture_reads_as_numpy_reads_it(name: str) -> None:
    expected = np.load(FIXTURES / f"{name}.npy")
    tensor = wt.open(FIXTURES / f"{name}.npy")[name]
    found = tensor.read()
    assert same_bits(found, expected.astype(expected.dtype.newbyteorder("=")))
    whole = np.concatenate([*tensor.blocks(5), np.empty(0, found.dtype)])
    assert same_bits(whole, found.reshape(-1))


@pytest.mark.parametrize("name", ["big_endian", "fortran", "big_endian_fortran"])
def test_rewriting_gives_numpys_bytes_for_the_plain_array(tmp_path: Path, name: str) -> None:
    wt.save(tmp_path / "ours.npy", wt.open(FIXTURES / f"{name}.npy"))
    array = np.load(FIXTURES / f"{name}.npy")
    np.save(tmp_path / "theirs.npy", np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))
    ours, theirs = np.load(tmp_path / "ours.npy"), np.load(tmp_path / "theirs.npy")
    assert same_bits(ours, theirs)


@pytest.mark.parametrize(
    ("name", "assume"), [("bfloat16_bare", "bfloat16"), ("bfloat16_bare", "bf16"), ("float8_bare", "float8_e4m3fn")]
)
def test_bare_void_elements_need_to_be_told(name: str, assume: str) -> None:
    path = FIXTURES / f"{name}.npy"
    with refused(UnsupportedError, "unsupported", "whose type it does not name", "--assume"):
        wt.open(path)
    expected = np.load(path).view(dtype(assume).numpy)
    assert same_bits(wt.open(path, assume=assume)[name].read(), expected)


def test_assumption_must_fit() -> None:
    data = made(described("'|V2'"), b"12")
    with refused(SpecError, "spec", "float32", "2 bytes"):
        read(data, "float32")
    with refused(SpecError, "unknown-dtype", "'nonsense'"):
        read(data, "nonsense")
    assert read(made(described(), b"1234"), "nonsense")["bad"].dtype.name == "float32"  # nothing was left to assume


@pytest.mark.parametrize("name", [name for name in DTYPES if name not in NUMPYS_OWN])
def test_types_without_a_name_in_numpy_keep_it_in_ours(tmp_path: Path, name: str) -> None:
    bits = np.arange(1 << min(8, DTYPES[name].bits), dtype=np.uint8).repeat(max(1, DTYPES[name].bits // 8))
    array = bits.view(DTYPES[name].numpy)
    wt.save(tmp_path / "a.npy", TensorMap.from_arrays({"a": array}))
    assert same_bits(wt.open(tmp_path / "a.npy")["a"].read(), array)
    theirs = np.load(tmp_path / "a.npy")
    assert theirs.dtype == np.dtype(f"V{array.itemsize}")
    assert same_bits(theirs.view(getattr(ml_dtypes, name)), array)


BAD: list[tuple[str, bytes, type[WeighttoolsError], str]] = [
    ("magic only", npy_header.MAGIC, CorruptFileError, "does not begin with an NPY header"),
    ("no length", npy_header.MAGIC + b"\1\0\x10", CorruptFileError, "does not begin with an NPY header"),
    ("version 0", made(described(), b"1234", 0), CorruptFileError, "expected version 1 to 3"),
    ("version 4", made(described(), b"1234", 4), CorruptFileError, "expected version 1 to 3"),
    ("version 255", made(described(), b"1234", 255), CorruptFileError, "expected version 1 to 3"),
    ("wide length cut", npy_header.MAGIC + b"\2\0\x10\0", CorruptFileError, "NPY header"),
    ("header past the end", made(described(), b"", 1, 500), CorruptFileError, "the file ends in its NPY header"),
    ("header of 4 GB", made(described(), b"", 2, 0xFFFFFFFF), CorruptFileError, "header is 4,294,967,295 bytes"),
    ("not UTF-8", made(b"{'\xff'}", version=3), CorruptFileError, "is not UTF-8"),
    ("empty header", made(""), CorruptFileError, "is not a dictionary"),
    ("no brace", made(described()[1:], b"1234"), CorruptFileError, "is not a dictionary"),
    ("no closing brace", made(described()[:-1], b"1234"), CorruptFileError, "is not a dictionary"),
    ("a call", made("__import__('os').system('x')"), CorruptFileError, "is not a dictionary"),
    ("a call in the shape", made(described(shape="(f(1),)"), b"1234"), CorruptFileError, "not a dictionary"),
    ("garbage behind", made(described() + "x", b"1234"), CorruptFileError, "is not a dictionary"),
    ("no shape", made("{'descr': '<f4', 'fortran_order': False}"), CorruptFileError, "is not a dictionary"),
    ("no descr", made("{'fortran_order': False, 'shape': (1,)}"), CorruptFileError, "is not a dictionary"),
    ("one key more", made(described()[:-1] + "'x': 'y'}", b"1234"), CorruptFileError, "is not a dictionary"),
    ("a key twice", made(described()[:-1] + "'descr': '<f8'}", b"1234"), CorruptFileError, "not a dictionary"),
    ("order is text", made(described(order="'True'"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("order is a tuple", made(described(order="()"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("order is a number", made(described(order="1"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("descr is a truth value", made(described("True"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("descr is a tuple", made(described("(1,)"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("shape is text", made(described(shape="'(1,)'"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("shape is a list", made(described(shape="[1]"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("shape is a number", made(described(shape="1"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("shape is a number in brackets", made(described(shape="(1)"), b"1234"), CorruptFileError, "not a dict"),
    ("shape without commas", made(described(shape="(1 1)"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("shape with two commas", made(described(shape="(1,,1)"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("side with a leading 0", made(described(shape="(01,)"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("side is negative", made(described(shape="(-1,)"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("side is a float", made(described(shape="(1.0,)"), b"1234"), CorruptFileError, "is not a dictionary"),
    ("side in other digits", made(described(shape="(١,)"), b"1234", 3), CorruptFileError, "is not a dictionary"),
    ("side of 5,000 digits", made(described(shape=f"({'9' * 5000},)"), b"1234"), CorruptFileError, "NPY header"),
    ("side of 2**63", made(described(shape=f"({1 << 63},)"), b"1234"), CorruptFileError, "is not possible"),
    ("side of 2**63 beside 0", made(described(shape=f"(0, {1 << 63})")), CorruptFileError, "is not possible"),
    ("65 axes", made(described(shape=f"({'1, ' * 65})"), b"1234"), CorruptFileError, "is not possible"),
    ("product beyond 2**64", made(described(shape=f"({1 << 40}, {1 << 40})")), CorruptFileError, "are missing of"),
    ("truncated", made(described(shape="(3,)"), b"12345"), CorruptFileError, "truncated: 7 bytes are missing of"),
    ("objects", made(described("'|O'"), bytes(8)), UnsafeFileError, "holds Python objects"),
    ("objects, byte order", made(described("'<O'"), bytes(8)), UnsafeFileError, "holds Python objects"),
    ("objects, no byte order", made(described("'O'"), bytes(8)), UnsafeFileError, "holds Python objects"),
    ("objects in fields", made(described("[('a', '|O'), ]"), bytes(8)), UnsafeFileError, "Python objects"),
    ("fields", made(described("[('a', '<f4'), ('b', '<i4')]"), bytes(8)), UnsupportedError, "no plain numbers"),
    ("text", made(described("'<U1'"), b"a\0\0\0"), UnsupportedError, "has the type '<U1', which holds no plain"),
    ("dates", made(described("'<M8[ns]'"), bytes(8)), UnsupportedError, "holds no plain numbers"),
    ("long double", made(described("'<f16'"), bytes(16)), UnsupportedError, "holds no plain numbers"),
    ("no type", made(described("''"), bytes(8)), UnsupportedError, "holds no plain numbers"),
    ("odd type", made(described("'<f3'"), bytes(8)), UnsupportedError, "holds no plain numbers"),
    ("escapes in the type", made(described("'\x1b[31m'"), bytes(8)), UnsupportedError, "no plain numbers"),
    ("void of 10", made(described("'|V10'"), bytes(10)), UnsupportedError, "holds no plain numbers"),
    ("void of 0", made(described("'|V0'"), bytes(10)), UnsupportedError, "holds no plain numbers"),
    ("void of 1", made(described("'|V1'"), b"1"), UnsupportedError, "--assume float8_e4m3fn"),
    ("void of 2", made(described("'|V2'"), b"12"), UnsupportedError, "--assume bfloat16"),
    ("named type that does not fit", made(described("'|V2'") + " # dtype: float32", b"12"), SpecError, "2 bytes"),
    ("named type unknown", made(described("'|V2'") + " # dtype: os.system", b"12"), CorruptFileError, "dictionary"),
    ("named type nobody knows", made(described("'|V2'") + " # dtype: nothing", b"12"), SpecError, "unknown dtype"),
]


@pytest.mark.parametrize(("data", "kind", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_file_is_refused_in_one_line(data: bytes, kind: type[WeighttoolsError], message: str) -> None:
    assert message in refusal(read_file, data, "bad.npy", kind)


ODD = [
    described().replace(" ", ""),
    " " + described() + " \n",
    described().replace("'", '"'),
    described(shape="(1L,)"),
    described(shape="( 1 , )"),
    described("'=f4'"),
    described("'<f4'", "True"),
    "{'shape': (1,), 'fortran_order': False, 'descr': '<f4'}",
]


@pytest.mark.parametrize("header", ODD)
def test_odd_but_legal_header_is_read(header: str) -> None:
    tensor = read(made(header, np.float32([2.5]).tobytes()))["bad"]
    assert tensor.read().tolist() == [2.5]


def test_what_follows_the_array_is_noted() -> None:
    assert read(made(described(), b"1234567")).origin.notes == ("3 bytes follow the array and are not read",)


TOKENS = [*"{}()[]'\",:# 01", "<f4", ">f4", "|V2", "|O", "True", "None", "L", "99999999999999999999", "\n", "\\"]


@given(st.lists(st.tuples(st.integers(0, 70), st.sampled_from(TOKENS), st.booleans()), min_size=1, max_size=3))
@example(edits=[(11, '"', False)])
@example(edits=[(59, "\n", False), (60, " ", False)])
@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")  # it is read
def test_what_ours_takes_numpy_takes(tmp_path_factory: Any, edits: list[tuple[int, str, bool]]) -> None:
    header = described(shape="(2, 3)")
    for at, patch, insert in edits:
        header = header[:at] + patch + header[at + (0 if insert else len(patch)) :]
    data = made(header, bytes(range(48)))
    try:
        tensor = read(data)["bad"]
    except WeighttoolsError:
        return
    path = tmp_path_factory.getbasetemp() / "mutant.npy"
    path.write_bytes(data)
    theirs = np.load(path)
    assert same_bits(tensor.read(), theirs.astype(theirs.dtype.newbyteorder("=")))


@given(st.lists(st.integers(0, 10**18), max_size=6), st.sampled_from(list(DTYPES)))
def test_headers_are_read_by_numpy_and_aligned(shape: list[int], name: str) -> None:
    data = npy_header.encode_header(Spec(DTYPES[name], tuple(shape)))
    assert len(data) % 64 == 0
    version = np.lib.format.read_magic(stream := io.BytesIO(data))
    assert version == (1, 0)
    found, fortran, descr = np.lib.format.read_array_header_1_0(stream)
    assert (found, fortran, descr.itemsize) == (tuple(shape), False, -(-DTYPES[name].bits // 8))
    header = npy_header.parse_header(lambda n: data[:n], "x")
    assert (header.shape, header.length) == (tuple(shape), len(data))
    assert npy_header.element_type(header, "x") == (DTYPES[name], "<")


def test_a_very_long_shape_takes_version_2() -> None:
    spec = Spec(DTYPES["float32"], (10**9,) * 6000)
    data = npy_header.encode_header(spec)
    assert np.lib.format.read_magic(io.BytesIO(data)) == (2, 0)
    assert len(data) % 64 == 0 and data.count(b"1000000000") == 6000


@pytest.mark.parametrize("n", [0, 2])
def test_one_array_a_file(tmp_path: Path, n: int) -> None:
    several = TensorMap.from_arrays({f"t{i}": np.zeros(1) for i in range(n)})
    with pytest.raises(SpecError, match=f"holds one array, not {n}; choose one with -i, or write .npz"):
        wt.save(tmp_path / "x.npy", several)
    assert not list(tmp_path.iterdir())


def test_losses_are_told() -> None:
    tensor_map = TensorMap.from_arrays({"a": np.zeros(1)}, {"format": "pt", "x": "y"}, {"tie": "a"})
    assert npy.losses(tensor_map) == [
        "NPY holds no metadata: format, x will be lost",
        "NPY holds no tied names: tie will be lost",
    ]


def test_a_row_in_fortran_order_reads_only_near_its_elements() -> None:
    array = np.asfortranarray(np.arange(40_000, dtype=np.float32).reshape(200, 200))
    np.save(buffer := io.BytesIO(), array)
    source = CountingSource(buffer.getvalue(), "x.npy")
    tensor = npy.read(source)["x"]
    source.reads.clear()
    np.testing.assert_array_equal(tensor[:, 7], array[:, 7])
    assert sum(length for _, length in source.reads) == 800  # a column lies in one piece
    source.reads.clear()
    np.testing.assert_array_equal(tensor[3, :5], array[3, :5])
    assert sum(length for _, length in source.reads) == 5 * 4
    assert math.prod(tensor.shape) == 40_000


def test_a_stream_of_arrays_is_read_whole(tmp_path: Path) -> None:
    """What `numpy.save` writes repeatedly to one file, as Equinox does with arrays, scalars and bools."""
    rng = np.random.default_rng(0)
    leaves = [rng.standard_normal((5, 3)).astype("f4"), np.float32(2.5), np.array(True), np.array(7), np.array(1 + 2j),
              np.asfortranarray(rng.standard_normal((3, 4))), np.zeros((0, 2), "i2"), np.arange(9, dtype=">i4"),
              *(np.full(i, i, "f2") for i in range(8))]  # fmt: skip
    path = tmp_path / "model.eqx"
    with open(path, "wb") as file:
        for leaf in leaves:
            np.save(file, leaf)
    found = wt.open(path)
    assert list(found) == [str(i) for i in range(16)] and found.origin.notes == ()
    with open(path, "rb") as file:
        for tensor in found.values():
            theirs = np.load(file)
            assert tensor.shape == theirs.shape and tensor.dtype.name == theirs.dtype.newbyteorder("=").name
            np.testing.assert_array_equal(tensor.read(), theirs)
    wt.convert(path, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as theirs:
        assert len(theirs.files) == 16
    assert "trailing-bytes" not in [f["code"] for f in wt.check(path)["findings"]]
    with open(path, "ab") as file:
        file.write(b"more")
    assert wt.open(path).origin.notes == ("4 bytes follow the arrays and are not read",)
    [finding] = [f for f in wt.check(path)["findings"] if f["code"] == "trailing-bytes"]
    assert finding["severity"] == "warning" and "4 bytes follow the last of 16 arrays" in finding["message"]


def test_a_stream_of_one_is_numbered_where_the_suffix_says_so(tmp_path: Path) -> None:
    for name, key in (("w.eqx", "0"), ("w.npy", "w")):
        with open(tmp_path / name, "wb") as file:
            np.save(file, np.ones(3))
        assert list(wt.open(tmp_path / name)) == [key]


def test_a_stream_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "a.eqx", "wb") as file:
        np.save(file, np.ones(3))
        np.save(file, np.ones(300))
        file.truncate(file.tell() - 5)
    with refused(CorruptFileError, "truncated", "5 bytes"):
        wt.open(tmp_path / "a.eqx")

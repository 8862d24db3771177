"""Broken and hostile safetensors files: each is refused in one line that says what is wrong."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

import weighttools as wt
from tests.strategies import ODD_NAMES
from weighttools.errors import CorruptFileError, UnknownFormatError, WeighttoolsError
from weighttools.formats import read_file
from weighttools.formats.safetensors import header as safetensors_header
from weighttools.io.source import Bytes

F32 = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


def pair(first: str, second: str, names: str = "ab") -> str:
    """A header of two records."""
    return f'{{"{names[0]}":{first},"{names[1]}":{second}}}'


def made(header: str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of this header, its length put before it."""
    text = header if isinstance(header, bytes) else header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(record: str, data: bytes = b"1234") -> bytes:
    """A file of one tensor, with this record."""
    return made('{"a":' + record + "}", data)


def fields(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> str:
    return json.dumps({"dtype": dtype, "shape": shape, "data_offsets": offsets})


def read(data: bytes) -> wt.TensorMap:
    return read_file(Bytes(data, "bad.safetensors"))


# What is wrong, the bytes, a part of the message, and whether the official reader refuses it too.
BAD: list[tuple[str, bytes, str, bool]] = [
    ("empty", b"", "is empty (0 bytes)", True),
    ("shorter than a length", b"\x10\0\0", "is 3 bytes long at byte 0; expected at least 8", True),
    ("seven bytes", bytes(7), "is 7 bytes long", True),
    ("length 0", bytes(8), "its header length is 0", True),
    ("length 1", made("{"), "its header length reads 1", True),
    ("length past the end", made('{"a":' + F32 + "}", b"", 500), "the file ends in its header, 446 bytes short", True),
    ("length of 100,000,001", made("{}", b"", 100_000_001), "expected 2 to 100,000,000", True),
    ("length of 2**64 - 1", b"\xff" * 8 + b"{}", "its header length reads 18,446,744,073,709,551,615", True),
    ("an array", made("[]"), "begins with '['", True),
    ("a string", made('"a"'), "begins with", True),
    ("null", made("null"), "begins with 'n'", True),
    ("byte order mark", made(b"\xef\xbb\xbf{}"), "begins with", True),
    ("not UTF-8", made(b'{"\xff":1}'), "is not UTF-8 (InvalidHeaderDeserialization) at byte 10", True),
    ("overlong UTF-8", made(b'{"\xc0\xaf":1}'), "is not UTF-8", True),
    ("UTF-8 of a surrogate", made(b'{"\xed\xa0\x80":1}'), "is not UTF-8", True),
    ("padded with NUL", made("{}\0\0\0\0\0\0"), "not JSON", True),
    ("trailing garbage", made("{}x"), "not JSON: Extra data (InvalidHeaderDeserialization) at byte 10", True),
    ("two objects", made("{}{}"), "Extra data", True),
    ("cut off", made('{"a":' + F32), "not JSON", True),
    ("cut off behind a comma", made('{"a":' + F32 + ",", b"1234"), "not JSON", True),
    ("closed twice", made('{"__metadata__":{"a":"b"}}"x":' + F32 + "}", b"1234"), "not JSON", True),
    ("comment", made('{/*c*/"a":' + F32 + "}", b"1234"), "not JSON", True),
    ("trailing comma", made('{"a":' + F32 + ",}", b"1234"), "not JSON", True),
    ("trailing comma in a shape", one('{"dtype":"F32","shape":[1,],"data_offsets":[0,4]}'), "not JSON", True),
    ("single quotes", made("{'a':" + F32 + "}", b"1234"), "not JSON", True),
    ("raw control character", made('{"a\n":' + F32 + "}", b"1234"), "not JSON: Invalid control character", True),
    ("lone surrogate in a name", made('{"\\ud800":' + F32 + "}", b"1234"), "surrogates not allowed", True),
    ("lone surrogate in metadata", made('{"__metadata__":{"a":"\\udc00"}}'), "surrogates not allowed", True),
    ("nested deeply", made('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"), "nested too deeply", True),
    ("nested deeply in metadata", made('{"__metadata__":' + '{"a":' * 50_000 + "1" + "}" * 50_001), "nested too", True),
    ("a number of 5,000 digits", one(fields(offsets=(0, 4)).replace("4]", "9" * 5000 + "]")), "cannot be read", True),
    ("no dtype", one('{"shape":[1],"data_offsets":[0,4]}'), "record of tensor 'a' is not well formed", True),
    ("no shape", one('{"dtype":"F32","data_offsets":[0,4]}'), "record of tensor 'a' is not well formed", True),
    ("no offsets", one('{"dtype":"F32","shape":[1]}'), "record of tensor 'a' is not well formed", True),
    ("empty record", one("{}"), "record of tensor 'a' is not well formed", True),
    ("dtype twice", one(F32[:-1] + ',"dtype":"F32"}'), "not well formed", True),
    ("dtype twice, no shape", one('{"dtype":"F32","dtype":"F32","data_offsets":[0,4]}'), "not well formed", True),
    ("record is a number", one("1"), "not well formed", True),
    ("record is null", one("null"), "not well formed", True),
    ("record is a string", one('"abc"'), "not well formed", True),
    ("one offset", one(fields(offsets=[0])), "not well formed", True),
    ("three offsets", one(fields(offsets=[0, 4, 8])), "not well formed", True),
    ("offsets are an object", one(fields(offsets={"0": 0, "4": 4})), "not well formed", True),
    ("offsets are a string", one(fields(offsets="04")), "not well formed", True),
    ("offset is text", one(fields(offsets=["0", "4"])), "not well formed", True),
    ("offset is a float", one(fields(offsets=[0, 4.0])), "4.0 is not a whole number", True),
    ("offset is 4e0", one('{"dtype":"F32","shape":[1],"data_offsets":[0,4e0]}'), "4e0 is not a whole number", True),
    ("offset is true", one(fields("U8", [1], [False, True]), b"1"), "is not a whole number", True),
    ("offset is null", one(fields(offsets=[None, 4])), "not well formed", True),
    ("offset is negative", one(fields(offsets=[-4, 0])), "not well formed", True),
    ("offset is NaN", one('{"dtype":"F32","shape":[1],"data_offsets":[0,NaN]}'), "NaN is not a whole number", True),
    ("offset with a leading 0", one('{"dtype":"F32","shape":[1],"data_offsets":[0,04]}'), "not JSON", True),
    ("end before begin", one(fields("U8", [0], [4, 0])), "not well formed", True),
    ("shape is a number", one(fields(shape=1)), "not well formed", True),
    ("shape is null", one(fields(shape=None)), "not well formed", True),
    ("shape is a string", one(fields(shape="1")), "not well formed", True),
    ("shape is an object", one(fields(shape={})), "not well formed", True),
    ("side is negative", one(fields(shape=[-1])), "has the shape [-1]", True),
    ("side is a float", one(fields(shape=[1.0])), "1.0 is not a whole number", True),
    ("side is Infinity", one('{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}'), "Infinity is not a", True),
    ("side is true", one(fields(shape=[True])), "true is not a whole number", True),
    ("side is text", one(fields(shape=["1"])), "has the shape ['1']", True),
    ("side is a list", one(fields(shape=[[1]])), "not well formed", True),
    ("side of 2**64", one(fields(shape=[1 << 64])), "overflows", True),
    ("product of 2**64", one(fields(shape=[1 << 32, 1 << 32])), "overflows (ValidationOverflow)", True),
    ("unknown dtype", one(fields("F31")), "unknown dtype 'F31' at byte 8; expected one of BOOL", True),
    ("lower-case dtype", one(fields("f32")), "unknown dtype 'f32'", True),
    ("dtype is a number", one(fields(32)), "unknown dtype 32", True),
    ("dtype is null", one(fields(None)), "unknown dtype None", True),
    ("dtype is a list", one(fields(["F32"])), "not well formed", True),
    ("dtype in metadata's place", made('{"__metadata__":' + F32 + "}", b"1234"), "not an object of strings", True),
    ("metadata is a list", made('{"__metadata__":[]}'), "__metadata__ is not an object of strings", True),
    ("metadata is a string", made('{"__metadata__":"pt"}'), "__metadata__ is not an object of strings", True),
    ("metadata holds a number", made('{"__metadata__":{"step":1}}'), "not an object of strings", True),
    ("metadata holds null", made('{"__metadata__":{"step":null}}'), "not an object of strings", True),
    ("metadata holds an object", made('{"__metadata__":{"a":{"b":"c"}}}'), "not an object of strings", True),
    ("hole before the first", one(fields(offsets=[4, 8]), b"12345678"), "leaves a hole of 4 bytes", True),
    ("hole between", made(pair(F32, fields(offsets=[8, 12])), bytes(12)), "hole of 4 bytes", True),
    ("overlap", made(pair(F32, fields(offsets=[2, 6])), bytes(6)), "'b' overlaps the one be", True),
    ("two names for the same bytes", made(pair(F32, F32), b"1234"), "overlaps", True),
    ("too few bytes for the shape", one(fields(shape=[2])), "has 4 bytes (TensorInvalidInfo)", True),
    ("too many bytes for the shape", one(fields(shape=[])[:-2] + "8]}", b"12345678"), "expected 4 bytes", True),
    ("scalar without bytes", one(fields(shape=[], offsets=[0, 0]), b""), "has 0 bytes", True),
    ("truncated", one(fields(shape=[3], offsets=[0, 12]), b"12345"), "truncated: 7 bytes are missing of 81", True),
    ("all data missing", one(F32, b""), "truncated: 4 bytes are missing", True),
    ("a byte too many", one(F32, b"12345"), "1 bytes follow the last tensor", True),
    ("data without tensors", made("{}", b"x"), "1 bytes follow the last tensor", True),
    ("odd count of F4", one(fields("F4", [3], [0, 2]), b"12"), "does not fill whole bytes", True),
    ("three F6", one(fields("F6_E2M3", [3], [0, 3]), b"123"), "does not fill whole bytes", True),
    ("one F4", one(fields("F4", [], [0, 1]), b"1"), "does not fill whole bytes", True),
    # Here the official reader lets through what is ambiguous, or no header by its own documentation; ours does not.
    ("leading space", made(" {}"), "begins with ' '", False),
    ("a name twice", made(pair(F32, F32, "aa"), b"1234"), "has two entries 'a'", False),
    ("a metadata key twice", made('{"__metadata__":{"k":"1","k":"2"}}'), "two entries 'k'", False),
    ("metadata twice", made('{"__metadata__":{},"__metadata__":{}}'), "two entries '__metadata__'", True),
    ("metadata is null", made('{"__metadata__":null,"a":' + F32 + "}", b"1234"), "not an object of strings", False),
    ("unknown field", one(F32[:-1] + ',"strides":[1]}'), "record of tensor 'a' is not well formed", False),
    ("record is an array", one('["F32",[1],[0,4]]'), "not well formed", False),
    ("parts overflow beside a 0", one(fields(shape=[1 << 33, 1 << 33, 0], offsets=[0, 0]), b""), "overflows", True),
    ("parts overflow behind a 0", one(fields(shape=[0, 1 << 64], offsets=[0, 0]), b""), "overflows", True),
]


@pytest.mark.parametrize(("data", "message"), [row[1:3] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_file_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(CorruptFileError) as caught:
        read(data)
    line = str(caught.value)
    assert line.startswith("bad.safetensors: ") and line.isprintable()
    assert message in line
    assert len(line) < 600


@pytest.mark.parametrize(("data", "refused"), [(row[1], row[3]) for row in BAD], ids=[row[0] for row in BAD])
def test_differences_from_the_official_reader(data: bytes, refused: bool) -> None:
    try:
        deserialize(data)
    except SafetensorError:
        assert refused
    else:
        assert not refused


# What the official reader refuses or takes, and ours takes: legal, though odd.
ODD: list[tuple[str, bytes, dict[str, tuple[int, ...]]]] = [
    ("no tensors", made("{}"), {}),
    ("padding", made("{}      "), {}),
    ("padding of other white space", made("{} \n\t\r"), {}),
    ("metadata only", made('{"__metadata__":{"format":"pt"}}'), {}),
    ("empty metadata", made('{"__metadata__":{},"a":' + F32 + "}", b"1234"), {"a": (1,)}),
    ("unaligned", made('{"a":' + F32 + " }", b"1234"), {"a": (1,)}),
    ("fields in another order", one('{"data_offsets":[0,4],"shape":[1],"dtype":"F32"}'), {"a": (1,)}),
    (
        "white space",
        made('{ "a" : { "dtype" : "F32" , "shape" : [ 1 ] , "data_offsets" : [ 0 , 4 ] } }', b"1234"),
        {"a": (1,)},
    ),
    ("escaped name", made('{"\\u0061\\ud83e\\udde0":' + F32 + "}", b"1234"), {"a🧠": (1,)}),
    ("escaped dtype", one('{"dtype":"\\u004632","shape":[1],"data_offsets":[0,4]}'), {"a": (1,)}),
    ("empty name", made('{"":' + F32 + "}", b"1234"), {"": (1,)}),
    ("NUL in a name", made('{"\\u0000":' + F32 + "}", b"1234"), {"\0": (1,)}),
    ("metadata last", made('{"a":' + F32 + ',"__metadata__":{"k":"v"}}', b"1234"), {"a": (1,)}),
    (
        "data in another order",
        made(pair(fields(offsets=[4, 8]), F32, "ba"), bytes(8)),
        {"a": (1,), "b": (1,)},
    ),
    (
        "zero-size tensors at one place",
        made(pair(*(fields(shape=[0], offsets=[0, 0]),) * 2)),
        {"a": (0,), "b": (0,)},
    ),
    (
        "zero-size behind the last",
        made(pair(F32, fields("F64", [9, 0], [4, 4])), b"1234"),
        {"a": (1,), "b": (9, 0)},
    ),
    ("70 axes", one(fields(shape=[1] * 70)), {"a": (1,) * 70}),
    ("a side of 2**63 beside a 0", one(fields(shape=[0, 1 << 63], offsets=[0, 0]), b""), {"a": (0, 1 << 63)}),
]


@pytest.mark.parametrize(("data", "shapes"), [row[1:] for row in ODD], ids=[row[0] for row in ODD])
def test_odd_but_legal_file_is_read(data: bytes, shapes: dict[str, tuple[int, ...]]) -> None:
    found = read(data)
    assert {name: tensor.shape for name, tensor in found.items()} == shapes
    assert {name: tuple(tensor["shape"]) for name, tensor in deserialize(data)} == shapes


@pytest.mark.parametrize("shape", [[1] * 70, [0, 1 << 63]])
def test_a_shape_that_numpy_cannot_hold_is_an_error_of_ours(shape: list[int]) -> None:
    n = 0 if 0 in shape else 4
    tensor = read(one(fields(shape=shape, offsets=[0, n]), bytes(n)))["a"]
    with pytest.raises(WeighttoolsError, match="shape"):
        tensor.read()
    assert sum(block.size for block in tensor.blocks()) == n // 4


def test_header_limit_is_the_official_one() -> None:
    names = ",".join(f'"{i:01000d}":' + fields("U8", [0], [0, 0]) for i in range(3))
    fits = made("{" + names + "}")
    assert len(read(fits)) == 3
    limit = safetensors_header.MAX_HEADER
    assert limit == 100_000_000
    for length, refused in ((limit, False), (limit + 1, True)):
        data = made(b"{}".ljust(length))
        with pytest.raises(CorruptFileError, match="header length reads") if refused else nullcontext():
            read(data)
        with pytest.raises(SafetensorError, match="too large") if refused else nullcontext():
            deserialize(data)


# -- files that are something else


def torch_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")


STRANGERS: list[tuple[str, bytes, str]] = [
    ("git-LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4900000000\n",
     "is a git-LFS pointer to 4,900,000,000 bytes, not the file itself; run: git lfs pull"),
    ("git-LFS pointer without size", b"version https://git-lfs.github.com/spec/v1\n", "git-LFS pointer; run: git"),
    ("HTML page", b"<!DOCTYPE html><html><body>Sign in</body></html>", "is an HTML page, not weights"),
    ("HTML page after white space", b"\xef\xbb\xbf\n <HTML>", "is an HTML page"),
    ("JSON", b'{"error":"Repository not found"}', "is JSON text, not weights"),
    ("gzip", b"\x1f\x8b\x08" + bytes(20), "is gzip-compressed"),
    ("PDF", b"%PDF-1.7", "is a PDF document"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), [row[1:] for row in STRANGERS], ids=[row[0] for row in STRANGERS])
def test_stranger_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    for name in ("model.safetensors", "model.dat"):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(UnknownFormatError) as caught:
            wt.open(path)
        assert message in str(caught.value)


@pytest.mark.parametrize("name", ["weights.dat", "pytorch_model.bin"])
def test_random_bytes_are_of_no_known_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xfe\x81" * 50)
    with pytest.raises(UnknownFormatError, match="is of no known format"):
        wt.open(path)


def test_empty_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(CorruptFileError, match=r"is empty \(0 bytes\); fetch the file again"):
        wt.open(path)


def test_torch_zip_named_safetensors_is_seen_for_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch_zip(path)
    tensor_map = wt.open(path)
    assert tensor_map.origin.format == "pytorch"
    assert tensor_map.origin.notes[-1] == "named .safetensors, but its content is pytorch: read as that"


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".bin", ""])
def test_wrong_suffix_is_read_by_content_and_said(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(one(F32))
    tensor_map = wt.open(path)
    assert tensor_map.origin.format == "safetensors" and list(tensor_map) == ["a"]
    noted = suffix in (".npz", ".npy", ".bin")
    assert list(tensor_map.origin.notes) == (
        [f"named {suffix}, but its content is safetensors: read as that"] if noted else []
    )


# -- the two ways through a header


def both(text: str, n_data: int) -> tuple[object, object]:
    """What the fast way and the careful way make of a header: their result, or None where it is refused."""
    source = Bytes(made(text, bytes(n_data)), "x")
    try:
        careful: object = safetensors_header.checked(text, source, 8 + len(text.encode()))
    except CorruptFileError:
        careful = None
    return safetensors_header.canonical(text, source, 8 + len(text.encode())), careful


RECORDS = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(ODD_NAMES), st.text(max_size=3)),
        st.sampled_from(["F32", "U8", "BF16", "F4", "X", "f32", "F6_E2M3"]),
        st.lists(st.integers(0, 3), max_size=3),
        st.sampled_from([0, 0, 0, 0, 1, -1]),
    ),
    max_size=4,
)
METADATA = st.one_of(st.none(), st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3))
PATCHES = [*'{}[]",:0 19-\\e.', "", '"a"', "01", "\\u0061", ",,", "}}"]
EDIT = st.tuples(st.integers(0, 400), st.sampled_from(PATCHES))
EDITS = st.lists(EDIT, max_size=2)


def header_text(records: list[tuple[str, str, list[int], int]], metadata: dict[str, str] | None) -> str:
    entries: list[str] = []
    if metadata is not None:
        entries.append('"__metadata__":' + json.dumps(metadata, separators=(",", ":"), ensure_ascii=False))
    at = 0
    for name, code, shape, error in records:
        size = {"F32": 4, "BF16": 2}.get(code, 1)
        for n in shape:
            size *= n
        record = {"dtype": code, "shape": shape, "data_offsets": [at, at + size + error]}
        entries.append(json.dumps(name, ensure_ascii=False) + ":" + json.dumps(record, separators=(",", ":")))
        at += size
    return "{" + ",".join(entries) + "}"


@given(RECORDS, METADATA, EDITS, st.sampled_from(["", "  ", ",", "}", "\n"]))
@example([("a", "F32", [1], 0)], None, [], ",").via("a header without its closing brace")
@example([("a", "F32", [1], 0)], {"k": "v"}, [(26, "}")], "").via("metadata closed twice")
@example([("a", "F32", [1], 0), ("a", "F32", [1], 0)], None, [], "")
@example([("__metadata__", "F32", [1], 0)], None, [], "")
def test_fast_way_gives_what_the_careful_way_gives_or_nothing(
    records: list[tuple[str, str, list[int], int]],
    metadata: dict[str, str] | None,
    edits: list[tuple[int, str]],
    tail: str,
) -> None:
    text = (header_text(records, metadata) + tail).encode("utf-8", "replace").decode()
    for at, patch in edits:
        text = text[:at] + patch + text[at + len(patch) :]
    if not text.startswith("{"):
        return  # the reader refuses it before
    fast, careful = both(text, 64)
    assert fast is None or fast == careful
    if fast is not None:
        assert list(fast[1]) == list(careful[1])  # type: ignore[index]


def test_fast_way_is_taken_for_what_the_official_writer_writes() -> None:
    text = header_text([("b", "F32", [2], 0), ("a", "U8", [], 0)], {"format": "pt"})
    for padded in (text, text.ljust(len(text) + 5)):
        fast, careful = both(padded, 9)
        assert fast is not None and fast == careful


def test_official_and_ours_agree_on_mutated_files(tmp_path: Path) -> None:
    """Whatever ours takes, the official reader takes, with the same names, dtypes, shapes and bytes."""
    text = header_text([("b", "F32", [2], 0), ("a", "U8", [3], 0)], {"format": "pt"})

    @given(st.lists(EDIT, min_size=1, max_size=3), st.sampled_from([10, 11, 12]))
    def check(edits: list[tuple[int, str]], n_data: int) -> None:
        changed = text
        for at, patch in edits:
            changed = changed[:at] + patch + changed[at + len(patch) :]
        data = made(changed, bytes(range(n_data)))
        try:
            ours = read(data)
        except WeighttoolsError:
            return
        official = {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in deserialize(data)}
        assert sorted(ours) == sorted(official)
        for name, tensor in ours.items():
            assert tensor.stored is not None
            raw = tensor.stored.source.read(tensor.stored.offset, tensor.stored.length)
            assert (safetensors_header.CODES[tensor.dtype.name], tensor.shape, raw) == official[name]

    check()


def test_kinds_of_error_are_ours() -> None:
    hostile: list[Callable[[], object]] = [lambda: read(made('{"a":' + "9" * 10_000 + "}"))]
    for call in hostile:
        with pytest.raises(CorruptFileError):
            call()

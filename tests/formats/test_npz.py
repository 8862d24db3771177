"""NPZ against numpy, and archives that lie."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests import strategies
from tests.formats.conformance import Arrays, FormatConformance
from tests.formats.refusals import refusal
from tests.formats.test_npy import NUMPYS_OWN, described, made
from tests.refused import refused
from tests.sources import CountingSource
from tests.strategies import assert_same, random_array, same_bits
from weighttools.core import budgets
from weighttools.core.dtypes import DTYPES
from weighttools.core.tensormap import TensorMap
from weighttools.errors import (
    CorruptFileError,
    SourceError,
    SpecError,
    UnsafeFileError,
    UnsupportedError,
    WeighttoolsError,
)
from weighttools.formats import read_file
from weighttools.formats.base import ReadOptions, WriteOptions
from weighttools.formats.numpy import npz
from weighttools.io import archive, zip_writer
from weighttools.io.source import Bytes

FIXTURES = Path(__file__).parents[2] / "fixtures" / "npz"


class TestNpz(FormatConformance):
    format_name, suffix = "npz", ".npz"
    dtypes = tuple(DTYPES)
    golden_dtypes = tuple(NUMPYS_OWN)
    whole_bytes = False
    header_without_numpy = True

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        np.savez(path, **arrays)

    def golden_read(self, path: Path) -> Arrays:
        with np.load(path) as archive:
            return dict(archive.items())


class TestCompressedNpz(TestNpz):
    large_bytes = 8 << 20  # a deflated member is had whole
    memory_limit = 40 << 20

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        np.savez_compressed(path, **arrays)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of these members, by the standard library."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def saved(array: Any) -> bytes:
    np.save(buffer := io.BytesIO(), array)
    return buffer.getvalue()


ONE = saved(np.float32([1, 2]))


def read(data: bytes, assume: str | None = None) -> TensorMap:
    return read_file(Bytes(data, "bad.npz"), ReadOptions(assume))


def patched(data: bytes, signature: bytes, offset: int, field: bytes, nth: int = 0) -> bytes:
    """Overwrite a field of the nth record that begins with `signature`."""
    at = -1
    for _ in range(nth + 1):
        at = data.index(signature, at + 1)
    return data[: at + offset] + field + data[at + offset + len(field) :]


LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def u16(n: int) -> bytes:
    return struct.pack("<H", n)


def u32(n: int) -> bytes:
    return struct.pack("<I", n)


@pytest.mark.parametrize("name", ["plain", "compressed"])
def test_fixture_reads_as_numpy_reads_it(name: str) -> None:
    with np.load(FIXTURES / f"{name}.npz") as archive:
        expected = {key: array.astype(array.dtype.newbyteorder("=")) for key, array in archive.items()}
    found = wt.open(FIXTURES / f"{name}.npz")
    assert list(found) == list(expected)
    assert_same(found.read(), expected)
    assert all((t.spec.encoding == "deflate") == (name == "compressed") for t in found.values() if t.shape == (12,))


def test_bare_bfloat16_needs_to_be_told() -> None:
    path = FIXTURES / "bfloat16_bare.npz"
    with refused(UnsupportedError, "unsupported", "w.npy", "2-byte", "--assume bfloat16"):
        wt.open(path)
    with np.load(path) as archive:
        expected = archive["w"].view(DTYPES["bfloat16"].numpy)
    assert same_bits(wt.open(path, assume="bfloat16")["w"].read(), expected)


def test_members_without_the_suffix_and_text_members(tmp_path: Path) -> None:
    data = zipped({"plain": ONE, "names.npy": saved(np.array(["a"])), "when.npy": saved(np.array(0, "M8[s]"))})
    found = read(data)
    assert found["plain"].read().tolist() == [1, 2]
    assert list(found) == ["plain"]
    assert [note.split(":")[0] for note in found.origin.notes] == [
        "member 'names.npy' has the type '<U1', which holds no plain numbers",
        "member 'when.npy' has the type '<M8[s]', which holds no plain numbers",
    ]


@given(strategies.tensor_maps(strategies.arrays(), min_size=1), st.sampled_from([zip_writer._ZIP64_FROM, 1]))
def test_members_are_aligned_and_zip64_is_read_by_numpy(
    tmp_path_factory: pytest.TempPathFactory, tensor_map: TensorMap, threshold: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "aligned.npz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zip_writer, "_ZIP64_FROM", threshold)
        data = TestNpz().write(tensor_map, path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert (b"\x01\x00\x10\x00" in data) >= (threshold == 1)
    found = read_file(Bytes(data, "x.npz"))
    for name, tensor in found.items():
        assert tensor.stored is not None and tensor.stored.offset % 64 == 0, name
    with zipfile.ZipFile(path) as archive:  # numpy.load would take "a.npy" for "a"
        for name, tensor in tensor_map.items():
            with archive.open(f"{name}.npy") as stream:
                assert np.lib.format.read_array(stream).tobytes() == tensor.read().tobytes()


def test_archive_on_a_stream_that_cannot_seek_is_read(tmp_path: Path) -> None:
    """As to a pipe: sizes follow the members, in data descriptors."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            super().__init__()
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += bytes(data)
            return len(bytes(data))

        def reserve(self, n_bytes: int) -> None:
            pass

    pipe = Pipe()
    arrays = {"a": np.arange(5), "b": np.float32(3)}
    npz.write(TensorMap.from_arrays(arrays), pipe, WriteOptions(threads=1))  # type: ignore[arg-type]
    assert_same(read(bytes(pipe.data)).read(), {k: np.asarray(v) for k, v in arrays.items()})


def test_empty_map(tmp_path: Path) -> None:
    TestNpz().write(TensorMap.from_arrays({}), tmp_path / "x.npz")
    assert len(wt.open(tmp_path / "x.npz")) == 0
    with np.load(tmp_path / "x.npz") as archive:
        assert not archive.files


@pytest.mark.parametrize("name", ["__weighttools__", "a\0b", "\ud800", "x" * 65_001])
def test_names_that_a_zip_cannot_hold(tmp_path: Path, name: str) -> None:
    with refused(SpecError, "cannot-hold"):
        TestNpz().write(TensorMap.from_arrays({name: np.zeros(1)}), tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


def test_metadata_of_any_json_survives(tmp_path: Path) -> None:
    metadata = {"step": 3, "nested": {"a": [1, None, True, 0.5, "é"]}, "text": "\u2028"}
    tensor_map = TensorMap.from_arrays({"a": np.zeros(1)}, metadata, {"tie": "a"})
    TestNpz().write(tensor_map, tmp_path / "x.npz")
    found = wt.open(tmp_path / "x.npz")
    assert dict(found.metadata) == metadata and dict(found.aliases) == {"tie": "a"}
    with np.load(tmp_path / "x.npz") as archive:
        assert json.loads(archive["__weighttools__"].tobytes())["metadata"] == metadata


def sidecar(record: object) -> bytes:
    text = record if isinstance(record, bytes) else json.dumps(record).encode()
    return zipped({"a.npy": ONE, "__weighttools__.npy": saved(np.frombuffer(text, np.uint8))})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"{", "is not valid JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b'{"metadata": ' * 50_000, "nested too deeply"),
        (b"\xff", "is not valid JSON"),
        ({"metadata": []}, "does not hold metadata and aliases as objects"),
        ({"aliases": "a"}, "does not hold metadata and aliases as objects"),
        ({"aliases": {"b": "none"}}, "ties 'b' to 'none'"),
        ({"aliases": {"a": "a"}}, "ties 'a' to 'a'"),
        ({"aliases": {"b": ["a"]}}, "ties 'b' to ['a']"),
        ({"aliases": {"b": 3}}, "ties 'b' to 3"),
    ],
)
def test_broken_sidecar(record: object, message: str) -> None:
    with pytest.raises(CorruptFileError) as caught:
        read(sidecar(record))
    assert message in str(caught.value) and "__weighttools__.npy" in str(caught.value)


def test_sidecar_that_would_inflate_to_much() -> None:
    side = saved(np.full(budgets.SIDECAR_BYTES, ord(" "), np.uint8))
    data = zipped({"a.npy": ONE, "__weighttools__.npy": side}, zipfile.ZIP_DEFLATED)
    assert len(data) < 100_000
    with refused(UnsafeFileError, "inflates-without-measure", "16,000,128", "16,000,000"):
        read(data)


TWO = zipped({"a.npy": ONE, "b.npy": ONE})
SQUEEZED = zipped({"a.npy": saved(np.zeros(500))}, zipfile.ZIP_DEFLATED)

BAD: list[tuple[str, bytes, type[WeighttoolsError], str]] = [
    ("end record gone", TWO[: TWO.index(END)], CorruptFileError, "the zip directory at its end cannot be read"),
    ("garbage behind", TWO + b"x" * 70_000, CorruptFileError, "cannot be read"),
    ("directory size", patched(TWO, END, 12, u32(0xFFFFFFF0)), CorruptFileError, "cannot be read"),
    ("directory offset", patched(TWO, END, 16, u32(0xFFFFFFF0)), CorruptFileError, ""),
    ("directory signature", patched(TWO, CENTRAL, 0, b"XXXX"), CorruptFileError, "cannot be read"),
    ("name past the directory", patched(TWO, CENTRAL, 28, u16(60_000)), CorruptFileError, ""),
    ("version 9.9", patched(TWO, CENTRAL, 6, u16(99)), CorruptFileError, "zip file version 9.9"),
    ("encrypted", patched(TWO, CENTRAL, 8, u16(1)), UnsafeFileError, "'a.npy' is encrypted"),
    ("encrypted in the local header only", patched(TWO, LOCAL, 6, u16(1)), CorruptFileError, "local header"),
    ("bzip2", zipped({"a.npy": ONE}, zipfile.ZIP_BZIP2), UnsupportedError, "uses compression method 12"),
    ("lzma", zipped({"a.npy": ONE}, zipfile.ZIP_LZMA), UnsupportedError, "uses compression method 14"),
    ("local name", patched(TWO, LOCAL, 30, b"X"), CorruptFileError, "'a.npy' is 'X.npy' in its local header"),
    ("local name length", patched(TWO, LOCAL, 26, u16(60_000), 1), CorruptFileError, "has no local header"),
    ("local method", patched(TWO, LOCAL, 8, u16(8)), CorruptFileError, "in its local header"),
    ("local signature", patched(TWO, LOCAL, 0, b"PK\x03\x05", 1), CorruptFileError, "has no local header"),
    ("local extra past the data", patched(TWO, LOCAL, 28, u16(60_000)), CorruptFileError, "more than the file holds"),
    ("begins outside", patched(TWO, CENTRAL, 42, u32(0xFFFFFF)), CorruptFileError, "begins outside the file"),
    ("begins at another", patched(TWO, CENTRAL, 42, u32(0), 1), CorruptFileError, "'b.npy' is 'a.npy' in its local"),
    ("claims more", patched(TWO, CENTRAL, 20, u32(9999) * 2, 1), CorruptFileError, "claims 9,999 bytes, more than"),
    ("sizes differ", patched(TWO, CENTRAL, 24, u32(9999)), CorruptFileError, "more than the file holds"),
    ("two names alike", TWO.replace(b"b.npy", b"a.npy"), UnsafeFileError, "two archive members are called 'a.npy'"),
    ("two tensors alike", zipped({"a": ONE, "a.npy": ONE}), CorruptFileError, "two members are the tensor 'a'"),
    ("objects", zipped({"a.npy": saved(np.array([{}]))}), UnsafeFileError, "a.npy: holds Python objects"),
    ("objects beside numbers", zipped({"a.npy": ONE, "o.npy": saved(np.array([{}]))}), UnsafeFileError, "o.npy"),
    ("no array", zipped({"a.npy": b"hello"}), CorruptFileError, "a.npy: does not begin with an NPY header"),
    ("empty member", zipped({"a.npy": b""}), CorruptFileError, "a.npy: does not begin with an NPY header"),
    ("empty deflated member", zipped({"a.npy": b""}, 8), CorruptFileError, "does not begin with an NPY header"),
    ("cut array", zipped({"a.npy": ONE[:-3]}), CorruptFileError, "a.npy: truncated: 3 bytes are missing"),
    ("cut header", zipped({"a.npy": ONE[:50]}), CorruptFileError, "a.npy: the file ends in its NPY header"),
    ("a folder with content", zipped({"a.npy": ONE, "b/": ONE[:9]}), CorruptFileError, "b/: does not begin with"),
    ("no name", zipped({"a.npy": ONE, "b.npy": b"x"}), CorruptFileError, "does not begin with an NPY header"),
    ("name not UTF-8", patched(patched(TWO, CENTRAL, 8, u16(0x800)), CENTRAL, 46, b"\xff"), CorruptFileError, ""),
]  # fmt: skip


@pytest.mark.parametrize(("data", "kind", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_archive_is_refused_in_one_line(data: bytes, kind: type[WeighttoolsError], message: str) -> None:
    assert message in refusal(read_file, data, "bad.npz", kind)


def test_folders_without_content_are_passed_over() -> None:
    assert list(read(zipped({"a.npy": ONE, "folder/": b""}))) == ["a"]
    nameless = zipped({"a.npy": ONE, "": ONE})
    assert sorted(read(nameless)) == ["", "a"]


def test_overlapping_members_are_refused() -> None:
    """A zip bomb of overlaps: one big member is quoted inside another's data."""
    inner = zipped({"b.npy": ONE})
    inner_local = inner[: inner.index(CENTRAL)]
    outer = zipped({"a.npy": saved(np.frombuffer(inner_local, np.uint8))})
    entry_b = inner[inner.index(CENTRAL) : inner.index(END)]
    at = outer.index(inner_local)
    entry_b = entry_b[:42] + u32(at) + entry_b[46:]
    directory = outer[outer.index(CENTRAL) : outer.index(END)] + entry_b
    begin = outer.index(CENTRAL)
    end = END + struct.pack("<HHHHIIH", 0, 0, 2, 2, len(directory), begin, 0)
    data = outer[:begin] + directory + end
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["a.npy", "b.npy"]
    with refused(UnsafeFileError, "overlap", "'a.npy'", "'b.npy'"):
        read(data)


@pytest.mark.parametrize("declared", [100, 4127])
def test_member_that_inflates_past_its_size(declared: int) -> None:
    data = patched(SQUEEZED, CENTRAL, 24, u32(declared))
    with pytest.raises(CorruptFileError, match=r"inflates past its declared|truncated|ends in its NPY header"):
        read(data)["a"].read()


def test_member_that_inflates_short() -> None:
    data = patched(SQUEEZED, CENTRAL, 24, u32(4128 + 100))
    with refused(CorruptFileError, "damaged-member", "inflates to 4,128", "4,228 bytes"):
        read(data)["a"].read()


def test_member_with_more_behind_its_array_than_declared() -> None:
    data = patched(zipped({"a.npy": saved(np.zeros(500)) + bytes(1000)}, 8), CENTRAL, 24, u32(4500))
    with refused(CorruptFileError, "damaged-member", "inflates past", "4,500 bytes"):
        read(data)["a"].read()


@given(st.binary(max_size=300), st.integers(0, 700), st.integers(1, 40))
def test_inflating_in_small_steps_gives_all(seed: bytes, zeros: int, step: int) -> None:
    """Whatever zlib holds back when a step is full comes with the next, or at the end."""
    content = seed + bytes(zeros)
    source = Bytes(zipped({"x": content}, zipfile.ZIP_DEFLATED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "_INFLATE_CHUNK", step)
        member = archive.members(source)["x"]
        assert member.content() == content == b"".join(member.chunks())
        assert content.startswith(member.head(50)) and len(member.head(50)) <= 50


@pytest.mark.parametrize("nth", range(4))
def test_failing_disk_is_not_called_a_damaged_archive(nth: int) -> None:
    class Failing(CountingSource):
        def read(self, offset: int, length: int) -> bytes:
            if len(self.reads) == nth:
                raise SourceError("read failed: Input/output error", subject=self.name)
            return super().read(offset, length)

    with pytest.raises(SourceError, match="read failed"):
        npz.read(Failing(TWO))


def test_member_with_a_wrong_checksum() -> None:
    crc = struct.unpack("<I", SQUEEZED[14:18])[0]
    data = patched(SQUEEZED, CENTRAL, 16, u32(crc ^ 1))
    with refused(CorruptFileError, "damaged-member", "its CRC-32 is"):
        read(data)["a"].read()


def test_member_that_does_not_inflate() -> None:
    at = SQUEEZED.index(b"a.npy") + 5
    data = SQUEEZED[:at] + b"\xff\xff\xff\xff" + SQUEEZED[at + 4 :]
    with refused(CorruptFileError, "damaged-member", "does not inflate"):
        read(data)


def test_a_bomb_is_opened_cheaply() -> None:
    """A gigabyte of zeros is listed: opening it inflates its header only. Its values are not worth 8 kB of file."""
    tensor = read(bomb(10**9))["a"]
    assert tensor.n_elements == 10**9
    with refused(UnsafeFileError, "inflates-without-measure", "1,000,000"):
        tensor.read()
    tensor = read(bomb(10**8))["a"]
    assert tensor.n_elements == 10**8
    with refused(CorruptFileError, "damaged-member", "of its declared"):
        tensor.read()


def bomb(n_bytes: int) -> bytes:
    """An array of so many zeros, by its own account and the archive's; 8 MiB of them are there."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    header = made(described("'|u1'", shape=f"({n_bytes},)"))
    packed = deflate.compress(header) + b"".join(deflate.compress(bytes(1 << 20)) for _ in range(8))
    packed += deflate.flush()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.npy"), packed)
    data = buffer.getvalue()
    for signature, method, size in ((LOCAL, 8, 22), (CENTRAL, 10, 24)):
        data = patched(data, signature, method, u16(8))
        data = patched(data, signature, size, u32(len(header) + n_bytes))
    return data


def test_a_slice_of_a_deflated_member(tmp_path: Path) -> None:
    array = random_array(DTYPES["float32"], (40, 30), 4)
    np.savez_compressed(tmp_path / "x.npz", w=array)
    tensor = wt.open(tmp_path / "x.npz")["w"]
    assert same_bits(tensor[3:9, ::-2], array[3:9, ::-2])


FIELDS = st.tuples(st.sampled_from([LOCAL, CENTRAL, END]), st.integers(4, 45), st.integers(0, 1))
VALUES = st.sampled_from([b"\0", b"\1", b"\xff", u16(0xFFFF), u32(0xFFFFFFFF), u32(1), u32(0), u16(8), u32(100)])


@given(st.lists(st.tuples(FIELDS, VALUES), min_size=1, max_size=3), st.booleans())
def test_any_field_of_any_record_may_lie(changes: list[tuple[tuple[bytes, int, int], bytes]], deflated: bool) -> None:
    data = zipped({"a.npy": ONE, "b.npy": saved(np.arange(9))}, 8 if deflated else 0)
    for (signature, offset, nth), value in changes:
        if data.count(signature) > nth:
            data = patched(data, signature, offset, value, nth)
    try:
        found = read(data)
        arrays = found.read()
    except WeighttoolsError as error:
        assert str(error).isprintable()
        return
    for name, array in arrays.items():
        assert array.tobytes() in (np.float32([1, 2]).tobytes(), np.arange(9).tobytes()) or name not in "ab"


OTHERS = {
    "a text last": {"w.npy": ONE, "README.txt": b"hi"},
    "a text first": {"README.txt": b"hi", "w.npy": ONE},
    "of macOS": {"w.npy": ONE, "__MACOSX/._w.npy": b"\0\5\x16\7", ".DS_Store": b"x"},
    "a directory": {"weights/": b"", "weights/w.npy": ONE, "weights/b.npy": ONE},
    "json": {"w.npy": ONE, "config.json": b"{}"},
    "no name": {"w.npy": ONE, "": b"x"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_members_that_are_no_arrays_are_left_out_with_a_note(name: str, tmp_path: Path) -> None:
    """NumPy opens such archives, and gives what is no array as bytes."""
    path = tmp_path / "a.npz"
    path.write_bytes(zipped(OTHERS[name]))
    found = wt.open(path)
    with np.load(path) as theirs:
        arrays = {k: theirs[k] for k in theirs.files if isinstance(theirs[k], np.ndarray)}
        others = [k for k in OTHERS[name] if k.removesuffix(".npy") not in arrays and not k.endswith("/")]
    assert list(found) == list(arrays)
    assert all(np.array_equal(found[k].read(), arrays[k]) for k in arrays)
    assert found.origin.notes == tuple(f"member {other!r} is no NPY array: it is left out" for other in others)


def test_an_archive_of_nothing_but_others_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"README.txt": b"hi"}))
    with pytest.raises(WeighttoolsError, match="is a zip archive, but no NPY, PyTorch or Keras one"):
        wt.open(tmp_path / "a.zip")


@pytest.mark.parametrize(("before", "behind"), [(b"", b"x" * 9), (b"#!/bin/sh\n", b""), (b"", b"")])
def test_bytes_around_an_archive_are_found(before: bytes, behind: bytes, tmp_path: Path) -> None:
    """NumPy, whose zipfile looks for the end first, reads both."""
    path = tmp_path / "a.npz"
    path.write_bytes(before + zipped({"a.npy": ONE}) + behind)
    if not before:
        with np.load(path) as theirs:
            assert theirs.files == ["a"]
    found = [f for f in wt.check(path)["findings"] if f["code"] == "trailing-bytes"]
    assert len(found) == bool(before or behind)
    assert all("9 bytes follow" in f["message"] or "10 bytes precede" in f["message"] for f in found)

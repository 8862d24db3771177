"""Hostile and broken GGUF files: the families of CVE-2024-21802 and after, and mutations."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.formats.conformance import HOSTILE_PATCHES, mutated, run_python
from tests.formats.gguf_golden import FIXTURES
from tests.work import bounded
from weighttools.errors import CorruptFileError, UnsupportedError, WeighttoolsError

U64 = (1 << 64) - 1


def text(value: bytes | str, length: int | None = None) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data) if length is None else length) + data


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def info(name: str = "t", shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0, n: int | None = None) -> bytes:
    n_dimensions = len(shape) if n is None else n
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", n_dimensions, *shape, kind, offset)


def file(
    pairs: tuple[bytes, ...] = (),
    infos: tuple[bytes, ...] = (),
    data: int = 32,
    n_tensors: int | None = None,
    n_pairs: int | None = None,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    counts = len(infos) if n_tensors is None else n_tensors, len(pairs) if n_pairs is None else n_pairs
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + bytes(data)


def nested(depth: int) -> bytes:
    """An array of arrays of … of nothing."""
    return struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 0, 0)


GOOD = info()
BAD: dict[str, tuple[bytes, str]] = {
    "n_kv_huge": (file(n_pairs=U64), "claims"),
    "n_kv_more_than_fits": (file(infos=(GOOD,), n_pairs=1000), "claims"),
    "n_tensors_huge": (file(n_tensors=U64), "claims"),
    "n_tensors_and_n_kv_wrap_together": (file(n_tensors=1 << 63, n_pairs=1 << 63), "claims"),
    "n_tensors_wraps_to_zero": (file(n_tensors=U64 // 24 + 2), "claims"),
    "key_length_huge": (file(pairs=(text(b"k", U64) + bytes(40),)), "bytes long"),
    "key_length_wraps": (file(pairs=(text(b"k", U64 - 7) + bytes(40),)), "bytes long"),
    "key_too_long_for_the_file": (file(pairs=(text(b"k", 4000) + bytes(40),)), "are left"),
    "value_length_huge": (file(pairs=(pair("k", 8, text(b"v", 1 << 62)),)), "bytes long"),
    "value_ends_past_the_file": (file(pairs=(pair("k", 8, text(b"v", 1 << 20)),)), "are left"),
    "value_type_unknown": (file(pairs=(pair("k", 13, bytes(8)),)), "value type 13"),
    "bool_of_2": (file(pairs=(pair("k", 7, b"\2"),)), "bool of value 2"),
    "array_type_unknown": (file(pairs=(pair("k", 9, struct.pack("<IQ", 99, 1)),)), "element type 99"),
    "array_count_huge": (file(pairs=(pair("k", 9, struct.pack("<IQ", 0, U64)),)), "claims"),
    "array_count_wraps": (file(pairs=(pair("k", 9, struct.pack("<IQ", 12, 1 << 61)),)), "claims"),
    "array_of_strings_huge": (file(pairs=(pair("k", 9, struct.pack("<IQ", 8, 1 << 60)),)), "claims"),
    "array_of_arrays_huge": (file(pairs=(pair("k", 9, struct.pack("<IQ", 9, 1 << 60)),)), "claims"),
    "array_string_past_the_file": (
        file(pairs=(pair("k", 9, struct.pack("<IQ", 8, 2) + text(b"a") + text(b"b", 1 << 40)),)),
        "ends past the file",
    ),
    "array_string_wraps": (
        file(pairs=(pair("k", 9, struct.pack("<IQ", 8, 2) + text(b"a", U64 - 7) + text(b"b")),)),
        "ends past the file",
    ),
    "arrays_nested_deeply": (file(pairs=(pair("k", 9, nested(5000)),)), "nested too deeply"),
    "key_twice": (file(pairs=(pair("k", 0, b"\1"), pair("k", 0, b"\1"))), "stands twice"),
    "alignment_zero": (file(pairs=(pair("general.alignment", 4, bytes(4)),)), "power of two"),
    "alignment_48": (file(pairs=(pair("general.alignment", 4, struct.pack("<I", 48)),)), "power of two"),
    "alignment_text": (file(pairs=(pair("general.alignment", 8, text("32")),)), "power of two"),
    "alignment_negative": (file(pairs=(pair("general.alignment", 5, struct.pack("<i", -32)),)), "power of two"),
    "alignment_bool": (file(pairs=(pair("general.alignment", 7, b"\1"),)), "power of two"),
    "alignment_beyond_the_file": (
        file(pairs=(pair("general.alignment", 10, struct.pack("<Q", 1 << 63)),), infos=(GOOD,)),
        "at most 65,536",
    ),
    "alignment_past_the_file": (
        file(pairs=(pair("general.alignment", 4, struct.pack("<I", 1 << 16)),), infos=(GOOD,)),
        "truncated",
    ),
    "alignment_beyond_belief": (
        file(pairs=(pair("general.alignment", 4, struct.pack("<I", 1 << 17)),), infos=(GOOD,)),
        "at most 65,536",
    ),
    "five_dimensions": (file(infos=(info(shape=(1,) * 5),)), "5 dimensions"),
    "dimensions_huge": (file(infos=(info(n=(1 << 32) - 1),)), "dimensions"),
    "product_wraps_to_small": (file(infos=(info(shape=(1 << 32, 1 << 32, 4)),)), "overflows"),
    "product_wraps_beside_zero": (file(infos=(info(shape=(1 << 62, 1 << 62, 0)),)), "overflows"),
    "bytes_wrap_beside_zero": (file(infos=(info(shape=(1 << 62, 0)),)), "overflows"),
    "dimension_negative": (file(infos=(info(shape=(U64,)),)), "overflows"),
    "bytes_wrap": (file(infos=(info(shape=(1 << 61,), kind=28),)), "overflows"),
    "offset_huge": (file(infos=(info(offset=U64 - 31),)), "truncated"),
    "offset_wraps": (file(infos=(info(offset=U64 & ~31),)), "truncated"),
    "offset_unaligned": (file(infos=(info(offset=4),), data=64), "multiple of 32"),
    "overlap": (file(infos=(info("a", (16,)), info("b", (8,), offset=32)), data=96), "overlap"),
    "same_place": (file(infos=(info("a"), info("b"))), "overlap"),
    "name_twice": (file(infos=(info(), info(offset=32)), data=64), "two tensors are called 't'"),
    "name_length_huge": (file(infos=(text(b"t", U64) + bytes(40),)), "bytes long"),
    "type_unknown": (file(infos=(info(kind=200),)), "unknown type 200"),
    "type_negative": (file(infos=(info(kind=(1 << 32) - 1),)), "unknown type"),
    "type_given_up": (file(infos=(info(kind=4),)), "Q4_2"),
    "rows_of_no_whole_blocks": (file(infos=(info(shape=(33,), kind=8),), data=64), "multiple of 32"),
    "quantised_scalar": (file(infos=(info(shape=(), kind=8),), data=64), "no rows"),
    "data_short": (file(infos=(info(shape=(9,)),)), "truncated: 4 bytes are missing"),
    "version_1": (file(version=1), "version 1"),
    "version_4": (file(version=4), "version 4"),
    "version_0": (file(version=0), "version 0"),
    "magic_only": (b"GGUF", "4 bytes long"),
    "header_cut": (file()[:20], "are left"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_header_is_refused_in_one_clear_line(name: str, tmp_path: Path) -> None:
    data, fact = BAD[name]
    path = tmp_path / f"{name}.gguf"
    path.write_bytes(data)
    with bounded(), pytest.raises((CorruptFileError, UnsupportedError)) as caught:
        wt.open(path)
    line = str(caught.value)
    assert fact in line and line.startswith(str(path)) and line.isprintable() and len(line) < 600


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is told by Linux")
def test_all_bad_headers_together_take_little_memory(tmp_path: Path) -> None:
    for name, (data, _) in BAD.items():
        (tmp_path / f"{name}.gguf").write_bytes(data)
    code = """
import sys
from pathlib import Path
import weighttools as wt
from weighttools.errors import WeighttoolsError
for path in Path(sys.argv[1]).iterdir():
    try:
        wt.open(path)
    except WeighttoolsError:
        continue
    print("opened", path)
status = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""
    assert int(run_python(code, str(tmp_path))) < 100_000


ODD: dict[str, tuple[bytes, dict[str, tuple[int, ...]]]] = {
    "nothing": (file(data=0), {}),
    "no_tensors": (file(pairs=(pair("k", 0, b"\1"),), data=0), {}),
    "scalar": (file(infos=(info(shape=()),)), {"t": ()}),
    "zero_size": (file(infos=(info(shape=(0, 3)), info("u", (8,)))), {"t": (3, 0), "u": (8,)}),
    "version_2": (file(infos=(GOOD,), version=2), {"t": (8,)}),
    "out_of_order": (file(infos=(info("b", offset=32), info("a")), data=64), {"b": (8,), "a": (8,)}),
    "a_hole": (file(infos=(info("a"), info("b", offset=64)), data=96), {"a": (8,), "b": (8,)}),
    "last_padding_missing": (file(infos=(info(shape=(1,)),), data=4), {"t": (1,)}),
    "odd_names": (file(infos=(info("../../etc/passwd\x1b[31m"),)), {"../../etc/passwd\x1b[31m": (8,)}),
    "empty_name": (file(infos=(info(""),)), {"": (8,)}),
    "alignment_1": (
        file(
            pairs=(pair("general.alignment", 4, struct.pack("<I", 1)),), infos=(info(offset=1),), alignment=1, data=33
        ),
        {"t": (8,)},
    ),
    "arrays_nested": (file(pairs=(pair("k", 9, nested(10)),), infos=(GOOD,)), {"t": (8,)}),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_legal_but_odd_is_read(name: str, tmp_path: Path) -> None:
    data, shapes = ODD[name]
    path = tmp_path / "odd.gguf"
    path.write_bytes(data)
    tensor_map = wt.open(path)
    assert {key: tensor.shape for key, tensor in tensor_map.items()} == shapes
    assert {key: array.shape for key, array in tensor_map.read().items()} == shapes
    wt.save(tmp_path / "again.gguf", tensor_map)
    assert wt.open(tmp_path / "again.gguf").metadata == tensor_map.metadata


def test_names_and_text_that_are_not_utf8_survive(tmp_path: Path) -> None:
    path = tmp_path / "bytes.gguf"
    data = file(
        pairs=(pair("k", 8, text(b"\xff\xfe")), pair("a", 9, struct.pack("<IQ", 8, 1) + text(b"\xc3("))),
        infos=(text(b"t\xff") + info()[9:],),
    )
    path.write_bytes(data)
    tensor_map = wt.open(path)
    assert [name.encode("utf-8", "surrogateescape") for name in tensor_map] == [b"t\xff"]
    wt.save(tmp_path / "again.gguf", tensor_map)
    assert (tmp_path / "again.gguf").read_bytes() == data
    assert "\\xff" in repr(tensor_map) or "udcff" in repr(tensor_map)


def _seeds() -> Iterator[bytes]:
    for name in ("values.gguf", "big_endian.gguf", "quantized.gguf"):
        yield (FIXTURES / name).read_bytes()
    yield from (data for data, _ in BAD.values())


SEEDS = list(_seeds())
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 2200),
        st.sampled_from(["set", "flip", "insert", "delete", "repeat"]),
        st.one_of(
            st.binary(max_size=8), st.sampled_from(HOSTILE_PATCHES), st.integers(0, 255).map(lambda n: bytes([n]))
        ),
    ),
    min_size=1,
    max_size=4,
)


@given(st.sampled_from(SEEDS), CHANGES)
def test_mutations_give_our_errors_or_values(
    tmp_path_factory: pytest.TempPathFactory, seed: bytes, changes: list[tuple[int, str, bytes]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutant.gguf"
    path.write_bytes(mutated(seed, changes))
    with bounded():
        try:
            tensor_map = wt.open(path)
            _look(tensor_map.metadata.values())
            for tensor in tensor_map.values():
                tensor.read()
        except WeighttoolsError as error:
            assert str(error).isprintable()


def _look(values: Any) -> None:
    for value in values:
        str(value)
        if not isinstance(value, (str, int, float)):
            _look(value)

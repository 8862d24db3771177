"""``inspect(layout=True)``: the byte map of a file, held against what other readers say of the same bytes."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import h5py
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import weighttools as wt
from tests.conftest import ROOT
from tests.work import CALLS, counted
from weighttools.analyzers.glimpse import MOST_VALUES, expanded
from weighttools.core import budgets
from weighttools.core.tensormap import TensorMap
from weighttools.io.source import LocalFile

pytestmark = pytest.mark.usefixtures("one_listing_parent")
Record = Any
FIXTURES = [
    place
    for place in sorted((ROOT / "fixtures").rglob("*"))
    if place.suffix
    in (".safetensors", ".gguf", ".npy", ".npz", ".pt", ".pth", ".ckpt", ".h5", ".keras", ".msgpack", ".onnx")
    and place.name not in ("objects.npy", "text.npy", "suspicious.pt")
    and "bare" not in place.name
]


def layout_of(path: Path | TensorMap) -> Record:
    record = json.loads(json.dumps(wt.inspect(path, layout=True), allow_nan=False))
    for found in record["layout"]["files"]:
        assert_whole(found)
    return record


def assert_whole(found: Record) -> None:
    """Every byte of a file is in one piece, and in one part."""
    assert sum(part["n_bytes"] for part in found["parts"]) == found["n_bytes"]
    assert sum(part["n"] for part in found["parts"]) == found["n_pieces"]
    at = 0
    for piece in found["pieces"]:
        assert piece["offset"] == at and piece["n_bytes"] > 0
        at += piece["n_bytes"]
    assert at == found["n_bytes"] or found["n_pieces"] > len(found["pieces"])


def taken(found: Record, what: str) -> list[tuple[int, int]]:
    return [(piece["offset"], piece["n_bytes"]) for piece in found["pieces"] if piece["what"] == what]


def union(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets and lengths, neighbours joined."""
    joined: list[list[int]] = []
    for offset, length in sorted(ranges):
        if not length:
            continue
        if joined and offset <= joined[-1][0] + joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], offset + length - joined[-1][0])
        else:
            joined.append([offset, length])
    return [(offset, length) for offset, length in joined]


@pytest.mark.parametrize("place", FIXTURES, ids=lambda place: place.name)
def test_every_byte_of_every_fixture_is_told_once(place: Path) -> None:
    opened = wt.open(place)
    record = layout_of(opened)
    layout = record["layout"]
    found = {one["path"]: one for one in layout["files"]}
    assert set(found) == set(record["files"])
    for name, one in found.items():
        data = Path(name).read_bytes()
        assert one["n_bytes"] == len(data) and one["head"] == data[:64].hex() and one["tail"] == data[-64:].hex()
        assert one["tail_offset"] == max(0, len(data) - 64)
        assert sum(row["n"] for row in one["dtypes"]) == sum(row["n"] for row in one["roles"])
        of_tensors = [sum(row["n_bytes"] for row in one[key]) for key in ("dtypes", "roles", "modules")]
        assert len(set(of_tensors)) == 1
        covered = sum(n for _, n in taken(one, "tensors"))
        assert covered <= of_tensors[0] and (covered == of_tensors[0] or one["n_overlaps"])
    assert list(layout["first_values"]) == [row["name"] for row in record["tensors"]]
    for name, values in layout["first_values"].items():
        if values is not None:
            expected = opened[name].read().reshape(-1)[:MOST_VALUES]
            assert [str(v) for v in values] == [
                str(v if isinstance(v, (bool, int)) else _word(v)) for v in expected.tolist()
            ]


def _word(value: Any) -> Any:
    return value if isinstance(value, complex) else float(value)


def test_safetensors_against_its_own_header(tmp_path: Path) -> None:
    place = tmp_path / "a.safetensors"
    arrays = {f"layers.{i}.w": np.full((3, i), i, np.float32) for i in range(5)} | {"b": np.arange(3, dtype=np.int8)}
    save_file(arrays, place)
    data = place.read_bytes()
    n_header = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + n_header])
    record = layout_of(place)
    found = record["layout"]["files"][0]
    assert taken(found, "length of the header") == [(0, 8)] and taken(found, "header") == [(8, n_header)]
    ranges = [
        (8 + n_header + e["data_offsets"][0], e["data_offsets"][1] - e["data_offsets"][0]) for e in header.values()
    ]
    assert taken(found, "tensors") == union(ranges) and found["n_gaps"] == found["n_overlaps"] == 0
    assert {(row["name"], row["offset"]) for row in record["tensors"]} == {
        (name, 8 + n_header + entry["data_offsets"][0]) for name, entry in header.items()
    }
    assert found["dtypes"] == [{"what": "float32", "n": 5, "n_bytes": 120}, {"what": "int8", "n": 1, "n_bytes": 3}]
    assert {row["what"]: row["n_bytes"] for row in found["modules"]}["b"] == 3
    assert record["layout"]["first_values"]["layers.2.w"] == [2, 2, 2, 2] and record["layout"]["notes"] == []


def test_gguf_against_the_gguf_package(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    for i in range(1, 6):
        writer.add_tensor(f"blk.{i}.ffn_up.weight", np.ones((i, 5), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    found = layout_of(tmp_path / "a.gguf")["layout"]["files"][0]
    assert taken(found, "tensors") == union([(t.data_offset, t.n_bytes) for t in reader.tensors])
    [(start, length)] = taken(found, "header")
    last = reader.tensors[-1].field
    assert start == 0 and length == last.offset + sum(part.nbytes for part in last.parts)
    rest = {piece["what"] for piece in found["pieces"]}
    assert rest == {"header", "padding", "tensors"} and all(n < 32 for _, n in taken(found, "padding"))


def written_by_numpy(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


def written_by_torch(path: Path, arrays: dict[str, Any]) -> None:
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)


@pytest.mark.parametrize(("suffix", "save"), [("npz", written_by_numpy), ("pt", written_by_torch)])
def test_archives_against_zipfile(suffix: str, save: Callable[[Path, dict[str, Any]], None], tmp_path: Path) -> None:
    place = tmp_path / f"a.{suffix}"
    save(place, {f"w{i}": np.full(100 * i + 7, i, np.float64) for i in range(4)})
    data = place.read_bytes()
    found = layout_of(place)["layout"]["files"][0]
    headers, members, content = [], [], []
    with zipfile.ZipFile(place) as archive:
        for info in archive.infolist():
            n_name, n_extra = struct.unpack_from("<HH", data, info.header_offset + 26)
            begin = info.header_offset + 30 + n_name + n_extra
            headers.append((info.header_offset, begin - info.header_offset))
            members.append((begin, info.compress_size))
            body = data[begin : begin + info.compress_size]
            if body.startswith(b"\x93NUMPY"):
                stream = io.BytesIO(body)
                np.lib.format.read_magic(stream)
                np.lib.format.read_array_header_1_0(stream)
                content.append((begin + stream.tell(), info.compress_size - stream.tell()))
            elif "/data/" in info.filename:
                content.append((begin, info.compress_size))
        directory = archive.start_dir
    assert union(taken(found, "local headers")) == union(headers)
    assert taken(found, "tensors") == union(content)
    assert union([*taken(found, "members"), *taken(found, "tensors")]) == union(members)
    assert taken(found, "zip directory") == [(directory, len(data) - directory)]
    for offset, length in taken(found, "data descriptors"):
        assert data[offset : offset + 4] == b"PK\x07\x08" and length in (16, 24)
    assert found["n_gaps"] == 0


def test_hdf5_against_h5py(tmp_path: Path) -> None:
    place = tmp_path / "a.h5"
    with h5py.File(place, "w") as file:
        for i in range(3):
            file[f"plain/{i}"] = np.full((i + 2, 3), i, np.float32)
        file.create_dataset("packed", data=np.arange(1000.0), chunks=(300,), compression="gzip")
    expected = []
    with h5py.File(place) as file:
        expected += [(file[f"plain/{i}"].id.get_offset(), file[f"plain/{i}"].nbytes) for i in range(3)]
        packed = file["packed"].id
        chunks = [packed.get_chunk_info(i) for i in range(packed.get_num_chunks())]
        expected += [(chunk.byte_offset, chunk.size) for chunk in chunks]
    record = layout_of(place)
    [found] = record["layout"]["files"]
    assert taken(found, "tensors") == union(expected)
    assert {piece["what"] for piece in found["pieces"]} <= {"tensors", "structure or gap", "padding"}
    assert record["layout"]["first_values"]["packed"] == [0, 1, 2, 3]
    assert any("not told apart" in note for note in record["layout"]["notes"])


def test_gaps_and_overlaps_are_named_with_their_offsets(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in "ab":
            stream = io.BytesIO()
            np.save(stream, np.arange(4.0))
            archive.writestr(f"{name}.npy", stream.getvalue())
            archive.fp.write(b"junk" * 5)  # type: ignore[union-attr]
            archive.start_dir = archive.fp.tell()  # type: ignore[union-attr]
    found = layout_of(tmp_path / "a.npz")["layout"]["files"][0]
    data = (tmp_path / "a.npz").read_bytes()
    assert [(gap["offset"], gap["n_bytes"]) for gap in found["gaps"]] == taken(found, "gap")
    assert [data[o : o + n] for o, n in taken(found, "gap")] == [b"junk" * 5] * 2
    whole = torch.arange(10.0)
    torch.save({"whole": whole, "tail\x1b[31m": whole[6:]}, tmp_path / "a.pt")
    found = layout_of(tmp_path / "a.pt")["layout"]["files"][0]
    [(start, length)] = taken(found, "tensors")
    assert length == 40
    assert found["overlaps"] == [{"offset": start + 24, "n_bytes": 16, "tensors": ["whole", "tail\x1b[31m"]}]


def test_shards_have_a_map_each(tmp_path: Path, inside: Any) -> None:
    arrays = {f"layers.{i}.w": np.ones((10, 10), np.float32) for i in range(4)}
    wt.save(tmp_path / "d", arrays, max_shard_size=1000)
    record = layout_of(tmp_path / "d")
    files = record["layout"]["files"]
    assert [one["path"] for one in files] == record["files"] and len(files) == 2
    assert [one["dtypes"][0]["n"] for one in files] == [2, 2]
    assert [one["modules"] for one in files] == [
        [{"what": f"layers.[{r}]", "n": 2, "n_bytes": 800}] for r in ("0-1", "2-3")
    ]
    some = wt.inspect(tmp_path / "d", include="layers.3.*", layout=True)["layout"]["files"]
    assert [[n for _, n in taken(one, "other tensors")] for one in some] == [[800], [400]]
    assert [one["n_gaps"] for one in some] == [0, 0], "what is left out is no gap"


@pytest.mark.parametrize("name", ["a.gguf", "a.h5", "a.npz", "a.pt", "a.safetensors"])
def test_what_was_not_asked_for_is_no_gap(name: str, tmp_path: Path) -> None:
    wt.save(tmp_path / name, {f"w{i}": np.full(64, i + 1, np.float32) for i in range(3)})
    for part in (wt.open(tmp_path / name, include="w1"), wt.open(tmp_path / name) | {"w0": 1.0, "w2": 2.0}):
        found = layout_of(part)["layout"]["files"][0]
        assert [n for _, n in taken(found, "tensors")] == [256] and found["n_gaps"] == 0
        rest = taken(found, "other tensors") or taken(found, "members")
        assert sum(n for _, n in rest) >= 2 * 256


def test_values_that_hdf5_keeps_within_its_structure_are_said_to_lie_nowhere(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        kept = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kept.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((3,))
        h5py.h5d.create(file.id, b"small", h5py.h5t.IEEE_F32LE, space, kept).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.arange(3, dtype=np.float32)
        )
        file["large"] = np.ones(10)
    layout = layout_of(tmp_path / "a.h5")["layout"]
    assert layout["first_values"] == {"large": [1, 1, 1, 1], "small": [0, 1, 2]}
    assert any("in no place of a file that is known: 1 tensor (small)" in note for note in layout["notes"])


def test_values_in_memory_lie_in_no_file() -> None:
    layout = layout_of(TensorMap.from_arrays({"a": np.array([np.nan, np.inf, -0.0]), "b": np.zeros((0, 2))}))["layout"]
    assert layout["files"] == [] and layout["first_values"] == {"a": ["nan", "inf", -0.0], "b": []}
    assert layout["notes"] == ["in no place of a file that is known: 1 tensor (a)"]


def test_first_values_of_all_kinds(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "bf16": np.array([1, -2], ml_dtypes.bfloat16),
        "f4": np.array([0.5, 1, 6, -6, 2, 0], ml_dtypes.float4_e2m1fn),
        "complex": np.array([1 + 2j]),
        "bool": np.array([True, False]),
        "u64": np.array([2**64 - 1], np.uint64),
        "scalar": np.array(7, np.int8),
        "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    layout = layout_of(TensorMap.from_arrays(arrays))["layout"]
    assert layout["first_values"] == {
        "bf16": [1, -2], "f4": [0.5, 1, 6, -6], "complex": ["(1+2j)"], "bool": [True, False], "u64": [2**64 - 1],
        "scalar": [7], "turned": [0, 1, 2, 3],
    }  # fmt: skip
    np.savez_compressed(tmp_path / "a.npz", small=np.arange(9), large=np.arange(budgets.FIRST_ELEMENTS + 1))
    layout = layout_of(tmp_path / "a.npz")["layout"]
    assert layout["first_values"] == {"small": [0, 1, 2, 3], "large": None}
    assert "no first values of 1 tensor" in layout["notes"][0] and "large" in layout["notes"][0]


def test_no_more_is_read_than_headers_and_a_few_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({f"w{i}": np.ones(1_000_000, np.float32) for i in range(3)}, tmp_path / "a.safetensors")
    read: list[int] = []
    whole = LocalFile.readinto

    def noted(self: LocalFile, offset: int, buffer: memoryview) -> None:
        read.append(buffer.nbytes)
        whole(self, offset, buffer)

    monkeypatch.setattr(LocalFile, "readinto", noted)
    layout_of(tmp_path / "a.safetensors")
    assert sum(read) < 10_000


def test_the_work_grows_with_the_number_of_tensors(tmp_path: Path) -> None:
    work = []
    for n in (1000, 3000):
        np.savez(tmp_path / "a.npz", **{f"m{i}.w{i % 7}": np.zeros(1, np.float32) for i in range(n)})
        tensor_map = wt.open(tmp_path / "a.npz")
        with counted() as done:
            record = wt.inspect(tensor_map, layout=True)
        work.append(done.calls)
    assert work[1] < 3.3 * work[0] and work[0] < CALLS
    found = record["layout"]["files"][0]
    assert found["n_pieces"] > len(found["pieces"]) == 1000
    assert sum(part["n_bytes"] for part in found["parts"]) == found["n_bytes"]


def test_what_the_command_prints(tmp_path: Path, inside: Any) -> None:
    name = "evil\x1b[31m"
    save_file({name: np.frombuffer(b"\x1b[31m\x07\x00\x00\x9b", np.uint8)}, tmp_path / "a.safetensors")
    found = inside("inspect", tmp_path / "a.safetensors", "--layout")
    assert found.code == 0 and "\x1b" not in found.out and "\x9b" not in found.out and "\x07" not in found.out
    assert "1b 5b 33 31 6d 07 00 00 9b" in found.out and ".[31m...." in found.out
    assert "evil\\x1b[31m" in found.out and "of the file" in found.out
    for style in ("csv", "jsonl", "markdown"):
        refused = inside("inspect", tmp_path / "a.safetensors", "--layout", "--format", style)
        assert refused.code == 2 and "--layout" in refused.err and style in refused.err
    given = json.loads(inside("inspect", tmp_path / "a.safetensors", "--layout", "--json").out)
    assert given["layout"]["files"][0]["parts"][0]["what"] == "header"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_texts_that_are_json_are_expanded(values: dict[str, Any]) -> None:
    metadata = {key: json.dumps(value) for key, value in values.items()}
    assert expanded(metadata) == {key: value for key, value in values.items() if isinstance(value, (dict, list))}


def test_texts_that_are_not_json_in_one_way_stay_texts() -> None:
    deep = "[" * 100 + "]" * 100
    texts = {
        "half": '{"a": ', "twice": '{"a": 1, "a": 2}', "deep": deep, "deeper": "[" * 100_000, "plain": "text", "n": 3,
        "template": "{{ messages }}", "digits": "[" + "9" * 10_000 + "]",
    }  # fmt: skip
    assert expanded(texts) == {}
    assert expanded({"odd": '[NaN, 1e999, {"x": -Infinity}]'}) == {"odd": [None, None, {"x": None}]}
    long = "[" + "1, " * (budgets.EXPANDED_BYTES // 3) + "1]"
    assert expanded({"long": long, "short": "[1]"}) == {"short": [1]}


def test_the_table_shows_json_indented(tmp_path: Path, inside: Any) -> None:
    settings = {
        "model": {"hidden": 8, "layers": [1, 2]},
        "é": "x\x1b",
        "none": None,
        "many": {f"k{i}": i for i in range(40)},
    }
    wt.save(tmp_path / "a.safetensors", TensorMap.from_arrays({"a": np.ones(1)}, {"settings": json.dumps(settings)}))
    found = inside("inspect", tmp_path / "a.safetensors").out
    assert "settings:\n" in found and "model:\n" in found and "hidden: 8" in found and "layers: [1, 2]" in found
    assert "none: null" in found and "\x1b" not in found and "more\n" in found
    record = json.loads(inside("inspect", tmp_path / "a.safetensors", "--json").out)
    assert record["expanded"] == {"settings": settings} and json.loads(record["metadata"]["settings"]) == settings

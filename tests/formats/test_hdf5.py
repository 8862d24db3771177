"""HDF5 against h5py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

import weighttools as wt
from tests.formats.conformance import Arrays, FormatConformance
from tests.strategies import assert_same
from weighttools.core.dtypes import DTYPES
from weighttools.core.readers import Whole
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, UnsupportedError
from weighttools.formats import npy_header, read_file
from weighttools.formats.base import WriteOptions
from weighttools.formats.hdf5 import format as hdf5
from weighttools.formats.hdf5.filters import fletcher32
from weighttools.io.sink import atomic_file
from weighttools.io.source import Bytes


def plain_read(path: Path) -> Arrays:
    """Every data set of a file by its path, read by h5py."""
    found: Arrays = {}

    def visit(name: str, thing: Any) -> None:
        if isinstance(thing, h5py.Dataset):
            found[name] = thing[()] if thing.shape is not None else np.empty(0)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return {name: np.asarray(value) for name, value in found.items()}


@pytest.mark.usefixtures("one_listing_parent")
class TestHdf5(FormatConformance):
    format_name, suffix = "hdf5", ".h5"
    dtypes = tuple(DTYPES)
    golden_dtypes = tuple(npy_header.CODES)
    whole_bytes = False
    header_without_numpy = True
    mutations = 40

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array

    def golden_read(self, path: Path) -> Arrays:
        return plain_read(path)


@pytest.mark.usefixtures("one_listing_parent")
class TestCompressedHdf5(FormatConformance):
    """The same, written by us with gzip, and read from h5py's gzip, shuffle and checksums."""

    format_name, suffix = "hdf5", ".h5"
    dtypes = tuple(DTYPES)
    golden_dtypes = tuple(npy_header.CODES)
    whole_bytes = False
    mutations = 40
    memory_limit = 32 << 20

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                filters = {"compression": "gzip", "shuffle": True, "fletcher32": True} if array.size else {}
                file.create_dataset(name, data=array, **(filters if array.ndim else {}))

    def golden_read(self, path: Path) -> Arrays:
        return plain_read(path)

    def write(self, tensor_map: TensorMap, path: Path, threads: int | None = 1) -> bytes:
        with atomic_file(path, force=True) as sink:
            hdf5.write(tensor_map, sink, WriteOptions(threads=threads, compression="gzip"))
        return path.read_bytes()


FILTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gzip": {"compression": "gzip", "compression_opts": 9},
    "shuffled": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf"},
    "lzf shuffled": {"compression": "lzf", "shuffle": True},
    "checked": {"fletcher32": True},
    "all": {"compression": "gzip", "shuffle": True, "fletcher32": True},
}


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("name", FILTERS)
def test_chunks_are_read_as_h5py_reads_them(tmp_path: Path, name: str, libver: str) -> None:
    rng = np.random.default_rng(0)
    cases = {
        "edges": (rng.integers(0, 50, (37, 23)).astype("f4"), (8, 5)),
        "row": (rng.random((1, 1000)), (1, 64)),
        "single": (rng.integers(0, 9, (5, 4, 3)).astype("i2"), (5, 4, 3)),
        "thin": (rng.integers(0, 3, (6, 7, 8)).astype("u1"), (1, 7, 3)),
        "big-endian": (rng.random((9, 9)).astype(">f8"), (4, 4)),
        "odd": (np.frombuffer(b"abcabcabcabcabcabcabcabcaba" * 40, "u1"), (333,)),
    }
    with h5py.File(tmp_path / "c.h5", "w", libver=libver) as file:
        for key, (array, chunk) in cases.items():
            file.create_dataset(key, data=array, chunks=chunk, **FILTERS[name])
    tensor_map = wt.open(tmp_path / "c.h5")
    assert_same(
        tensor_map.read(), {key: array.astype(array.dtype.newbyteorder("=")) for key, (array, _) in cases.items()}
    )
    for tensor in tensor_map.values():
        whole = tensor.read().reshape(-1)
        for size in (1, 30, 10_000):
            assert np.concatenate(list(tensor.blocks(size))).tobytes() == whole.tobytes()
    np.testing.assert_array_equal(tensor_map["edges"][3:20, 2], cases["edges"][0][3:20, 2])


def test_chunks_that_were_never_written_have_the_fill_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        sparse = file.create_dataset("sparse", (40, 30), "i4", chunks=(7, 8), fillvalue=-3, compression="gzip")
        sparse[10:12, 20] = 5
        file.create_dataset("late", (4, 5), ">f8", fillvalue=1.5)
        file.create_dataset("zeros", (3,), "f2")
        expected = {name: thing[()] for name, thing in file.items()}
    found = wt.open(tmp_path / "f.h5")
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].read(), array)
        np.testing.assert_array_equal(np.concatenate(list(found[name].blocks(3))), array.reshape(-1))


def test_resized_data_sets_are_cut_to_their_shape(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "r.h5", "w") as file:
        thing = file.create_dataset("x", data=np.arange(100.0).reshape(10, 10), maxshape=(None, None), chunks=(4, 4))
        thing.resize((5, 7))
        expected = thing[()]
    np.testing.assert_array_equal(wt.open(tmp_path / "r.h5")["x"].read(), expected)


@pytest.mark.parametrize("size", [512, 4096, 8192])
def test_a_user_block_is_stepped_over(tmp_path: Path, size: int) -> None:
    with h5py.File(tmp_path / "u.h5", "w", userblock_size=size) as file:
        file["a"] = np.arange(5.0)
        file.create_dataset("b", data=np.arange(50.0), chunks=(7,), compression="gzip")
    found = wt.open(tmp_path / "u.h5").read()
    np.testing.assert_array_equal(found["a"], np.arange(5.0))
    np.testing.assert_array_equal(found["b"], np.arange(50.0))


def test_compact_data_lies_in_its_header(tmp_path: Path) -> None:
    array = np.arange(6, dtype=">i2").reshape(2, 3)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        made = h5py.h5d.create(file.id, b"x", h5py.h5t.STD_I16BE, h5py.h5s.create_simple((2, 3)), plist)
        h5py.Dataset(made)[...] = array
    tensor = wt.open(tmp_path / "c.h5")["x"]
    np.testing.assert_array_equal(tensor.read(), array)
    assert tensor.stored_bytes == 12


def test_float_types_by_their_fields(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, np.inf], ml_dtypes.bfloat16)
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        offset = h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((3,)), plist).get_offset()
    data = bytearray((tmp_path / "b.h5").read_bytes())
    data[offset : offset + 6] = values.tobytes()
    (tmp_path / "b.h5").write_bytes(data)
    found = wt.open(tmp_path / "b.h5")["x"]
    assert found.dtype.name == "bfloat16" and found.read().tobytes() == values.tobytes()


def test_what_holds_no_numbers_is_left_out_and_said(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["x"] = np.arange(3.0)
        file["text"] = "words"
        file["table"] = np.zeros(2, [("a", "f4"), ("b", "i4")])
        file["ref"] = np.array([file["x"].ref], h5py.ref_dtype)
        file["empty"] = h5py.Empty("f4")
        file.attrs["ref"] = file["x"].ref
    tensor_map = wt.open(tmp_path / "m.h5")
    assert list(tensor_map) == ["x"]
    assert all(any(word in note for note in tensor_map.origin.notes) for word in ("text", "table", "ref", "empty"))


def test_attributes_without_a_value_and_those_of_data_sets_are_said(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["x"] = np.arange(3.0)
        for name, kind in (("words", "S4"), ("text", h5py.string_dtype()), ("number", "f4")):
            file.attrs[name] = h5py.Empty(kind)
        file.attrs["kept"] = "yes"
        file["x"].attrs["units"] = "m"
        file.create_group("g").attrs["since"] = 2020
    found = wt.open(tmp_path / "m.h5")
    assert list(found) == ["x"] and found.metadata == {"kept": "yes"}
    assert "left out: attribute 'number', attribute 'text', attribute 'words' (no value)" in found.origin.notes
    assert any("2 attributes of groups and data sets (" in note and "units of x" in note for note in found.origin.notes)


def test_bit_fields_are_what_h5py_reads(tmp_path: Path) -> None:
    values = np.arange(250, 256)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        for bits, orders in ((8, "L"), (16, "LB"), (32, "LB"), (64, "LB")):
            for order in orders:
                kind = getattr(h5py.h5t, f"STD_B{bits}{order}E")
                made = h5py.h5d.create(file.id, f"{bits}{order}".encode(), kind, h5py.h5s.create_simple((6,)))
                made.write(
                    h5py.h5s.ALL,
                    h5py.h5s.ALL,
                    values.astype(f"u{bits // 8}"),
                    mtype=getattr(h5py.h5t, f"NATIVE_B{bits}"),
                )
    with h5py.File(tmp_path / "b.h5") as file:
        theirs = {name: np.asarray(file[name]) for name in file}
    found = wt.open(tmp_path / "b.h5")
    assert len(theirs) == 7
    for name, array in theirs.items():
        np.testing.assert_array_equal(found[name].read(), array)


def test_nothing_but_strangers_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["text"] = "words"
    with pytest.raises(UnsupportedError, match="no data set of numbers"):
        wt.open(tmp_path / "m.h5")


def test_void_elements_need_a_name(tmp_path: Path) -> None:
    values = np.array([1.5, 2.0], ml_dtypes.bfloat16)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["x"] = values.view("V2")
        file["y"] = np.arange(2)
    assert "--assume bfloat16" in " ".join(wt.open(tmp_path / "v.h5").origin.notes)
    assert wt.open(tmp_path / "v.h5", assume="bfloat16")["x"].read().tobytes() == values.tobytes()


def test_links_within_the_file_are_ties(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "l.h5", "w") as file:
        file["g/x"] = np.arange(3.0)
        file["hard"] = file["g/x"]
        file["soft"] = h5py.SoftLink("/g/x")
        file["g/relative"] = h5py.SoftLink("x")
        file["group"] = h5py.SoftLink("/g")
        file["through"] = h5py.SoftLink("/group/relative")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["loop"] = h5py.SoftLink("/loop")
        file["g/up"] = file["/"]
    tensor_map = wt.open(tmp_path / "l.h5")
    assert dict(tensor_map.aliases) == dict.fromkeys(("hard", "soft", "g/relative", "through"), "g/x")
    said = " ".join(tensor_map.origin.notes)
    assert all(f"link {name!r}" in said for name in ("dangling", "loop", "group", "g/up"))


def test_order_of_making_is_kept_where_the_file_knows_it(tmp_path: Path) -> None:
    names = ["z", "a", "m/2", "m/10", "b"]
    with h5py.File(tmp_path / "o.h5", "w", track_order=True) as file:
        for name in names:
            file[name] = np.arange(2)
    assert list(wt.open(tmp_path / "o.h5")) == names
    with h5py.File(tmp_path / "n.h5", "w") as file:
        for name in names:
            file[name] = np.arange(2)
    assert list(wt.open(tmp_path / "n.h5")) == ["a", "b", "m/2", "m/10", "z"]


def test_names_that_are_no_paths_survive(tmp_path: Path) -> None:
    names = ["", "/", "a", "a/b", "a//b", "./x", "n\0ul", "\udc80", "__weighttools__/0", "x/", "..", "é"]
    arrays = {name: np.full(3, i) for i, name in enumerate(names)}
    ties = {"z/tie": "a", "": "a"}
    metadata = {"k\0": "v\0", "n": [1, {"a": None}]}
    tensor_map = TensorMap.from_arrays({k: v for k, v in arrays.items() if k}, metadata, ties)
    wt.save(tmp_path / "n.h5", tensor_map)
    found = wt.open(tmp_path / "n.h5")
    assert_same(found.read(), {k: v for k, v in arrays.items() if k})
    assert dict(found.aliases) == ties and dict(found.metadata) == metadata
    assert list(found) == list(tensor_map)


def test_order_and_ties_survive_when_a_tie_is_met_first(tmp_path: Path) -> None:
    tensor_map = TensorMap.from_arrays({"a": np.arange(2), "b": np.arange(3)}, {}, {"0": "a", "x": "b"})
    wt.save(tmp_path / "t.h5", tensor_map)
    found = wt.open(tmp_path / "t.h5")
    assert list(found) == ["a", "b"] and dict(found.aliases) == {"0": "a", "x": "b"}


def test_h5py_sees_ties_as_one_data_set(tmp_path: Path) -> None:
    wt.save(tmp_path / "t.h5", TensorMap.from_arrays({"a/w": np.arange(3.0)}, {"note": "é"}, {"b/w": "a/w"}))
    with h5py.File(tmp_path / "t.h5") as file:
        assert file["b/w"] == file["a/w"]
        assert file.attrs["note"] == "é"
        assert "__weighttools__" not in file.attrs


def test_compressed_files_are_smaller_and_equal(tmp_path: Path) -> None:
    arrays = {
        "big": np.arange(3_000_000, dtype="f4").reshape(1000, 3000),
        "small": np.arange(3),
        "edge": np.arange(700_001),
    }
    wt.save(tmp_path / "p.h5", TensorMap.from_arrays(arrays))
    record = wt.convert(tmp_path / "p.h5", tmp_path / "z.h5", compression="gzip")
    assert record["written"]
    assert (tmp_path / "z.h5").stat().st_size < (tmp_path / "p.h5").stat().st_size / 2
    assert_same(plain_read(tmp_path / "z.h5"), arrays)
    assert_same(wt.open(tmp_path / "z.h5").read(), arrays)


def test_a_tensor_that_is_read_whole_is_compressed_by_reading_it_once(tmp_path: Path) -> None:
    loads = []

    def load() -> Any:
        loads.append(1)
        return np.arange(2_000_000, dtype="i4")

    spec = Spec(DTYPES["int32"], (2000, 1000))
    with atomic_file(tmp_path / "w.h5") as sink:
        hdf5.write(TensorMap({"x": Tensor(spec, Whole(load, 2_000_000))}), sink, WriteOptions(compression="gzip"))
    assert len(loads) == 1
    np.testing.assert_array_equal(plain_read(tmp_path / "w.h5")["x"].reshape(-1), np.arange(2_000_000))


def test_compression_is_refused_where_there_is_none(tmp_path: Path) -> None:
    tensor_map = TensorMap.from_arrays({"x": np.arange(3)})
    wt.save(tmp_path / "a.h5", tensor_map)
    for dst, method in (("b.h5", "zip"), ("b.safetensors", "gzip"), ("b.npz", "gzip")):
        with pytest.raises(SpecError, match="compress"):
            wt.convert(tmp_path / "a.h5", tmp_path / dst, compression=method)


def test_contiguous_values_are_copied_undecoded(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(10.0)
        offset = file["x"].id.get_offset()
    tensor = wt.open(tmp_path / "a.h5")["x"]
    assert tensor.decode is None and tensor.stored is not None
    assert (tensor.stored.offset, tensor.stored.length) == (offset, 80)


def test_bytes_in_memory_are_a_source(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(10.0)
    found = read_file(Bytes((tmp_path / "a.h5").read_bytes()))
    np.testing.assert_array_equal(found["x"].read(), np.arange(10.0))


def test_root_attributes_are_metadata(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(2.0)
        values = {"text": "é", "bytes": b"raw", "n": 7, "f": 0.5, "list": [1, 2], "names": ["a", "b"], "flag": True}
        for key, value in values.items():
            file.attrs[key] = value
    assert dict(wt.open(tmp_path / "a.h5").metadata) == {**values, "bytes": "raw"}


@pytest.mark.parametrize("data", [b"", b"a", b"abcde", bytes(1001), b"\xff" * 70_000, bytes(range(256)) * 999])
def test_fletcher32_is_that_of_libhdf5(tmp_path: Path, data: bytes) -> None:
    if not data:
        assert fletcher32(data) == 0
        return
    with h5py.File(tmp_path / "f.h5", "w") as file:
        thing = file.create_dataset("x", data=np.frombuffer(data, "u1"), chunks=(len(data),), fletcher32=True)
        _, raw = thing.id.read_direct_chunk((0,))
    assert int.from_bytes(raw[-4:], "little") == fletcher32(data)


FIXTURES = Path(__file__).parents[2] / "fixtures" / "hdf5"


@pytest.mark.parametrize("file", ["plain.h5", "chunked.h5", "keras2.h5", "keras3.weights.h5", "keras3.keras"])
def test_fixtures_of_the_reference_libraries(file: str) -> None:
    with np.load(FIXTURES / f"{file.split('.')[0]}.npz") as archive:
        expected = {name.replace("|", "/"): archive[name] for name in archive.files}
    tensor_map = wt.open(FIXTURES / file)
    assert list(tensor_map) == list(expected)
    assert_same(tensor_map.read(), {name: a.astype(a.dtype.newbyteorder("=")) for name, a in expected.items()})


def test_more_axes_than_hdf5_has(tmp_path: Path) -> None:
    arrays = {"w": np.ones((1,) * 33, "f4"), "v": np.ones((1,) * 32, "f4")}
    for dry_run in (True, False):
        with pytest.raises(SpecError, match="33 axes of tensor 'w'"):
            wt.convert(TensorMap.from_arrays(arrays), tmp_path / "t.h5", dry_run=dry_run)
    wt.convert(TensorMap.from_arrays({"v": arrays["v"]}), tmp_path / "t.h5")
    assert_same(wt.open(tmp_path / "t.h5").read(), {"v": arrays["v"]})

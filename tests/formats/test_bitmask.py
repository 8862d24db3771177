"""Bitmask and values in safetensors: written and read by the official library and a few lines of NumPy on the one side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

import weighttools as wt
from tests.formats.conformance import Arrays, FormatConformance, run_python
from tests.formats.test_safetensors import CODES, WRITABLE, official_read, official_write
from tests.sources import CountingSource
from tests.strategies import assert_same, random_array
from weighttools.core.dtypes import DTYPES
from weighttools.core.tensormap import TensorMap
from weighttools.encodings import bitmask
from weighttools.errors import CorruptFileError, SourceError, SpecError
from weighttools.formats.base import WriteOptions
from weighttools.formats.safetensors import format as safetensors
from weighttools.io.sink import atomic_file
from weighttools.io.source import Bytes

BLOCK = 65536
NAMES = {ours: theirs for theirs, ours in CODES.items()}


def packed(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """One tensor's bytes, as the module's docstring lays them out."""
    flat = np.ascontiguousarray(array).reshape(-1).view(f"u{array.itemsize}")
    index, blocks, n_kept = [], [], 0
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        index.append(n_kept)
        n_kept += int((block != 0).sum())
        blocks += [np.packbits(block != 0, bitorder="little"), block[block != 0].view(np.uint8)]
    return np.concatenate([np.array(index, "<u8").view(np.uint8), *blocks]) if blocks else np.zeros(0, np.uint8)


def unpacked(data: np.ndarray[Any, Any], dtype: Any, shape: list[int]) -> np.ndarray[Any, Any]:
    """One tensor of its bytes, element by element."""
    n, width = math.prod(shape), np.dtype(dtype).itemsize
    out, at = bytearray(n * width), 8 * -(-n // BLOCK)
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        bits = np.unpackbits(data[at : at + -(-size // 8)], bitorder="little")
        at += -(-size // 8)
        for i in np.flatnonzero(bits):
            out[(start + i) * width : (start + i + 1) * width] = data[at : at + width].tobytes()
            at += width
    return np.frombuffer(bytes(out), np.uint8).view(dtype).reshape(shape)


def entry(arrays: Arrays) -> dict[str, str]:
    tensors = {n: {"dtype": NAMES[a.dtype.name], "shape": list(a.shape)} for n, a in arrays.items()}
    return {"weighttools.bitmask": json.dumps({"version": 1, "tensors": tensors})}


def thinned(array: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """The array with most of its elements 0, if they are of whole bytes."""
    gone = np.random.default_rng(seed).random(array.shape) < 0.7
    return (
        array
        if "float4" in array.dtype.name or "float6" in array.dtype.name
        else np.where(gone, array.dtype.type(0), array)
    )


class TestBitmask(FormatConformance):
    """What safetensors must do, done by files with bitmasks; the official library knows only their bytes."""

    format_name, suffix = "safetensors", ".safetensors"
    dtypes = tuple(CODES.values())
    golden_dtypes = WRITABLE
    keeps_order = False
    header_without_numpy = True

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        masked = {n: a for n, a in arrays.items() if not a.dtype.name.startswith(("float4", "float6"))}
        official_write(path, {**arrays, **{n: packed(a) for n, a in masked.items()}}, entry(masked))

    def golden_holds(self, array: np.ndarray[Any, Any]) -> bool:
        return array.dtype.name != "float4_e2m1fn" or (array.ndim > 0 and array.shape[-1] % 2 == 0)

    def golden_read(self, path: Path) -> Arrays:
        found = official_read(path.read_bytes())
        with safe_open(path, "np") as file:
            records = json.loads((file.metadata() or {}).get("weighttools.bitmask", '{"tensors": {}}'))["tensors"]
        for name, record in records.items():
            found[name] = unpacked(found[name], DTYPES[CODES[record["dtype"]]].numpy, record["shape"])
        return found

    def examples(self, dtypes: tuple[str, ...] | None = None) -> Arrays:
        return {name: thinned(array, len(name)) for name, array in super().examples(dtypes).items()}

    def write(self, tensor_map: TensorMap, path: Path, threads: int | None = 1) -> bytes:
        options = WriteOptions(threads, bitmasks=bitmask.counted(tensor_map, threads))
        with atomic_file(path, force=True) as sink:
            safetensors.write(tensor_map, sink, options)
        return path.read_bytes()


def write(path: Path, arrays: Arrays, metadata: dict[str, str] | None = None) -> TensorMap:
    wt.save(path, TensorMap.from_arrays(arrays, metadata or {}), store="bitmask")
    return wt.open(path)


@given(
    st.sampled_from([d for d in CODES.values() if DTYPES[d].bits >= 8]), st.integers(0, 3 * BLOCK), st.floats(0, 1),
    st.integers(0, 2**32 - 1), st.data(),
)  # fmt: skip
def test_runs_of_large_tensors(dtype, n, share, seed, data):
    """Several blocks, of random bits: NaN of all payloads, -0.0, subnormals; any run is a run of what was written."""
    array = random_array(DTYPES[dtype], (n,), seed)
    array[np.random.default_rng(seed).random(n) < share] = 0
    source = Bytes(packed(array).tobytes(), "x")
    n_kept = int(np.count_nonzero(array.view(f"u{array.itemsize}")))
    reader = bitmask.Masked(wt.core.spec.Span(source, 0, source.size), DTYPES[dtype], n, n_kept)
    assert reader(0, n).tobytes() == array.tobytes()
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    assert reader(start, stop).tobytes() == array[start:stop].tobytes()


def test_it_is_said_and_smaller(inside, tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((500, 300)).astype(np.float32)
    array[np.abs(array) < 1] = 0
    dense = np.ones((3, 4), np.float32)
    found = write(tmp_path / "b.safetensors", {"fc.weight": array, "head.weight": dense}, {"format": "pt"})
    assert (found["fc.weight"].spec.encoding, found["head.weight"].spec.encoding) == ("bitmask", "raw")
    n_bytes = 3 * 8 + 500 * 300 // 8 + 4 * int((array != 0).sum())
    assert found["fc.weight"].stored_bytes == n_bytes
    record = wt.inspect(tmp_path / "b.safetensors")
    assert record["bitmasks"] == {"n_tensors": 1, "stored_bytes": n_bytes, "raw_bytes": array.nbytes}
    assert record["stored_bytes"] == n_bytes + dense.nbytes and record["metadata"] == {"format": "pt"}
    ran = inside("inspect", tmp_path / "b.safetensors")
    assert "1 tensor as bitmasks and values that are not 0" in ran.out


def test_every_verb_reads_it(inside, tmp_path: Path) -> None:
    """What a verb makes of the file is what it makes of the plain one, byte for byte."""
    rng = np.random.default_rng(1)
    arrays = {f"l.{i}.weight": rng.standard_normal((96, 128)).astype(np.float32) for i in range(2)}
    arrays["l.0.weight"][rng.random((96, 128)) < 0.8] = 0
    plain, masked = tmp_path / "p.safetensors", tmp_path / "m.safetensors"
    wt.save(plain, TensorMap.from_arrays(arrays))
    write(masked, arrays)
    assert masked.stat().st_size < plain.stat().st_size
    commands = {
        "convert": [], "prune": ["--sparsity", "0.5"], "decay": ["--rate", "0.1"], "average": ["SRC"],
        "noise": ["--std", "1"], "init": ["--method", "he_normal", "-i", "l.1.*"],
    }  # fmt: skip
    for command, options in commands.items():
        made = []
        for source in (plain, masked):
            target = tmp_path / f"{command}-{source.name}"
            rest = [str(source) if option == "SRC" else option for option in options]
            to = [target] if command == "convert" else ["-o", target]
            ran = (
                inside(command, source, *rest[:1], *to, *rest[1:])
                if command == "average"
                else inside(command, source, *to, *rest)
            )
            assert ran.code == 0, ran
            made.append(target.read_bytes())
        assert made[0] == made[1], command
    texts = [inside("stats", source, "--json").out.replace(str(source), "") for source in (plain, masked)]
    assert texts[0] == texts[1]
    texts = [inside("get", source, "l.0.weight[3, ::7]").out for source in (plain, masked)]
    assert texts[0] == texts[1] != ""


def test_prune_stores_so(inside, tmp_path: Path) -> None:
    array = np.random.default_rng(2).standard_normal((200, 400)).astype(np.float16)
    wt.save(tmp_path / "a.safetensors", TensorMap.from_arrays({"fc.weight": array}))
    target = tmp_path / "b.safetensors"
    options = ["--sparsity", "0.75", "--store", "bitmask", "--json"]
    planned = json.loads(inside("prune", tmp_path / "a.safetensors", "-o", target, *options, "--dry-run").out)
    assert not target.exists()
    done = json.loads(inside("prune", tmp_path / "a.safetensors", "-o", target, *options).out)
    n_bytes = 2 * 8 + 80_000 // 8 + 2 * 20_000
    assert planned["stored_bytes"] == done["stored_bytes"] == done["sizes"]["bitmask_bytes"] == n_bytes
    assert done["files"][0]["stored_bytes"] == n_bytes
    assert any("stored as bitmasks" in note for note in done["notes"])
    wanted = wt.prune(tmp_path / "a.safetensors", sparsity=0.75).read()
    assert_same(wt.open(target).read(), wanted)
    ran = inside("prune", tmp_path / "a.safetensors", "-o", tmp_path / "b.npz", *options)
    assert ran.code == 2 and "--store bitmask for safetensors" in ran.err and not (tmp_path / "b.npz").exists()


def test_shards_and_ties(inside, tmp_path: Path) -> None:
    """An index, its total and its shards agree, whichever size the total is of."""
    rng = np.random.default_rng(3)
    arrays = {
        f"l.{i}.weight": rng.standard_normal((64, 64)).astype(np.float32) * (rng.random((64, 64)) < 0.3)
        for i in range(4)
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    tied = TensorMap.from_arrays(arrays, {}, {"head.weight": "l.0.weight"})
    wt.convert(tied, tmp_path / "shards", max_shard_size=40_000, store="bitmask")
    found = wt.open(tmp_path / "shards")
    assert len(found.origin.files) == 2 and found.aliases == {"head.weight": "l.0.weight"}
    assert {spec.encoding for spec in found.specs()} == {"bitmask"} and not found.origin.notes
    assert_same(found.read(), arrays)
    wt.convert(tied, tmp_path / "one.safetensors", store="bitmask")
    assert wt.open(tmp_path / "one.safetensors").aliases == {"head.weight": "l.0.weight"}


def test_readers_of_odd_blocks(tmp_path: Path) -> None:
    """N:M of five, transposes and quantised blocks: runs that are no part of 65,536."""
    array = np.random.default_rng(4).standard_normal((1000, 515)).astype(np.float32)
    tensor_map = TensorMap.from_arrays({"a.weight": array, "b.weight": array.T.copy().T})
    pruned = wt.prune(tensor_map, nm="1:5")
    record = wt.save(tmp_path / "b.safetensors", pruned, store="bitmask")
    assert record["transforms"][0]["n_elements"] == 2 * array.size  # read twice, counted once
    assert_same(wt.open(tmp_path / "b.safetensors").read(), pruned.read())


def test_nothing_to_gain(tmp_path: Path) -> None:
    array = np.ones((4, 4), np.float32)
    record = wt.save(tmp_path / "b.safetensors", TensorMap.from_arrays({"a": array}), store="bitmask")
    assert "no tensor takes less room as a bitmask: all are stored as ever" in record["notes"]
    assert wt.inspect(tmp_path / "b.safetensors")["metadata"] == {}


def test_a_run_takes_two_reads() -> None:
    array = np.zeros(40 * BLOCK, np.float32)
    array[::3] = 1
    data = packed(array).tobytes()
    source = CountingSource(data)
    reader = bitmask.Masked(wt.core.spec.Span(source, 0, len(data)), DTYPES["float32"], array.size, array[::3].size)
    assert reader(20 * BLOCK + 5, 20 * BLOCK + 9).tolist() == array[20 * BLOCK + 5 : 20 * BLOCK + 9].tolist()
    assert len(source.reads) == 2 and sum(length for _, length in source.reads) < BLOCK // 8 + 4 * BLOCK // 2


def test_values_that_change_are_noticed(tmp_path: Path) -> None:
    first = TensorMap.from_arrays({"a": np.zeros(100, np.float32)})
    counts = bitmask.counted(first)
    second = TensorMap.from_arrays({"a": np.eye(10, dtype=np.float32).reshape(-1)})
    with pytest.raises(SourceError, match="changed while they were read"), atomic_file(tmp_path / "x") as sink:
        safetensors.write(second, sink, WriteOptions(bitmasks=counts))
    assert list(tmp_path.iterdir()) == []


def test_the_entry_is_the_format_s_own(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"weighttools\.bitmask is the format's own"):
        wt.save(tmp_path / "x.safetensors", TensorMap.from_arrays({"a": np.ones(2)}, {"weighttools.bitmask": "{}"}))


ARRAY = np.where(np.arange(3 * BLOCK + 11) % 5 == 0, np.float32(2), np.float32(0))
GOOD = packed(ARRAY)


def hostile(path: Path, data: np.ndarray[Any, Any], record: Any, version: Any = 1) -> Path:
    text = record if isinstance(record, str) else json.dumps({"version": version, "tensors": {"a": record}})
    official_write(path, {"a": data}, {"weighttools.bitmask": text})
    return path


def spec(shape: Any = (ARRAY.size,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape}


@pytest.mark.parametrize(
    ("data", "record", "message"),
    [
        (GOOD, "{", "not well formed"),
        (GOOD, "[]", "not well formed"),
        (GOOD, '{"version": 1}', "not well formed"),
        (GOOD, '{"version": true, "tensors": {}}', "not well formed"),
        (GOOD, '{"version": 1, "tensors": []}', "not well formed"),
        (GOOD, "[" * 100_000, "not well formed"),
        (GOOD, '{"version": 2, "tensors": {}}', "bitmasks are of version 2"),
        (GOOD, '{"version": 1, "tensors": {"b": {"dtype": "F32", "shape": [1]}}}', "'b' holds no bitmask"),
        (GOOD.view(np.int8), spec(), "holds no bitmask"),
        (GOOD[:8].reshape(2, 4), spec((2,)), "holds no bitmask"),
        (GOOD, 3, "not well formed"),
        (GOOD, {"dtype": "F32"}, "not well formed"),
        (GOOD, {**spec(), "more": 1}, "not well formed"),
        (GOOD, spec(shape="x"), "not well formed"),
        (GOOD, spec(dtype="F33"), "unknown dtype"),
        (GOOD, spec(dtype=["F32"]), "unknown dtype"),
        (GOOD, spec((-1,)), "shape"),
        (GOOD, spec((1.5,)), "shape"),
        (GOOD, spec((2**40, 2**40)), "overflows"),
        (GOOD, spec((2**60,)), "are no bitmask"),
        (GOOD, spec((GOOD.size * 9,)), "are no bitmask"),
        (GOOD, spec((10,)), "are no bitmask"),
        (GOOD, spec(dtype="F4"), "F4|float4"),
        (GOOD[:-1], spec(), "are no bitmask"),
        (GOOD[:4], spec((1,)), "are no bitmask"),
    ],
)  # fmt: skip
def test_entries_that_do_not_fit(tmp_path: Path, data: Any, record: Any, message: str) -> None:
    with pytest.raises(CorruptFileError, match=message) as caught:
        wt.open(hostile(tmp_path / "x.safetensors", data, record))
    assert str(caught.value).isprintable()


def broken(*changes: tuple[int, int]) -> np.ndarray[Any, Any]:
    data = GOOD.copy()
    for at, value in changes:
        data[at] = value
    return data


TAIL = GOOD.size - 2 * 4 - 2
"""Where the mask of the last block is: 11 elements, of which 2 are kept."""


@pytest.mark.parametrize(
    "data",
    [
        broken((0, 1)),  # the first block begins behind values
        broken((15, 0xFF)),  # far beyond the values
        broken((8, int(GOOD[8]) ^ 1)),  # one value too few or too many
        broken((16, 0)),
        broken((32, int(GOOD[32]) ^ 2)),  # a bit of a mask more than counted
        broken((TAIL + 1, 0x80)),
        broken((TAIL, 0x04), (TAIL + 1, 0x80)),  # as many bits as counted, one of them beyond the last element
    ],
)  # fmt: skip
def test_counts_are_held_against_each_other(tmp_path: Path, data: np.ndarray[Any, Any]) -> None:
    tensor = wt.open(hostile(tmp_path / "x.safetensors", data, spec()))["a"]
    with pytest.raises(CorruptFileError, match="index of kept values|does not keep"):
        tensor.read()
    with pytest.raises(CorruptFileError):
        list(tensor.blocks(1000))


def test_the_docstring_reads_what_is_written(tmp_path: Path) -> None:
    array = np.where(np.random.default_rng(5).random(200_000) < 0.8, 0, -1.5)
    write(tmp_path / "x.safetensors", {"a": array})
    scope: dict[str, Any] = {}
    lines = [line[4:] for line in (bitmask.__doc__ or "").splitlines() if line.startswith((">>> ", "... "))]
    exec("\n".join(lines), scope)
    data = official_read((tmp_path / "x.safetensors").read_bytes())["a"]
    assert scope["expanded"](data, np.dtype(np.float64), array.size).tobytes() == array.tobytes()


def test_opening_reads_no_values(tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors", {"a": np.zeros(100_000)})
    code = "import sys, weighttools; weighttools.open(sys.argv[1]); print('numpy' in sys.modules)"
    assert run_python(code, str(tmp_path / "x.safetensors")) == "False"

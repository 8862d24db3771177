"""The fingerprint against a program written from its page alone, and what does and does not change it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import blake3
import h5py
import ml_dtypes
import numpy as np
import pytest
import torch
import xxhash
from gguf import GGMLQuantizationType, quants
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import weighttools as wt
from tests.conftest import ROOT
from tests.refused import refused
from tests.strategies import bits_of, tensor_maps
from tests.thorough import at_most
from weighttools.core.dtypes import DTYPES
from weighttools.core.spec import Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import MissingDependencyError
from weighttools.io.source import Bytes
from weighttools.transforms.gguf_layout import heads

PAGE = (ROOT / "examples" / "content-hash.md").read_text(encoding="utf-8")
H: dict[str, Callable[..., Any]] = {"xxh3-128": xxhash.xxh3_128, "sha256": hashlib.sha256, "blake3": blake3.blake3}
BITS = {"float4_e2m1fn": 4, "float6_e2m3fn": 6, "float6_e3m2fn": 6}


def content(arrays: dict[str, np.ndarray[Any, Any]], algorithm: str = "xxh3-128") -> str:
    """The digest of arrays, as the page defines it."""
    begin = H[algorithm]
    whole = begin(b"weighttools content 1\n")
    for name in sorted(arrays, key=lambda name: name.encode()):
        encoded = name.encode()
        whole.update(len(encoded).to_bytes(8, "little") + encoded + tensor(arrays[name], begin))
    return str(whole.hexdigest())


def tensor(array: np.ndarray[Any, Any], begin: Callable[..., Any]) -> bytes:
    one = begin(f"weighttools tensor 1 {array.dtype.name} {','.join(map(str, array.shape))}\n".encode())
    flat = np.ascontiguousarray(array).reshape(-1)
    for at in range(0, flat.size, 1 << 20):
        one.update(begin(packed(flat[at : at + (1 << 20)])).digest())
    return bytes(one.digest())


def packed(flat: np.ndarray[Any, Any]) -> bytes:
    n_bits = BITS.get(flat.dtype.name)
    if n_bits is None:
        return flat.tobytes()
    low = np.unpackbits(flat.view(np.uint8)[:, None], axis=1, count=n_bits, bitorder="little")
    return np.packbits(low.reshape(-1), bitorder="little").tobytes()


VECTORS: list[dict[str, Any]] = [
    {},
    *[{"w": np.arange(4, dtype=np.float32).reshape(2, 2)}] * 3,
    {"s": np.array(7)},
    {"e": np.zeros((0, 3), np.float16)},
    {"b": np.array([0x3F80, 0x8000, 0x7FC0], np.uint16).view(ml_dtypes.bfloat16)},
    {"n": np.array([1, -1, 2], ml_dtypes.float4_e2m1fn)},
    {"a": np.array([1, 2], np.uint8), "c": np.array([1, 2], np.uint8)},
    {"l": np.ones((1 << 20) + 1, np.uint8)},
]


def test_the_vectors_of_the_page() -> None:
    rows = re.findall(r"^\| .* \| (\S+) \| ([0-9a-f]+) \|$", PAGE, re.MULTILINE)
    assert [digest for _, digest in rows] == [content(v, row[0]) for v, row in zip(VECTORS, rows, strict=True)]
    for arrays, (algorithm, digest) in zip(VECTORS, rows, strict=True):
        assert wt.hash(TensorMap.from_arrays(arrays), algorithm=algorithm)["content"] == digest
    tied = TensorMap.from_arrays({"c": np.array([1, 2], np.uint8)}, aliases={"a": "c"})
    assert wt.hash(tied)["content"] == rows[8][1]


@given(tensor_maps(), st.sampled_from(list(H)))
def test_another_program_gives_the_same(tensor_map: TensorMap, algorithm: str) -> None:
    assert wt.hash(tensor_map, algorithm=algorithm)["content"] == content(tensor_map.read(aliases=True), algorithm)


@at_most(10)
@given(st.integers(0, 2**31), st.sampled_from(["float32", "bfloat16", "complex64", "float6_e2m3fn"]), st.integers(0, 3))
def test_several_pieces_and_threads(seed: int, dtype: str, more: int) -> None:
    rng = np.random.default_rng(seed)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    values = rng.standard_normal((1 << 20) + more * 5).astype(np.float32).astype(kind)
    arrays = {"long": values, "f": np.asfortranarray(rng.standard_normal((900, 1300))), "z": np.zeros(3)}
    expected = content(arrays)
    for threads in (1, 3):
        assert wt.hash(TensorMap.from_arrays(arrays), threads=threads)["content"] == expected


def test_processes_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": np.arange(3 << 20, dtype=np.float32), "b": np.ones(5)}, path)
    with ProcessPoolExecutor(1) as processes, ThreadPoolExecutor(2) as threads:
        assert wt.hash(path) == wt.hash(path, executor=processes) == wt.hash(path, executor=threads)


def test_format_order_sharding_and_names_there_and_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {f"l.{i}.w": rng.standard_normal((7, 9)).astype(np.float32) for i in range(5)}
    one = tmp_path / "one.safetensors"
    save_file(values, one, metadata={"anything": "else"})
    expected = content(values)
    wt.convert(one, tmp_path / "shards", max_shard_size="600")
    wt.convert(tmp_path / "shards", tmp_path / "joined.safetensors")
    for name in ("m.gguf", "m.npz", "m.h5", "m.weights.h5", "bits.safetensors"):
        wt.convert(one, tmp_path / name, **({"store": "bitmask"} if name.startswith("bits") else {}))
    turned: dict[str, Any] = {name: np.asfortranarray(value.astype(">f4")) for name, value in values.items()}
    np.savez(tmp_path / "big-endian.npz", **turned)
    np.savez_compressed(tmp_path / "z.npz", **dict(reversed(values.items())))
    torch.save({name: torch.tensor(value.T.copy()).T for name, value in values.items()}, tmp_path / "m.pt")
    with h5py.File(tmp_path / "chunks.h5", "w") as file:
        for name, value in values.items():
            file.create_dataset(name, data=value.astype(">f4"), chunks=(2, 2), compression="gzip")
    for path in sorted(tmp_path.iterdir()):
        assert wt.hash(path)["content"] == expected, path
    there = wt.open(one).rename(lambda name: f"model.{name}")
    assert wt.hash(there)["content"] != expected
    assert wt.hash(there.rename(lambda name: name.removeprefix("model.")))["content"] == expected


@given(tensor_maps(min_size=1, aliases=False), st.data())
def test_any_bit_name_dtype_or_shape_changes_it(tensor_map: TensorMap, data: st.DataObject) -> None:
    arrays = tensor_map.read()
    known = {content(arrays)}
    name = data.draw(st.sampled_from(sorted(arrays)))
    array = arrays[name]
    changed = [{**arrays, name: array.reshape((*array.shape, 1))}]
    changed.append(
        {(f"{key}x" if key == name and f"{key}x" not in arrays else key): one for key, one in arrays.items()}
    )
    if array.size and array.dtype != bool and array.dtype.name not in BITS:
        flipped = bits_of(array).copy()
        flipped[data.draw(st.integers(0, flipped.size - 1))] ^= 1 << data.draw(st.integers(0, 7))
        changed.append({**arrays, name: flipped.view(array.dtype).reshape(array.shape)})
    if array.dtype == np.float32:
        changed.append({**arrays, name: array.view(np.int32)})
    for one in changed:
        if list(one) != list(arrays) or any(one[key] is not arrays[key] for key in arrays):
            assert wt.hash(TensorMap.from_arrays(one))["content"] not in known


def test_quantised_blocks_go_as_stored_or_decoded(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    wt.save(tmp_path / "f.safetensors", TensorMap.from_arrays({"w": values}))
    wt.convert(tmp_path / "f.safetensors", tmp_path / "q.gguf", quantize="q8_0")
    quantised = wt.open(tmp_path / "q.gguf")
    assert quantised["w"].spec.encoding == "q8_0"
    decoded = content({"w": quantised["w"].read()})
    assert wt.hash(quantised, decoded=True)["content"] == decoded
    stored = quantised["w"].stored
    assert stored is not None
    blocks = stored.source.read(stored.offset, stored.length)
    leaf = xxhash.xxh3_128(blocks).digest()
    expected = xxhash.xxh3_128(b"weighttools tensor 1 q8_0 2,32\n" + leaf).hexdigest()
    assert wt.hash(quantised)["tensors"][0]["hash"] == expected


def test_blocks_that_lie_in_no_file_are_cut_where_stored_ones_are(tmp_path: Path) -> None:
    """Rows of heads are put in order some whole heads at a time, and a piece may end within one."""
    n_heads, head, row = 20, 128, 640
    values = np.random.default_rng(0).standard_normal((n_heads * head, row)).astype(np.float32)
    blocks = quants.quantize(values, GGMLQuantizationType.Q8_0)
    wt.save(tmp_path / "f.safetensors", TensorMap.from_arrays({"w": values}))
    wt.convert(tmp_path / "f.safetensors", tmp_path / "q.gguf", quantize="q8_0")
    turned = heads(wt.open(tmp_path / "q.gguf")["w"], n_heads, "w", interleave=False)
    data = blocks.reshape(n_heads, head // 2, 2, -1).swapaxes(1, 2).tobytes()
    size = (1 << 20) // 32 * 34
    leaves = b"".join(xxhash.xxh3_128(data[at : at + size]).digest() for at in range(0, len(data), size))
    expected = xxhash.xxh3_128(f"weighttools tensor 1 q8_0 {n_heads * head},{row}\n".encode() + leaves).hexdigest()
    assert wt.hash(TensorMap({"w": turned}))["tensors"][0]["hash"] == expected


def test_what_fills_up_a_last_byte_is_no_content() -> None:
    spec = Spec(DTYPES["float4_e2m1fn"], (3,))
    expected = content({"n": np.array([1, -1, 2], ml_dtypes.float4_e2m1fn)})
    for last in (0x04, 0xF4):
        stored = Span(Bytes(bytes([0xA2, last])), 0, 2)
        assert wt.hash(TensorMap({"n": Tensor(spec, None, stored)}))["content"] == expected


def test_files_as_other_programs_name_them(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"w": np.ones(3)}, path)
    [row] = wt.hash(path, files=True)["files"]
    data = path.read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    assert row["sha256"] == hashlib.sha256(data).hexdigest() and row["size"] == len(data)
    assert (row["autov2"], row["autov3"]) == (row["sha256"][:10], hashlib.sha256(body).hexdigest()[:12])


def test_a_record_names_the_definition_that_the_page_has() -> None:
    record = wt.hash(TensorMap.from_arrays({"w": np.ones(2)}))
    assert PAGE.startswith(f"# The content fingerprint, version {record['version']}\n")


def test_a_name_that_is_no_utf8_counts_by_its_bytes() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    digest = tensor(np.ones(2), xxhash.xxh3_128)
    expected = xxhash.xxh3_128(b"weighttools content 1\n" + (4).to_bytes(8, "little") + b"caf\xe9" + digest)
    assert wt.hash(TensorMap.from_arrays({name: np.ones(2)}))["content"] == expected.hexdigest()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "blake3", None)
    with refused(MissingDependencyError, "missing-dependency", "blake3", "hash"):
        wt.hash(TensorMap.from_arrays({"w": np.ones(2)}), algorithm="blake3")

"""A manifest whose parts contradict each other is refused, and what its maker chose is what it is held by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from safetensors.numpy import save_file

import weighttools as wt
from tests.refused import refused
from tests.strategies import tensor_maps
from weighttools.analyzers.digest.statement import read_manifest
from weighttools.analyzers.digest.tree import PIECE_ELEMENTS, content_digest, digests, named_digests
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, UnsupportedError

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    save_file({"a": np.ones(3), "b": np.arange(4.0)}, tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / "config.json").write_text("{}")
    return tmp_path / "m"


def changed(folder: Path, change: Change, **settings: Any) -> Path:
    """Write a manifest of a folder, change it, and return where it is."""
    path = folder.parent / "manifest.json"
    wt.hash(folder, manifest=path, **settings)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize("change", [
    lambda record: record.update(content="0" * 32),
    lambda record: record["tensors"][0].update(hash="0" * 32),
    lambda record: record["tensors"][0].update(pieces=["0" * 32]),
    lambda record: record["tensors"][0].update(pieces=["no digits"]),
    lambda record: record["tensors"][0].update(dtype="float32"),
    lambda record: record["tensors"][0].update(shape=[3, 1]),
    lambda record: record["tensors"][0].update(shape=[-3]),
    lambda record: record["tensors"].append(record["tensors"][0]),
    lambda record: record["tensors"].pop(),
    lambda record: record.update(aliases={"c": "a"}),
    lambda record: record.update(aliases={"c": "nothing"}),
    lambda record: record.update(aliases={"a": "b"}),
    lambda record: record.update(decoded="yes"),
    lambda record: record["files"][0].update(size=-1),
    lambda record: record["files"][0].update(sha256="abcd"),
])  # fmt: skip
def test_a_manifest_at_odds_with_itself_is_refused(folder: Path, change: Change) -> None:
    with refused(CorruptFileError, "bad-manifest", "manifest.json"):
        wt.verify(changed(folder, change), folder)


def test_an_algorithm_that_is_not_known_is_refused(folder: Path) -> None:
    with refused(UnsupportedError, "unknown-manifest", "md5"):
        wt.verify(changed(folder, lambda record: record.update(algorithm="md5")), folder)


def test_a_manifest_of_decoded_values_is_held_against_decoded_values(tmp_path: Path) -> None:
    """Also where a copy has the very values as plain float32."""
    save_file({"w": np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)}, tmp_path / "f.safetensors")
    wt.convert(tmp_path / "f.safetensors", tmp_path / "q.gguf", quantize="q8_0")
    wt.hash(tmp_path / "q.gguf", decoded=True, manifest=tmp_path / "manifest.json")
    (tmp_path / "copy.gguf").write_bytes((tmp_path / "q.gguf").read_bytes())
    wt.convert(tmp_path / "q.gguf", tmp_path / "plain.safetensors", dequantize="float32")
    for name in ("q.gguf", "copy.gguf", "plain.safetensors"):
        record = wt.verify(tmp_path / "manifest.json", tmp_path / name)
        assert record["same"], (name, record["problems"])
    assert not wt.verify(tmp_path / "manifest.json", tmp_path / "f.safetensors")["same"]


@given(tensor_maps())
def test_what_is_written_of_any_map_is_read(tensor_map: TensorMap) -> None:
    """Names, ties and shapes as they come; the form is JSON and back."""
    from weighttools.analyzers.digest.manifest import Manifest, tensor_entries, to_bytes

    stored, named = named_digests(tensor_map, digests(tensor_map.values(), "sha256"))
    content = content_digest(named, "sha256").hex()
    made = Manifest("manifest", (), "sha256", content, tensor_entries(tensor_map, stored), dict(tensor_map.aliases))
    assert read_manifest(json.loads(to_bytes(made.record())), "x") == made


def oms(folder: Path, change: Change) -> Path:
    return changed(folder, change, manifest_format="oms")


@pytest.mark.parametrize("change", [
    lambda told: told["subject"][0]["digest"].update(sha256="0" * 64),
    lambda told: told.pop("subject"),
    lambda told: told.update(subject=[]),
    lambda told: told.update(subject=[*told["subject"], *told["subject"]]),
    lambda told: told.update(subject=["m"]),
    lambda told: told["subject"][0].update(digest={}),
    lambda told: told["predicate"]["resources"].pop(),
    lambda told: told["predicate"]["resources"].reverse(),
    lambda told: told["predicate"]["serialization"].update(ignore_paths=[1]),
])  # fmt: skip
def test_a_statement_at_odds_with_its_subject_is_refused(folder: Path, change: Change) -> None:
    """As model-signing's ``dsse_payload_to_manifest`` refuses it."""
    with refused(CorruptFileError, "bad-manifest", "manifest.json"):
        wt.verify(oms(folder, change), folder)


@pytest.mark.parametrize("change", [
    lambda told: told.update(_type="https://in-toto.io/Statement/v0.1"),
    lambda told: told["predicate"]["resources"][0].update(algorithm="blake2b"),
])  # fmt: skip
def test_a_statement_of_another_kind_is_refused(folder: Path, change: Change) -> None:
    with refused(UnsupportedError, "unknown-manifest", "manifest.json"):
        wt.verify(oms(folder, change), folder)


def test_what_a_statement_leaves_out_is_not_extra(folder: Path) -> None:
    """``ignore_paths`` of model-signing: a file, or a folder with all that is in it; nothing that only begins alike."""
    path = oms(folder, lambda told: told["predicate"]["serialization"].update(ignore_paths=["model.sig", "logs"]))
    (folder / "model.sig").write_text("{}")
    (folder / "logs").mkdir()
    (folder / "logs" / "a.txt").write_text("x")
    record = wt.verify(path, folder)
    assert record["same"] and "model.sig" in record["notes"][-1]
    (folder / "logs.txt").write_text("x")
    assert [row["name"] for row in wt.verify(path, folder)["problems"]] == ["logs.txt"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_a_flipped_bit_is_located_in_the_file(dtype: str, tmp_path: Path) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    path = tmp_path / "m.safetensors"
    save_file({"w": np.zeros(PIECE_ELEMENTS * 2 + 5, kind), "x": np.zeros(3, kind)}, path)
    wt.hash(path, manifest=tmp_path / "manifest.json")
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    at = start + header["w"]["data_offsets"][0] + (PIECE_ELEMENTS + 3) * kind.itemsize
    data[at] ^= 1
    path.write_bytes(data)
    detail = wt.verify(tmp_path / "manifest.json")["problems"][-1]["detail"] or ""
    first, last = (int(word.replace(",", "")) for word in detail.split("bytes ")[1].split(" of")[0].split(" to "))
    assert first <= at <= last and last - first + 1 == PIECE_ELEMENTS * kind.itemsize
    assert hashlib.sha256(data[first : last + 1]).digest() != hashlib.sha256(bytes(last + 1 - first)).digest()

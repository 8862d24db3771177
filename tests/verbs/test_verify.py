"""The verb ``verify``: manifests, statements for others to sign, and Hugging Face caches."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighttools as wt
from tests.conftest import ROOT
from tests.refused import refused
from tests.work import calls_of
from weighttools.analyzers.digest.files import sha256
from weighttools.core.tensormap import TensorMap
from weighttools.errors import (
    CorruptFileError,
    SourceError,
    SpecError,
    UnknownFormatError,
    UnsafeFileError,
    UnsupportedError,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "fixtures" / "huggingface" / "sharded", tmp_path / "m")
    return tmp_path / "m"


def problems(record: Any) -> list[tuple[str, str, str]]:
    return [(row["what"], row["kind"], row["name"]) for row in record["problems"]]


def test_a_manifest_is_verified_where_it_lies_and_against_another_form(model: Path, tmp_path: Path) -> None:
    manifest = model / "manifest.json"
    wt.hash(model, manifest=manifest)
    record = wt.verify(manifest)
    assert record["same"] and (record["n_files"], record["n_tensors"]) == (4, 7) and record["notes"] == []
    for row in json.loads(manifest.read_text())["files"]:
        data = (model / row["path"]).read_bytes()
        assert (row["size"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    wt.convert(model, tmp_path / "one.npz")
    other = wt.verify(manifest, tmp_path / "one.npz")
    assert other["same"] and other["n_files"] == 0 and "content" in other["notes"][0]


def test_what_is_missing_extra_or_changed_is_named(model: Path) -> None:
    manifest = model / "manifest.json"
    wt.hash(model, manifest=manifest)
    first, second, *_ = sorted(model.glob("*.safetensors"))
    data = bytearray(first.read_bytes())
    data[-1] ^= 0x40
    first.write_bytes(data)
    (model / "more.txt").write_text("x")
    record = wt.verify(manifest)
    told = problems(record)
    assert not record["same"] and ("changed", "file", first.name) in told and ("extra", "file", "more.txt") in told
    [tensor] = [row for row in record["problems"] if row["kind"] == "tensor"]
    assert tensor["what"] == "changed" and tensor["name"] in wt.open(first)
    lost = set(wt.open(second))
    second.unlink()
    told = problems(wt.verify(manifest))
    assert ("missing", "file", second.name) in told and ("changed", "tensor", tensor["name"]) in told
    assert {name for what, kind, name in told if (what, kind) == ("missing", "tensor")} == lost


def test_missing_extra_and_other_tensors(tmp_path: Path) -> None:
    old = {"a": np.ones(3), "b": np.ones((2, 2)), "c": np.zeros(2)}
    save_file(old, tmp_path / "old.safetensors")
    wt.hash(tmp_path / "old.safetensors", manifest=tmp_path / "manifest.json")
    save_file({"a": np.ones(3), "b": np.ones(4), "d": np.zeros(2)}, tmp_path / "new.safetensors")
    record = wt.verify(tmp_path / "manifest.json", tmp_path / "new.safetensors")
    assert problems(record) == [("changed", "tensor", "b"), ("missing", "tensor", "c"), ("extra", "tensor", "d")]
    assert "[4] instead of float64 [2, 2]" in (record["problems"][0]["detail"] or "")


def test_a_flipped_bit_is_located(tmp_path: Path) -> None:
    values = np.arange(5 << 20, dtype=np.int16)
    save_file({"w": values}, tmp_path / "m.safetensors")
    wt.hash(tmp_path / "m.safetensors", manifest=tmp_path / "manifest.json")
    values[(3 << 20) + 7] ^= 1
    save_file({"w": values}, tmp_path / "m.safetensors")
    record = wt.verify(tmp_path / "manifest.json")
    path = tmp_path / "m.safetensors"
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    first, last = start + (6 << 20), start + (8 << 20) - 1
    expected = f"elements 3,145,728 to 4,194,303, bytes {first:,} to {last:,} of {path}"
    assert record["problems"][-1]["detail"] == expected


def test_a_changed_header_alone_is_told_apart(tmp_path: Path) -> None:
    save_file({"w": np.ones(3)}, tmp_path / "m.safetensors")
    wt.hash(tmp_path / "m.safetensors", manifest=tmp_path / "manifest.json")
    save_file({"w": np.ones(3)}, tmp_path / "m.safetensors", metadata={"a": "b"})
    record = wt.verify(tmp_path / "manifest.json")
    assert problems(record) == [("changed", "file", "m.safetensors")] and "every bit" in record["notes"][0]


def test_a_statement_has_the_digest_of_its_parts(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "statement.json"
    wt.hash(model, manifest=target, manifest_format="oms")
    told = json.loads(target.read_text())
    resources = told["predicate"]["resources"]
    assert [row["name"] for row in resources] == sorted(row["name"] for row in resources)
    whole = hashlib.sha256(b"".join(bytes.fromhex(row["digest"]) for row in resources)).hexdigest()
    assert told["subject"] == [{"name": "m", "digest": {"sha256": whole}}]
    for row in resources:
        assert hashlib.sha256((model / row["name"]).read_bytes()).hexdigest() == row["digest"]
    record = wt.verify(target, model)
    assert record["same"] and record["against"] == "oms" and "not checked" in record["notes"][0]
    bundle = {"dsseEnvelope": {"payload": base64.b64encode(target.read_bytes()).decode(), "signatures": []}}
    target.write_text(json.dumps(bundle))
    (model / "model.safetensors.index.json").write_text("{}")
    assert problems(wt.verify(target, model)) == [("changed", "file", "model.safetensors.index.json")]


def test_a_link_out_is_read_for_weights_alone(model: Path, tmp_path: Path) -> None:
    wt.hash(model, manifest=tmp_path / "m.json")
    shard, index = next(model.glob("*.safetensors")), model / "model.safetensors.index.json"
    for file in (shard, index):
        (tmp_path / file.name).write_bytes(file.read_bytes())
        file.unlink()
        file.symlink_to(tmp_path / file.name)
    told = problems(wt.verify(tmp_path / "m.json", model))
    assert ("missing", "file", index.name) in told and not any(name == shard.name for _, _, name in told)


def test_hidden_files_are_said_and_ignored(model: Path) -> None:
    (model / ".gitattributes").write_text("x")
    target = model / "statement.json"
    for _ in range(2):
        notes = wt.hash(model, manifest=target, manifest_format="oms", force=True)["notes"]
    assert any("hidden" in note and ".gitattributes" in note for note in notes)
    told = json.loads(target.read_text())["predicate"]
    assert told["serialization"]["ignore_paths"] == [".gitattributes", "statement.json"]
    assert wt.verify(target, model)["same"]


def test_hidden_files_of_folders_are_ignored_too(model: Path) -> None:
    """Who verifies the statement walks through folders, and would take them for more than was signed."""
    for name in ("onnx/.cache/x", "onnx/a.txt", "onnx/.b", "onnx-notes.md"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(name)
    (model / "onnx" / "loop").symlink_to("..")
    target = model.parent / "statement.json"
    wt.hash(model, manifest=target, manifest_format="oms")
    told = json.loads(target.read_text())
    assert told["predicate"]["serialization"]["ignore_paths"] == ["onnx/.b", "onnx/.cache"]
    names = [row["name"] for row in told["predicate"]["resources"]]
    assert names == [str(path) for path in sorted(map(PurePosixPath, names))], "model-signing sorts paths, not texts"
    assert names.index("onnx/a.txt") < names.index("onnx-notes.md")


def test_a_statement_of_a_file_calls_it_as_model_signing_does(model: Path, tmp_path: Path) -> None:
    shard, target = next(model.glob("*.safetensors")), tmp_path / "statement.json"
    wt.hash(shard, manifest=target, manifest_format="oms")
    told = json.loads(target.read_text())
    assert told["subject"][0]["name"] == shard.name
    assert [row["name"] for row in told["predicate"]["resources"]] == ["."]
    (tmp_path / "copy.safetensors").write_bytes(shard.read_bytes())
    for place in (shard, tmp_path / "copy.safetensors", model):
        assert wt.verify(target, place)["same"], place
    (tmp_path / "copy.safetensors").write_bytes(shard.read_bytes()[:-1])
    assert problems(wt.verify(target, tmp_path / "copy.safetensors")) == [("changed", "file", shard.name)]


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_statement_says_whether_there_are_links(is_linked: bool, model: Path, tmp_path: Path) -> None:
    index = model / "model.safetensors.index.json"
    if is_linked:
        index.rename(model / "there.json")
        index.symlink_to("there.json")
    wt.hash(model, manifest=tmp_path / "s.json", manifest_format="oms")
    told = json.loads((tmp_path / "s.json").read_text())["predicate"]["serialization"]
    assert told["allow_symlinks"] is is_linked


def test_an_index_stands_for_its_directory(model: Path, tmp_path: Path) -> None:
    index, target = model / "model.safetensors.index.json", tmp_path / "m.json"
    for made in (index, model):
        wt.hash(made, manifest=target, force=True)
        assert wt.verify(target, index)["problems"] == [] and wt.verify(target, model)["problems"] == []
    (model / "README.md").write_text("x")
    assert problems(wt.verify(target, index)) == [("extra", "file", "README.md")]


def test_a_manifest_of_a_file_says_nothing_of_what_lies_beside_it(model: Path, tmp_path: Path) -> None:
    shard = next(model.glob("*.safetensors"))
    wt.hash(shard, manifest=tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text())["whole"] is False
    assert wt.verify(tmp_path / "m.json", shard)["same"] and wt.verify(tmp_path / "m.json", model)["same"]


def test_other_shards_beside_the_same_companions(model: Path, tmp_path: Path) -> None:
    """Cut anew: the content and the other files are held against the manifest, the weight files are not."""
    (model / "config.json").write_text('{"model_type": "x"}')
    wt.hash(model, manifest=tmp_path / "m.json")
    wt.convert(model, tmp_path / "one", single=True)
    record = wt.verify(tmp_path / "m.json", tmp_path / "one")
    assert record["same"] and "content" in record["notes"][0], record
    (tmp_path / "one" / "config.json").write_text('{"model_type": "y"}')
    assert problems(wt.verify(tmp_path / "m.json", tmp_path / "one")) == [("changed", "file", "config.json")]
    (tmp_path / "one" / "config.json").unlink()
    (tmp_path / "one" / "more.py").write_text("")
    told = problems(wt.verify(tmp_path / "m.json", tmp_path / "one"))
    assert told == [("missing", "file", "config.json"), ("extra", "file", "more.py")]


def test_a_name_that_not_every_system_takes_is_refused_before_it_is_written(model: Path, tmp_path: Path) -> None:
    (model / "a\\b.txt").write_text("x")
    with refused(UnsafeFileError, "leaves-directory", "a\\\\b.txt"):
        wt.hash(model, manifest=tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_standard_output_has_the_manifest_alone(run_cli: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    done = run_cli("hash", model, "--manifest", "-")
    (tmp_path / "m.json").write_text(done.out)
    assert wt.verify(tmp_path / "m.json", model)["same"]


def git_name(data: bytes) -> str:
    done = subprocess.run(["git", "hash-object", "--stdin"], input=data, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture(params=["old", "new"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A cache as huggingface_hub lays it out: before and since blobs are shared between repositories."""
    home = tmp_path / "models--org--name"
    snapshot = home / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "made.safetensors")
    contents = {
        "config.json": b'{"model_type": "x"}',
        "model.safetensors": (tmp_path / "made.safetensors").read_bytes(),
    }
    for name, data in contents.items():
        is_large = name.endswith(".safetensors")
        etag = hashlib.sha256(data).hexdigest() if is_large else git_name(data)
        blob = home / "blobs" / etag
        if is_large and request.param == "new":
            shared = tmp_path / "blobs" / "ab" / ("ab" + "0" * 62)
            shared.parent.mkdir(parents=True)
            shared.write_bytes(data)
            blob.symlink_to(os.path.relpath(shared, blob.parent))
        else:
            blob.write_bytes(data)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    return home


def test_a_cache_is_verified_against_its_blobs_names(cache: Path) -> None:
    snapshot = cache / "snapshots" / ("a" * 40)
    for path in (cache, snapshot):
        record = wt.verify(path)
        assert record["same"] and record["n_files"] == 2 and record["against"] == "cache", record
    (snapshot / "note.txt").write_text("mine")
    assert "note.txt" in wt.verify(snapshot)["notes"][0]
    real = Path(os.path.realpath(snapshot / "model.safetensors"))
    data = bytearray(real.read_bytes())
    data[-1] ^= 1
    real.write_bytes(data)
    assert problems(wt.verify(cache)) == [("changed", "file", "model.safetensors")]
    real.unlink()
    assert problems(wt.verify(cache)) == [("missing", "file", "model.safetensors")]


def test_a_model_is_found_by_its_name_though_it_cannot_be_opened(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what is damaged that one looks for."""
    monkeypatch.setenv("HF_HUB_CACHE", str(cache.parent))
    monkeypatch.chdir(cache)
    assert wt.verify("org/name")["same"]
    real = Path(os.path.realpath(cache / "snapshots" / ("a" * 40) / "model.safetensors"))
    real.write_bytes(b"x" + real.read_bytes())
    assert problems(wt.verify("org/name")) == [("changed", "file", "model.safetensors")]


def test_a_manifest_is_held_against_a_model_in_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(cache.parent))
    monkeypatch.chdir(cache)
    wt.hash("org/name", manifest=tmp_path / "m.json")
    record = wt.verify(tmp_path / "m.json", "org/name")
    assert record["same"] and (record["n_files"], record["n_tensors"]) == (2, 1)


def test_a_blob_of_several_snapshots_is_read_once(cache: Path) -> None:
    shutil.copytree(cache / "snapshots" / ("a" * 40), cache / "snapshots" / ("b" * 40), symlinks=True)
    with calls_of(sha256) as work:
        assert wt.verify(cache)["n_files"] == 4
    assert work.calls == 1


def test_companions_of_the_shared_store_are_the_caches_own(cache: Path) -> None:
    """A tokenizer may be a large file, which lies in the store that repositories share."""
    snapshot = cache / "snapshots" / ("a" * 40)
    shared = cache.parent / "blobs" / "cd" / ("cd" + "0" * 62)
    shared.parent.mkdir(parents=True, exist_ok=True)
    shared.write_text("{}")
    (cache / "blobs" / ("e" * 64)).symlink_to(os.path.relpath(shared, cache / "blobs"))
    (snapshot / "tokenizer.json").symlink_to(os.path.relpath(cache / "blobs" / ("e" * 64), snapshot))
    assert not [note for note in wt.open(snapshot).origin.notes if "not taken" in note]
    wt.convert(snapshot, cache.parent / "copy")
    assert (cache.parent / "copy" / "tokenizer.json").read_text() == "{}"


@pytest.mark.parametrize(("change", "kind", "code"), [
    ({"schema": "weighttools.manifest/9"}, UnsupportedError, "unknown-manifest"),
    ({"files": 3}, CorruptFileError, "bad-manifest"),
    ({"files": [{"path": "../x", "size": 1, "sha256": "ab"}]}, UnsafeFileError, "leaves-directory"),
    ({"files": [{"path": "/etc/passwd", "size": 1, "sha256": "ab"}]}, UnsafeFileError, "leaves-directory"),
    ({"files": [{"path": "a", "size": 1, "sha256": "zz"}]}, CorruptFileError, "bad-manifest"),
    ({"files": [{"path": "a", "size": 1, "sha256": "ab"}] * 2}, CorruptFileError, "bad-manifest"),
    ({"tensors": [{"name": 1}]}, CorruptFileError, "bad-manifest"),
    ({"aliases": []}, CorruptFileError, "bad-manifest"),
    ({"piece_elements": 7}, CorruptFileError, "bad-manifest"),
])  # fmt: skip
def test_a_bad_manifest_is_refused(model: Path, change: dict[str, Any], kind: Any, code: str) -> None:
    manifest = model / "manifest.json"
    wt.hash(model, manifest=manifest)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    with refused(kind, code, "manifest.json"):
        wt.verify(manifest)


def test_what_is_no_manifest_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    for path in (tmp_path / "x.json", model, next(model.glob("*.safetensors"))):
        with pytest.raises(UnknownFormatError):
            wt.verify(path)
    (tmp_path / "x.json").write_text("{")
    with refused(CorruptFileError, "bad-json", "x.json"):
        wt.verify(tmp_path / "x.json")
    with pytest.raises(SourceError):
        wt.verify(tmp_path / "none.json")
    wt.hash(model, manifest=tmp_path / "m.json")
    with refused(SourceError, "no-such-file", "gone"):
        wt.verify(tmp_path / "m.json", tmp_path / "gone")


def test_a_manifest_is_whole_and_replaces_nothing(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "manifest.json"
    target.write_text("mine")
    with pytest.raises(SourceError):
        wt.hash(model, manifest=target)
    assert target.read_text() == "mine"
    with refused(SpecError, "options-exclude"):
        wt.hash(model, manifest=target, force=True, include=["*norm*"])
    with refused(SpecError, "needs-a-path"):
        wt.hash(TensorMap.from_arrays({"w": np.ones(2)}), manifest=target, force=True)
    shard = next(model.glob("*.safetensors"))
    with pytest.raises(SpecError):
        wt.hash(model, manifest=shard, force=True)
    wt.hash(model, manifest=target, force=True)
    assert wt.verify(target, model)["same"]


def test_exit_codes(inside: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    target = tmp_path / "manifest.json"
    assert inside("hash", model, "--manifest", target).code == 0
    assert inside("verify", target, model)[:2] == (0, f"{model}: verified (4 files, 7 tensors)\n")
    (model / "model.safetensors.index.json").write_text("{}")
    changed = inside("verify", target, model)
    assert changed.code == 1 and changed.out.startswith("changed file model.safetensors.index.json")
    for bad in (("verify", tmp_path / "none"), ("verify", model), ("hash", model, model, "--manifest", target)):
        found = inside(*bad)
        assert found.code == 2 and not found.out and found.err.strip(), found

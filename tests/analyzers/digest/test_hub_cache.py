"""Hugging Face caches, made by hand as huggingface_hub lays them out, and as no one should."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import scan_cache_dir

import weighttools as wt
from tests.refused import refused
from weighttools.errors import SourceError

Put = Callable[[str, bytes], Path]


def git_name(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    home = tmp_path / "hub" / "models--org--name"
    made = home / "snapshots" / ("a" * 40)
    made.mkdir(parents=True)
    (home / "blobs").mkdir()
    return made


@pytest.fixture
def put(snapshot: Path) -> Put:
    def put(name: str, data: bytes) -> Path:
        """Cache a small file, and return its blob."""
        blob = snapshot.parents[1] / "blobs" / git_name(data)
        blob.write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
        return blob

    return put


def problems(record: Any) -> list[tuple[str, str]]:
    return [(row["what"], row["name"]) for row in record["problems"]]


def test_the_layout_is_the_librarys(snapshot: Path, put: Put) -> None:
    put("config.json", b"{}")
    put("onnx/model.json", b"[]")
    [repository] = scan_cache_dir(snapshot.parents[2]).repos
    assert repository.repo_id == "org/name" and repository.nb_files == 2
    record = wt.verify(snapshot)
    assert record["same"] and record["n_files"] == 2
    assert "cannot be told" in record["notes"][-1]  # whether the repository has more files


def test_a_blob_that_is_gone_is_missing(snapshot: Path, put: Put) -> None:
    put("config.json", b"{}").unlink()
    put("other.json", b"[]")
    assert problems(wt.verify(snapshot)) == [("missing", "config.json")]


@pytest.mark.parametrize("through", ["the file", "the blob", "a folder"])
def test_what_leads_out_of_the_cache_is_not_read(through: str, snapshot: Path, put: Put, tmp_path: Path) -> None:
    """Not even where it has a blob's name and the right digest: nothing tells what lies elsewhere."""
    put("config.json", b"{}")
    private = tmp_path / "elsewhere" / "blobs" / git_name(b"private")
    private.parent.mkdir(parents=True)
    private.write_bytes(b"private")
    blob = snapshot.parents[1] / "blobs" / private.name
    if through == "the file":
        (snapshot / "x").symlink_to(private)
    elif through == "the blob":
        blob.symlink_to(private)
        (snapshot / "x").symlink_to(os.path.relpath(blob, snapshot))
    else:
        (snapshot / "x").symlink_to(private.parent)
    record = wt.verify(snapshot)
    assert record["n_files"] == 1 and record["same"]
    assert any("not verified" in note and "x" in note for note in record["notes"]), record["notes"]
    private.write_bytes(b"another")
    assert wt.verify(snapshot)["problems"] == []


@pytest.mark.parametrize("is_copied", [True, False])
def test_a_weight_file_that_cannot_be_verified_is_a_problem(
    is_copied: bool, snapshot: Path, put: Put, tmp_path: Path
) -> None:
    put("config.json", b"{}")
    (tmp_path / "elsewhere").write_bytes(b"weights")
    if is_copied:
        (snapshot / "model-00002-of-00002.safetensors").write_bytes(b"weights")
    else:
        (snapshot / "model-00002-of-00002.safetensors").symlink_to(tmp_path / "elsewhere")
    record = wt.verify(snapshot)
    assert not record["same"] and problems(record) == [("unverified", "model-00002-of-00002.safetensors")]


def test_what_is_no_file_is_named(snapshot: Path, put: Put) -> None:
    put("config.json", b"{}")
    os.mkfifo(snapshot.parents[1] / "blobs" / ("d" * 40))
    (snapshot / "pipe").symlink_to("../../blobs/" + "d" * 40)
    (snapshot / "loop").symlink_to("loop")
    record = wt.verify(snapshot)
    assert problems(record) == [("changed", "pipe")]
    assert any("loop" in note for note in record["notes"])


@pytest.mark.parametrize("is_copied", [True, False])
def test_where_nothing_can_be_verified_nothing_is_called_verified(is_copied: bool, snapshot: Path) -> None:
    """Where a system has no links, files lie in the snapshot themselves, without a digest for a name."""
    if is_copied:
        (snapshot / "model.safetensors").write_bytes(b"x")
    with refused(SourceError, "nothing-to-verify", snapshot):
        wt.verify(snapshot)


def test_a_repository_whose_snapshots_differ(snapshot: Path, put: Put) -> None:
    blob = put("config.json", b"{}")
    other = snapshot.parent / ("b" * 40)
    other.mkdir()
    (other / "config.json").symlink_to(os.path.relpath(blob, other))
    assert wt.verify(snapshot.parents[1])["n_files"] == 2
    blob.write_bytes(b"[]")
    told = {name for _, name in problems(wt.verify(snapshot.parents[1]))}
    assert told == {f"{'a' * 40}/config.json", f"{'b' * 40}/config.json"}

"""The last step: without force nothing is replaced, and all that appears is on the disk already."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import weighttools
from tests.refused import refused
from weighttools.errors import SourceError
from weighttools.io import directory, placing, sink

WAYS = ("kernel", "link", "claim")
"""How a file gets its name: by one call, by a second name, or by taking the name first."""


def without(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what a way does without."""

    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if way != "kernel":
        monkeypatch.setattr(placing, "_renameat2", lambda *args: errno.EINVAL)
    if way == "claim":
        monkeypatch.setattr(os, "link", refused)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_appeared_meanwhile_stays(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(way, monkeypatch)
    target = tmp_path / "t"
    with refused(SourceError, "target-exists", "t: ", "appeared", "--force"), sink.atomic_file(target) as file:
        file.write(b"late")
        target.write_bytes(b"mine")
    assert target.read_bytes() == b"mine" and os.listdir(tmp_path) == ["t"]
    with sink.atomic_file(tmp_path / "u") as file:
        file.write(b"new")
    assert (tmp_path / "u").read_bytes() == b"new" and sorted(os.listdir(tmp_path)) == ["t", "u"]


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
@pytest.mark.parametrize("way", ["kernel", "link"])
def test_a_directory_that_appeared_meanwhile_stays(
    kind: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(way, monkeypatch)
    target = tmp_path / "t"
    with refused(SourceError, "target-exists", "t: ", "--force"), directory.atomic_directory(target) as new:
        (new / "f").write_bytes(b"late")
        if kind == "directory":
            target.mkdir()
            (target / "f").write_bytes(b"mine")
        elif kind == "file":
            target.write_bytes(b"mine")
        else:
            target.symlink_to("nowhere")
    assert os.listdir(tmp_path) == ["t"]
    if kind == "directory":
        assert (target / "f").read_bytes() == b"mine"


def raced(n: int, write: Callable[[int, threading.Barrier], None]) -> list[BaseException | None]:
    """Let several write at once, each to the end of its writing before any takes its last step."""
    barrier, errors = threading.Barrier(n), [None] * n  # type: list[BaseException | None]

    def run(i: int) -> None:
        try:
            write(i, barrier)
        except SourceError as error:
            errors[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_directory", [False, True])
def test_of_writers_at_once_one_wins(
    is_directory: bool, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(way, monkeypatch)
    target = tmp_path / "t"

    def write(i: int, barrier: threading.Barrier) -> None:
        manager: AbstractContextManager[Any]
        manager = directory.atomic_directory(target) if is_directory else sink.atomic_file(target)
        with manager as made:
            if is_directory:
                (made / "f").write_bytes(b"%d" % i)
            else:
                made.write(b"%d" % i)
            barrier.wait(30)

    errors = raced(4, write)
    winner = (target / "f" if is_directory else target).read_bytes()
    assert [error is None for error in errors] == [b"%d" % i == winner for i in range(4)]
    assert os.listdir(tmp_path) == ["t"]


def test_with_force_the_last_one_stands(tmp_path: Path) -> None:
    def write(i: int, barrier: threading.Barrier) -> None:
        with sink.atomic_file(tmp_path / "t", force=True) as file:
            file.write(b"%d" % i)
            barrier.wait(30)

    assert raced(4, write) == [None] * 4 and len((tmp_path / "t").read_bytes()) == 1


def test_all_that_a_directory_publishes_is_synced_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By inode: every file and folder of the new directory but those linked from the old, before it has its name."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "1_Pooling").mkdir(parents=True)
    save_file({"w": np.ones(4, np.float32)}, source / "model.safetensors")
    for name in ("config.json", "tokenizer.json", "1_Pooling/config.json"):
        (source / name).write_text("{}")
    (target / "kept").mkdir(parents=True)
    (target / "kept" / "notes").write_text("old")
    synced: set[int] = set()
    missing: list[Path] = []
    real_sync, real_exchange = os.fsync, directory.exchange

    def sync(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        real_sync(fd)

    def watched(new: Path, old: Path) -> bool:
        missing.extend(p for p in (new, *new.rglob("*")) if p.stat().st_ino not in synced and p.name != "notes")
        return real_exchange(new, old)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(directory, "exchange", watched)
    weighttools.convert(source, target, force=True)
    assert missing == [] and (target / "1_Pooling" / "config.json").read_text() == "{}"
    assert load_file(target / "model.safetensors")["w"].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("follow", [True, False])
def test_a_link_is_written_through_or_replaced(follow: bool, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with sink.atomic_file(tmp_path / "link", force=True, follow=follow) as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink() == follow and (tmp_path / "link").read_bytes() == b"new"
    assert (tmp_path / "real").read_bytes() == (b"new" if follow else b"old")

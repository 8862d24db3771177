"""Files that a file names are read from beside it, and from nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import weighttools
from tests.refused import refused
from weighttools.errors import SourceError, UnsafeFileError
from weighttools.io.beside import inside, not_copied, weights
from weighttools.io.home import LocalHome

BAD = ["", "..", "../x", "a/../../x", "/x", "//x", "a\\x", "..\\x", "x\0", "C:x", "C:/x"]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_leaves_is_refused_whether_the_file_is_there_or_not(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    (home / "a").mkdir(parents=True)
    for there in (False, True):
        if there:
            (tmp_path / "x").write_bytes(b"")
        for found in (inside, weights):
            with refused(UnsafeFileError, "leaves-directory", "index: names the file", "a plain relative name"):
                found(home, name, "index")


def test_links_may_lead_within_the_directory_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    (home / "folder" / "x").write_bytes(b"")
    (home / "link").symlink_to("folder/x")
    (home / "out").symlink_to(tmp_path)
    assert inside(home, "link", "index").path == str(home / "link")
    assert inside(home, "folder/x", "index").path == str(home / "folder" / "x")
    for there in (False, True):  # the answer does not tell whether a file elsewhere exists
        if there:
            (tmp_path / "x").write_bytes(b"")
        with refused(UnsafeFileError, "leaves-directory", "x: is a link", "a file in the"):
            inside(home, "out/x", "index")


def test_links_into_the_blobs_of_a_cache_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_bytes(b"")
    (snapshot / "w").symlink_to("../../blobs/1")
    assert inside(snapshot, "w", "index").path == str(snapshot / "w")
    (snapshot / "v").symlink_to("../../refs")
    with refused(UnsafeFileError, "leaves-directory"):
        inside(snapshot, "v", "index")


@pytest.mark.parametrize("name", ["x", "x" * 5000, "\ud800"])
def test_a_missing_file_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    for found in (inside, weights):
        with refused(SourceError, "no-such-file", "named by m.index", "fetch") as caught:
            found(tmp_path, name, tmp_path / "m.index")
        assert str(caught.value).isprintable()


DANGLING = {
    "loop": ("is a link that leads in a circle", "mend the link"),
    "gone": ("is a link to gone, where there is nothing", "mend the link"),
    ".git/annex/objects/a/b/K/K": ("where there is nothing", "git annex get"),
    "../../.dvc/cache/files/md5/ab/cd": ("where there is nothing", "dvc pull"),
    "../../blobs/abc": ("where there is nothing", "download the model again"),
}


@pytest.mark.parametrize("target", DANGLING)
def test_a_link_that_leads_nowhere_says_where(target: str, tmp_path: Path) -> None:
    """Whether a person named it, an index, or a directory that is read."""
    link = tmp_path / "model.safetensors"
    link.symlink_to(link.name if target == "loop" else target)
    fact, remedy = DANGLING[target]
    with refused(SourceError, "dangling-link", "named by i") as caught:
        weights(tmp_path, link.name, "i")
    assert fact in str(caught.value) and remedy in str(caught.value)
    for place in (link, tmp_path):
        with refused(SourceError, "dangling-link") as caught:
            weighttools.open(place)
        assert str(caught.value).startswith(f"{link}: is a link") and remedy in str(caught.value)
        assert fact in str(caught.value) and str(caught.value).count(";") == 1


def test_what_is_copied_with_weights_and_why_not(tmp_path: Path) -> None:
    home = tmp_path / "snapshots" / "abc"
    home.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    for place in (home / "plain", tmp_path / "blobs" / "1", tmp_path / "elsewhere"):
        place.write_bytes(b"1234")
    targets = {"same": "plain", "cached": "../../blobs/1", "out": "../../elsewhere", "gone": "../../nowhere", "no": "x"}
    for name, target in targets.items():
        (home / name).symlink_to(target)
    os.mkfifo(home / "pipe")
    leaves, odd = "a link that leaves its directory", "no regular file"
    wanted = {"plain": "", "same": "", "cached": "", "out": leaves, "gone": leaves, "no": odd, "pipe": odd}
    here = LocalHome(str(home))
    assert {name: here.why_not_copied(name, 4) for name in wanted} == wanted
    assert here.why_not_copied("cached", 3) == "more than 3 bytes"
    assert not_copied({}) == []
    assert not_copied({"a": leaves, "b": odd}) == [
        f"not copied with the weights: a ({leaves}), b ({odd}); copy what is needed yourself"
    ]

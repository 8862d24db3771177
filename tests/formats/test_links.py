"""Links as git-annex, DVC and the Hugging Face cache make them, and as a stranger may: one rule for all.

The layouts are those that the tools' documents show; what is read through them is held against safetensors' and
NumPy's own reading of the files that they lead to.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import weighttools as wt
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SourceError, UnsafeFileError

ROOT = Path(__file__).parents[2]
SHARDED = ROOT / "fixtures" / "huggingface" / "sharded"
INDEX = "model.safetensors.index.json"


def annexed(file: Path) -> Path:
    """Where git-annex keeps a file's content, from the root of the repository (key of the SHA256E backend)."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    key = f"SHA256E-s{file.stat().st_size}--{digest}{file.suffix}"
    return Path(".git", "annex", "objects", digest[:2], digest[2:4], key, key)


def as_annex(home: Path) -> None:
    """Make each file of `home`, a folder of a repository, a relative link into the repository's annex."""
    for file in sorted(path for path in home.iterdir() if path.is_file()):
        place = annexed(file)
        (home.parent / place).parent.mkdir(parents=True)
        file.rename(home.parent / place)
        file.symlink_to(Path("..") / place)
        (home.parent / place).chmod(0o444)


def as_dvc(home: Path) -> None:
    """Make each file an absolute link into DVC's cache (``cache.type symlink``), where names have no suffix."""
    for file in sorted(path for path in home.iterdir() if path.is_file()):
        digest = hashlib.md5(file.read_bytes()).hexdigest()
        place = home.parent / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(place)
        file.symlink_to(place)


LAYOUTS = {"annex": as_annex, "dvc": as_dvc}
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def made(tmp_path: Path, kind: str) -> tuple[Path, dict[str, np.ndarray]]:
    """A directory of one file, of shards, or of GGUF parts, with a config.json; and what other libraries read of it."""
    home = tmp_path / "repository" / "model"
    home.parent.mkdir()
    if kind == "shards":
        shutil.copytree(SHARDED, home)
        return home, {name: a for path in home.glob("*.safetensors") for name, a in _bits(path).items()}
    home.mkdir()
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
    save_file(arrays, home / "model.safetensors")
    (home / "config.json").write_text('{"model_type": "x"}')
    return home, arrays


def _bits(path: Path) -> dict[str, np.ndarray]:
    from safetensors.torch import load_file as load
    from torch import uint8

    return {name: tensor.contiguous().reshape(-1).view(uint8).numpy() for name, tensor in load(path).items()}


@layouts
@pytest.mark.parametrize("kind", ["single", "shards"])
def test_links_to_weights_are_followed_and_said(layout: str, kind: str, tmp_path: Path) -> None:
    home, wanted = made(tmp_path, kind)
    LAYOUTS[layout](home)
    found = wt.open(home)
    for name, array in found.read().items():
        assert np.asarray(array).tobytes() == wanted[name].tobytes()
    assert set(found) == set(wanted)
    n = len(list(home.glob("*.safetensors")))
    first = sorted(home.glob("*.safetensors"))[0]
    what = "a weight file is a link" if n == 1 else f"{n} weight files are links"
    said = [note for note in found.origin.notes if "out of the directory" in note]
    assert said == [f"{what} out of the directory: {first.name}, to {first.resolve()}{', …' if n > 1 else ''}"]
    checked = {finding["code"]: finding for finding in wt.check(home)["findings"]}
    assert (checked["linked-weights"]["message"], checked["linked-weights"]["severity"]) == (said[0], "note")


@layouts
def test_shards_without_an_index_too(layout: str, tmp_path: Path) -> None:
    home, wanted = made(tmp_path, "shards")
    (home / INDEX).unlink()
    LAYOUTS[layout](home)
    found = wt.open(home)
    assert set(found) == set(wanted) and any("out of the directory" in note for note in found.origin.notes)


@layouts
def test_parts_of_gguf_too(layout: str, tmp_path: Path) -> None:
    home = tmp_path / "repository" / "model"
    home.mkdir(parents=True)
    for path in sorted((ROOT / "fixtures" / "gguf").glob("split-*.gguf")):
        shutil.copy(path, home)
    LAYOUTS[layout](home)
    for place in (home, home / "split-00002-of-00003.gguf"):
        found = wt.open(place)
        assert {name: float(t.read().max()) for name, t in found.items()} == {f"t{i}": float(i) for i in range(6)}
        assert [note for note in found.origin.notes if "3 weight files are links out of the directory" in note]


@layouts
def test_links_within_the_directory_are_not_said(layout: str, tmp_path: Path) -> None:
    """The root of a repository holds its own store."""
    home, wanted = made(tmp_path, "single")
    LAYOUTS[layout](home)
    for path in [*home.iterdir(), *home.parent.glob(".*")]:
        if path.is_symlink():
            target = path.resolve()
            path.unlink()
            (home.parent / path.name).symlink_to(os.path.relpath(target, home.parent))
    found = wt.open(home.parent)
    assert found["w"].read().tolist() == wanted["w"].tolist() and found.origin.notes == ()


@layouts
def test_a_person_s_link_is_read_without_a_word(layout: str, tmp_path: Path) -> None:
    home, wanted = made(tmp_path, "single")
    LAYOUTS[layout](home)
    found = wt.open(home / "model.safetensors")
    assert found["w"].read().tolist() == wanted["w"].tolist() and found.origin.notes == ()
    (tmp_path / "directory").symlink_to(home)
    assert len(wt.open(tmp_path / "directory")) == 1


def test_the_cache_of_the_hub_is_whole(tmp_path: Path, inside: Callable) -> None:
    """Weights and companions through links to ``../../blobs``, and nothing to say of it."""
    repository = tmp_path / "models--org--m"
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    for place in (snapshot, blobs):
        place.mkdir(parents=True)
    for i, path in enumerate(sorted(SHARDED.iterdir())):
        shutil.copy(path, blobs / f"{i:064d}")
        (snapshot / path.name).symlink_to(f"../../blobs/{i:064d}")
    (blobs / "t").write_text('{"a": 1}')
    (snapshot / "tokenizer.json").symlink_to("../../blobs/t")
    assert not any("link" in note for note in wt.open(snapshot).origin.notes)
    ran = inside("convert", snapshot, tmp_path / "out")
    assert ran.code == 0 and "link" not in ran.err
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"a": 1}'


@layouts
def test_companions_come_from_the_directory_only(layout: str, tmp_path: Path, inside: Callable) -> None:
    home, _ = made(tmp_path, "single")
    LAYOUTS[layout](home)
    ran = inside("convert", home, tmp_path / "out")
    assert ran.code == 0 and os.listdir(tmp_path / "out") == ["model.safetensors"]
    assert "not copied with the weights: config.json (a link that leaves its directory)" in ran.err


@pytest.mark.parametrize("name", ["model.safetensors", INDEX])
def test_contents_that_are_not_there_say_what_to_run(name: str, tmp_path: Path, inside: Callable) -> None:
    home = tmp_path / "model"
    home.mkdir()
    (home / name).symlink_to("../.git/annex/objects/ab/cd/K/K")
    ran = inside("inspect", home)
    assert ran.code == 2 and ran.err.count("\n") == 1
    assert f"{home / name}: is a link to ../.git/annex/objects/ab/cd/K/K" in ran.err and "git annex get" in ran.err


# -- what is written


def victim(tmp_path: Path) -> Path:
    """A file of the person's own, which a directory from a stranger would have written."""
    path = tmp_path / "home" / ".profile.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"metadata": {"secret": "token", "tied": "w"}, "weight_map": {}}')
    return path


def test_an_index_is_not_mended_through_a_link_of_the_directory(tmp_path: Path, inside: Callable) -> None:
    home, _ = made(tmp_path, "shards")
    mine = victim(tmp_path)
    before = mine.read_bytes()
    sound = json.loads((home / INDEX).read_text())["weight_map"]
    (home / INDEX).unlink()
    (home / INDEX).symlink_to(mine)
    ran = inside("check", home, "--fix-index")
    assert ran.code == 0, ran
    assert mine.read_bytes() == before
    assert not (home / INDEX).is_symlink() and json.loads((home / INDEX).read_text())["weight_map"] == sound
    assert "token" not in (home / INDEX).read_text(), "nor is anything of it copied"


@layouts
def test_mending_leaves_a_store_s_contents(layout: str, tmp_path: Path) -> None:
    home, _ = made(tmp_path, "shards")
    record = json.loads((home / INDEX).read_text())
    record["metadata"]["head.weight"] = next(iter(record["weight_map"]))
    (home / INDEX).write_text(json.dumps(record))
    LAYOUTS[layout](home)
    stored = {path: path.read_bytes() for path in home.parent.rglob("*") if path.is_file() and not path.is_symlink()}
    wt.check(home, fix_index=True)
    assert all(path.read_bytes() == data for path, data in stored.items())
    assert json.loads((home / INDEX).read_text())["metadata"]["head.weight"] == record["metadata"]["head.weight"]


def test_an_index_that_a_person_names_is_written_through(tmp_path: Path) -> None:
    home, _ = made(tmp_path, "shards")
    (home / INDEX).rename(tmp_path / "elsewhere")
    (home / INDEX).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("broken")
    wt.check(home / INDEX, fix_index=True)
    assert (home / INDEX).is_symlink() and "weight_map" in json.loads((tmp_path / "elsewhere").read_text())


@layouts
@pytest.mark.parametrize("kind", ["single", "shards"])
def test_a_new_model_replaces_links_and_not_what_they_lead_to(layout: str, kind: str, tmp_path: Path) -> None:
    home, _ = made(tmp_path, kind)
    LAYOUTS[layout](home)
    stored = {path: path.read_bytes() for path in home.parent.rglob("*") if path.is_file() and not path.is_symlink()}
    new = tmp_path / "new.safetensors"
    save_file({"new": np.ones(3, np.float32)}, new)
    wt.convert(new, home, force=True)
    assert all(path.read_bytes() == data for path, data in stored.items())
    assert list(load_file(home / "model.safetensors")) == ["new"] and not (home / "model.safetensors").is_symlink()
    assert not list(home.glob("model-*"))


def hostile(tmp_path: Path) -> Path:
    """A target whose index names files of others: in a folder, and by a detour."""
    home = tmp_path / "target"
    (home / "unet").mkdir(parents=True)
    for name in ("unet/model.safetensors", "y.safetensors"):
        save_file({"a": np.ones(2, np.float32)}, home / name)
    named = {"a": "unet/model.safetensors", "c": "./x/../y.safetensors"}
    (home / INDEX).write_text(json.dumps({"weight_map": named}))
    return home


@pytest.mark.parametrize("change", [None, "no detour", "a shard is missing", "a shard holds something else"])
def test_an_index_names_nothing_to_delete_but_its_own_shards(
    change: str | None, tmp_path: Path, inside: Callable
) -> None:
    """What is read as a model's shards and lies in the directory itself goes; nothing else does."""
    home = hostile(tmp_path)
    named = {
        None: {"a": "unet/model.safetensors", "c": "./x/../y.safetensors"},
        "no detour": {"a": "unet/model.safetensors"},
        "a shard is missing": {"a": "y.safetensors", "b": "z.safetensors"},
        "a shard holds something else": {"b": "y.safetensors"},
    }[change]
    (home / INDEX).write_text(json.dumps({"weight_map": named}))
    save_file({"new": np.ones(2, np.float32)}, tmp_path / "new.safetensors")
    planned = inside("convert", tmp_path / "new.safetensors", home, "--force", "--dry-run")
    ran = inside("convert", tmp_path / "new.safetensors", home, "--force", "--json")
    assert ran.code == 0 and json.loads(ran.out)["replaced"] == [INDEX]
    assert f"  replaces: {INDEX}\n" in planned.out
    assert (home / "unet" / "model.safetensors").exists() and (home / "y.safetensors").exists()
    assert not (home / INDEX).exists() and list(wt.open(home)) == ["new"]


def test_shards_that_an_index_truly_names_are_replaced_and_listed(tmp_path: Path, inside: Callable) -> None:
    home = tmp_path / "target"
    home.mkdir()
    for name in "ab":
        save_file({name: np.ones(2, np.float32)}, home / f"{name}.safetensors")
    (home / INDEX).write_text(json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))
    save_file({"new": np.ones(2, np.float32)}, home / "model-00001-of-00009.safetensors")
    (home / "config.json").write_text('{"mine": 1}')
    save_file({"new": np.ones(2, np.float32)}, tmp_path / "new.safetensors")
    gone = ["a.safetensors", "b.safetensors", "model-00001-of-00009.safetensors", INDEX]
    ran = inside("convert", tmp_path / "new.safetensors", home, "--force", "--dry-run")
    assert f"  replaces: {', '.join(gone)}\n" in ran.out and all((home / name).exists() for name in gone)
    assert inside("convert", tmp_path / "new.safetensors", home, "--force").code == 0
    assert sorted(os.listdir(home)) == ["config.json", "model.safetensors"]


def test_companions_of_the_source_that_replace_the_target_s_are_listed(tmp_path: Path, inside: Callable) -> None:
    for place in ("source", "target"):
        (tmp_path / place).mkdir()
        save_file({place: np.ones(2, np.float32)}, tmp_path / place / "model.safetensors")
        for name in ("config.json", f"{place}.txt"):
            (tmp_path / place / name).write_text("{}")
    ran = inside("convert", tmp_path / "source", tmp_path / "target", "--force", "--dry-run")
    assert "  replaces: config.json, model.safetensors\n" in ran.out
    again = inside("convert", tmp_path / "source", tmp_path / "source", "--force", "--dry-run")
    assert "  replaces: model.safetensors\n" in again.out


@pytest.mark.parametrize("target", ["sub", "sub/", "a/b", "link"])
def test_a_directory_inside_its_source_is_refused(target: str, tmp_path: Path, inside: Callable) -> None:
    """Its companions would be copied with it, deeper at each run."""
    home, _ = made(tmp_path, "single")
    (home / "a").mkdir()
    (tmp_path / "link").symlink_to(home / "sub")
    place = tmp_path / "link" if target == "link" else f"{home}/{target}"
    for more in ((), ("--dry-run",), ("--force",)):
        ran = inside("convert", home, place, *more)
        assert ran.code == 2 and "lies inside what is read" in ran.err and ran.err.count("\n") == 1
    assert not list(home.rglob("sub"))
    assert inside("convert", home, home / "model.npz").code == 0, "a file takes nothing along"


# -- raw bytes


def test_raw_bytes_never_come_from_elsewhere(tmp_path: Path) -> None:
    """An ONNX model's data and a distributed checkpoint's chunks: the same links that weights may be."""
    import onnx
    import torch
    from onnx import numpy_helper
    from torch.distributed import checkpoint

    home = tmp_path / "onnx"
    home.mkdir()
    tensor = numpy_helper.from_array(np.arange(1000, dtype=np.float32), "w")
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[tensor])
    onnx.save(
        onnx.helper.make_model(graph), home / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that nothing is distributed
        checkpoint.save({"w": torch.arange(4.0)}, checkpoint_id=str(tmp_path / "dcp"), no_dist=True)
    chunk = next((tmp_path / "dcp").glob("*.distcp"))
    for place, opened in ((home / "m.data", home / "m.onnx"), (chunk, tmp_path / "dcp")):
        assert isinstance(wt.open(opened), TensorMap)
        place.rename(tmp_path / place.name)
        place.symlink_to(tmp_path / place.name)
        with pytest.raises(UnsafeFileError, match="is a link that leaves its directory"):
            wt.open(opened)


def test_a_link_of_an_index_to_what_is_no_weight_file(tmp_path: Path) -> None:
    home, _ = made(tmp_path, "shards")
    (tmp_path / "secret").write_text("root:x:0:0")
    shard = sorted(home.glob("*.safetensors"))[0]
    shard.unlink()
    shard.symlink_to(tmp_path / "secret")
    with pytest.raises(Exception, match="is of no known format|header") as caught:
        wt.open(home)
    assert isinstance(caught.value, (SourceError, ValueError))

"""Checkpoint directories against huggingface_hub, and directories that lie."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import save_torch_state_dict, split_torch_state_dict_into_shards
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import weighttools as wt
from tests.strategies import assert_same
from tests.work import bounded
from weighttools.core.tensormap import TensorMap
from weighttools.errors import (
    CorruptFileError,
    SourceError,
    UnknownFormatError,
    UnsafeFileError,
    WeighttoolsError,
)
from weighttools.formats import read_file
from weighttools.formats.huggingface import format as huggingface

FIXTURE = Path(__file__).parents[2] / "fixtures" / "huggingface" / "sharded"
INDEX = "model.safetensors.index.json"
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A private copy of the sharded fixture."""
    return Path(shutil.copytree(FIXTURE, tmp_path / "sharded"))


def reindexed(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads((directory / INDEX).read_text())
    change(record)
    (directory / INDEX).write_text(json.dumps(record))


def by_torch(directory: Path) -> dict[str, Any]:
    """Every shard's tensors, by the official library."""
    found: dict[str, torch.Tensor] = {}
    for path in directory.glob("*.safetensors"):
        found |= load_file(path)
    return found


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("which", ["", INDEX])
def test_sharded_directory_reads_as_the_official_library_reads_its_shards(which: str) -> None:
    found = wt.open(FIXTURE / which)
    expected = by_torch(FIXTURE)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].read().tobytes() == bits(tensor)
    assert dict(found.metadata) == {"format": "pt"}
    assert sorted(Path(file).name for file in found.origin.files) == SHARDS
    assert not found.origin.notes


def test_ties_in_the_index_are_aliases() -> None:
    found = wt.open(FIXTURE)
    assert dict(found.aliases) == {"model.embed_tokens.weight": "lm_head.weight"}
    assert found["model.embed_tokens.weight"].read().tobytes() == found["lm_head.weight"].read().tobytes()


def test_single_file_directory(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text("{}")
    found = wt.open(tmp_path)
    assert list(found) == ["a"] and found.origin.path == str(tmp_path)


@pytest.mark.parametrize("stem", ["model", "adapter_model", "diffusion_pytorch_model", "anything"])
def test_usual_stems(tmp_path: Path, stem: str) -> None:
    save_file({stem: torch.ones(2)}, tmp_path / f"{stem}.safetensors")
    assert list(wt.open(tmp_path)) == [stem]


def test_usual_stem_is_preferred_and_unusual_ones_are_not_guessed_between(tmp_path: Path) -> None:
    for stem in ("b", "model", "consolidated"):
        save_file({stem: torch.ones(2)}, tmp_path / f"{stem}.safetensors")
    assert list(wt.open(tmp_path)) == ["model"]
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UnknownFormatError, match=r"holds 2 checkpoints; name one of b.safetensors, consol"):
        wt.open(tmp_path)


def test_directory_without_weights_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormatError, match=r"no weights .* expected \*.safetensors or .*; check the path"):
        wt.open(tmp_path)
    np.savez(tmp_path / "loose.npz", a=np.ones(1))
    with pytest.raises(UnknownFormatError, match=r"name a file in it: loose\.npz"):
        wt.open(tmp_path)


def test_directory_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(SourceError, match="cannot be listed: Permission denied"):
        wt.open(tmp_path)


# -- the index and the shards, both ways


def test_missing_shard(sharded: Path) -> None:
    (sharded / SHARDS[1]).unlink()
    with pytest.raises(SourceError, match=rf"{SHARDS[1]}: is named by {INDEX}, but there is no such file; fetch"):
        wt.open(sharded)


def test_tensor_in_the_index_that_no_shard_holds(sharded: Path) -> None:
    reindexed(sharded, lambda r: r["weight_map"].update({"ghost.weight": SHARDS[0], "ghost.bias": SHARDS[0]}))
    with pytest.raises(CorruptFileError, match=r"names 2 tensors that its shards do not hold, first 'ghost.weight'"):
        wt.open(sharded)


def test_tensor_in_a_shard_that_the_index_does_not_name(sharded: Path) -> None:
    reindexed(sharded, lambda r: r["weight_map"].pop("lm_head.weight"))
    with pytest.raises(CorruptFileError, match=rf"does not name tensor 'lm_head.weight' of shard {SHARDS[2]}"):
        wt.open(sharded)


def test_tensor_placed_in_the_wrong_shard(sharded: Path) -> None:
    save_file({**load_file(sharded / SHARDS[0]), "lm_head.weight": torch.ones(1)}, sharded / SHARDS[0])
    with pytest.raises(CorruptFileError, match=rf"of shard {SHARDS[0]}; the index places it in {SHARDS[2]}"):
        wt.open(sharded)


def test_one_file_under_two_names(sharded: Path) -> None:
    name = next(iter(load_file(sharded / SHARDS[0])))
    reindexed(sharded, lambda r: r["weight_map"].update({name: f"./{SHARDS[0]}"}))
    with pytest.raises(CorruptFileError, match="does not name tensor"):
        wt.open(sharded)


def test_stray_shard_is_not_read(sharded: Path) -> None:
    save_file({"stray": torch.ones(1)}, sharded / "model-00004-of-00004.safetensors")
    assert "stray" not in wt.open(sharded)


def test_damaged_shard_is_named(sharded: Path) -> None:
    data = (sharded / SHARDS[2]).read_bytes()
    (sharded / SHARDS[2]).write_bytes(data[:-3])
    with pytest.raises(CorruptFileError, match=rf"{SHARDS[2]}: truncated: 3 bytes are missing"):
        wt.open(sharded)


@pytest.mark.parametrize("claimed", [1, 6593, "6592", None])
def test_stale_total_is_noted_not_believed(sharded: Path, claimed: object) -> None:
    reindexed(sharded, lambda r: r["metadata"].update(total_size=claimed))
    found = wt.open(sharded)
    noted = [f"the index says total_size {claimed!r}; the shards hold 6,592 bytes"]
    assert list(found.origin.notes) == ([] if claimed is None else noted)
    assert found.totals()[1] == 6592 == sum(len(bits(t)) for t in by_torch(sharded).values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "has no weight_map"),
        ('{"weight_map": []}', "has no weight_map"),
        ('{"weight_map": {"a": 1}}', "has no weight_map"),
        ('{"weight_map": {"a": null}}', "has no weight_map"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "the key 'a' stands twice"),
        ('{"weight_map": ' * 3000 + "}" * 3000, "JSON"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("\xff", "is not valid JSON"),
    ],
)
def test_index_that_is_none(sharded: Path, text: str, message: str) -> None:
    (sharded / INDEX).write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptFileError, match=message) as caught:
        wt.open(sharded)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("metadata", [None, [], "x", 3, {"total_size": 6592, "a": ["lm_head.weight"], "b": {}}])
def test_odd_metadata_of_an_index_is_passed_over(sharded: Path, metadata: object) -> None:
    reindexed(sharded, lambda r: r.update(metadata=metadata))
    assert not wt.open(sharded).aliases


def test_empty_weight_map_is_an_empty_checkpoint(sharded: Path) -> None:
    (sharded / INDEX).write_text('{"weight_map": {}}')
    assert len(wt.open(sharded)) == 0


@pytest.mark.parametrize("same", [True, False])
def test_a_large_index_that_lies_is_refused_in_linear_work(sharded: Path, same: bool) -> None:
    names = [f'"t{i}": "{SHARDS[0]}"' for i in range(100_000)]
    names += [names[-1]] if same else []
    (sharded / INDEX).write_text('{"weight_map": {' + ",".join(names) + "}}")
    with bounded(5 * 100_000), pytest.raises(CorruptFileError):
        wt.open(sharded)


# -- names that leave the directory


@pytest.mark.parametrize(
    "name",
    ["../outside.safetensors", "sub/../../outside.safetensors", "/etc/passwd", "..", "", "a\\..\\b", "a\0b"],
)
def test_shard_name_that_leaves_the_directory(sharded: Path, name: str) -> None:
    shutil.copy(sharded / SHARDS[0], sharded.parent / "outside.safetensors")
    reindexed(sharded, lambda r: r["weight_map"].update({"x": name}))
    with pytest.raises(UnsafeFileError, match=f"{INDEX}: names the file") as caught:
        wt.open(sharded)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["x" * 5000, "\ud800", ".", "\x1b[31m", "CON\u202e", f"{SHARDS[0]}/x"])
def test_shard_name_that_no_file_has(sharded: Path, name: str) -> None:
    reindexed(sharded, lambda r: r["weight_map"].update({"x": name}))
    with pytest.raises(WeighttoolsError) as caught:
        wt.open(sharded)
    assert str(caught.value).isprintable()


def test_shard_that_is_a_pipe_or_a_device_is_not_opened(sharded: Path) -> None:
    (sharded / SHARDS[0]).unlink()
    os.mkfifo(sharded / SHARDS[0])
    with pytest.raises(SourceError, match="is a named pipe; expected a regular file"):
        wt.open(sharded)


def test_a_shard_that_holds_as_many_tensors_of_other_names(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "m.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"b": "m.safetensors"}}))
    with pytest.raises(CorruptFileError, match="names 1 tensors that its shards do not hold, first 'b'"):
        wt.open(tmp_path)


def test_shard_link_that_leaves_the_directory(sharded: Path, tmp_path: Path) -> None:
    (sharded / SHARDS[0]).rename(tmp_path / "elsewhere")
    (sharded / SHARDS[0]).symlink_to(tmp_path / "elsewhere")
    said = f"a weight file is a link out of the directory: {SHARDS[0]}, to {tmp_path / 'elsewhere'}"
    assert set(wt.open(sharded)) == set(by_torch(sharded)) and said in wt.open(sharded).origin.notes
    (sharded / INDEX).unlink()
    assert set(wt.open(sharded)) == set(by_torch(sharded)) and said in wt.open(sharded).origin.notes


def test_link_within_the_directory_is_followed(sharded: Path) -> None:
    (sharded / SHARDS[0]).rename(sharded / "renamed")
    (sharded / SHARDS[0]).symlink_to("renamed")
    assert len(wt.open(sharded)) == 7


def test_sub_directory_in_the_index(sharded: Path) -> None:
    (sharded / "sub").mkdir()
    (sharded / SHARDS[0]).rename(sharded / "sub" / SHARDS[0])
    moved = dict.fromkeys(load_file(sharded / "sub" / SHARDS[0]), f"sub/{SHARDS[0]}")
    reindexed(sharded, lambda r: r["weight_map"].update(moved))
    assert len(wt.open(sharded)) == 7


# -- sets without an index


def test_complete_set_without_index_is_joined_and_noted(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    found = wt.open(sharded)
    assert set(found) == set(by_torch(sharded))
    assert list(found.origin.notes) == ["there is no index: the numbered shards were joined"]


@pytest.mark.parametrize("change", ["missing", "two counts", "two stems", "a number too high", "huge"])
def test_incomplete_set_without_index_is_refused(sharded: Path, change: str) -> None:
    (sharded / INDEX).unlink()
    last = sharded / SHARDS[2]
    if change == "missing":
        last.unlink()
    else:
        new = {
            "two counts": "model-00003-of-00004",
            "two stems": "other-00003-of-00003",
            "a number too high": "model-00004-of-00003",
            "huge": f"model-00003-of-{'9' * 100}",
        }[change]
        last.rename(sharded / f"{new}.safetensors")
    with pytest.raises(CorruptFileError, match="no index, and no complete set"):
        wt.open(sharded)


def test_set_without_index_that_holds_a_tensor_twice(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    shutil.copy(sharded / SHARDS[0], sharded / SHARDS[1])
    with pytest.raises(CorruptFileError, match=r"tensor '.*' is also in another shard"):
        wt.open(sharded)


def test_shards_that_differ_in_metadata_are_noted(sharded: Path) -> None:
    save_file(load_file(sharded / SHARDS[1]), sharded / SHARDS[1], {"format": "tf"})
    found = wt.open(sharded)
    assert dict(found.metadata) == {"format": "pt"}
    assert list(found.origin.notes) == ["shards differ in the metadata entry 'format': the first shard's is kept"]


def test_shard_of_another_format_with_odd_metadata(sharded: Path) -> None:
    part = wt.open(sharded / SHARDS[1])
    wt.save(sharded / SHARDS[1], part.replace(metadata={"a": [1], "b": {"c": 2}}), format="npz", force=True)
    assert wt.open(sharded).metadata["a"] == [1]


@pytest.mark.parametrize("name", ["consolidated.safetensors", "model.safetensors"])
def test_one_file_beside_shards_without_an_index(sharded: Path, name: str) -> None:
    """As Mistral's repositories are where the index was not fetched; with it, the shards are the model."""
    save_file({"layers.0.w": torch.ones(2)}, sharded / name)
    assert len(wt.open(sharded)) == 7
    (sharded / INDEX).unlink()
    found = wt.open(sharded)
    said = f"{name} is read; 3 numbered shards beside it have no index and are left out, first {SHARDS[0]}"
    assert list(found) == ["layers.0.w"] and said in found.origin.notes
    (sharded / SHARDS[1]).unlink()
    (sharded / SHARDS[2]).unlink()
    said = f"{name} is read; a numbered shard beside it has no index and is left out, first {SHARDS[0]}"
    assert said in wt.open(sharded).origin.notes


def test_a_pipeline_names_its_folders(tmp_path: Path) -> None:
    for folder in ("unet", "vae", "scheduler", "text_encoder"):
        (tmp_path / folder).mkdir()
        if folder == "scheduler":
            (tmp_path / folder / "scheduler_config.json").write_text("{}")
        else:
            save_file({"w": torch.ones(2)}, tmp_path / folder / "diffusion_pytorch_model.safetensors")
    folders = "name a folder in it: text_encoder, unet, vae"
    with pytest.raises(UnknownFormatError) as caught:
        wt.open(tmp_path)
    assert str(caught.value).endswith(f"; {folders}")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(UnknownFormatError) as caught:
        wt.open(tmp_path)
    assert str(caught.value).endswith(f"; it is a pipeline of several models: {folders}")
    assert list(wt.open(tmp_path / "unet")) == ["w"]


def test_a_shard_is_read_once_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "m.safetensors")
    spellings = {str(i): "./" * i + "m.safetensors" for i in range(300)}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": spellings}))
    reads: list[object] = []
    monkeypatch.setattr(huggingface, "read_file", lambda *a: (reads.append(a), read_file(*a))[1])
    with pytest.raises(CorruptFileError):
        wt.open(tmp_path)
    assert len(reads) == 1
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "sub/../m.safetensors"}}))
    with pytest.raises(UnsafeFileError, match="expected a plain relative name"):
        wt.open(tmp_path)


# -- the cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The layout of the Hugging Face cache: blobs, and snapshots of relative links to them."""
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    repository = tmp_path / "hf" / "hub" / "models--org--tiny.model-1"
    snapshot = repository / "snapshots" / "abc123"
    for folder, depth in ((snapshot, 2), (snapshot / "unet", 3)):
        folder.mkdir(parents=True)
        (repository / "blobs").mkdir(exist_ok=True)
        for i, path in enumerate(sorted(FIXTURE.iterdir())):
            blob = f"{depth}{i}" * 20
            shutil.copy(path, repository / "blobs" / blob)
            (folder / path.name).symlink_to(Path(*[".."] * depth, "blobs", blob))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hf"


@pytest.mark.parametrize("folder", ["", "unet"])
def test_cache_links_to_blobs_are_followed(cache: Path, folder: str) -> None:
    snapshot = cache / "hub" / "models--org--tiny.model-1" / "snapshots" / "abc123"
    assert_same(wt.open(snapshot / folder).read(), wt.open(FIXTURE).read())


def test_cache_link_beyond_the_blobs_is_said(cache: Path) -> None:
    snapshot = cache / "hub" / "models--org--tiny.model-1" / "snapshots" / "abc123"
    (cache / "elsewhere").write_bytes((FIXTURE / SHARDS[0]).read_bytes())
    (snapshot / SHARDS[0]).unlink()
    (snapshot / SHARDS[0]).symlink_to(cache / "elsewhere")
    said = f"a weight file is a link out of the directory: {SHARDS[0]}, to {cache / 'elsewhere'}"
    assert said in wt.open(snapshot).origin.notes
    assert_same(wt.open(snapshot).read(), wt.open(FIXTURE).read())


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_repository_by_name(cache: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    if variable == "XDG_CACHE_HOME":
        (cache.parent / "huggingface").symlink_to(cache)
    place = {"HF_HUB_CACHE": cache / "hub", "HF_HOME": cache, "XDG_CACHE_HOME": cache.parent}[variable]
    monkeypatch.setenv(variable, str(place))
    assert len(wt.open("org/tiny.model-1")) == 7


def test_repository_without_ref_is_found_if_there_is_one_snapshot(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(cache))
    repository = cache / "hub" / "models--org--tiny.model-1"
    (repository / "refs" / "main").unlink()
    assert len(wt.open("org/tiny.model-1")) == 7
    (repository / "snapshots" / "def456").mkdir()
    with pytest.raises(SourceError, match="no such model in the Hugging Face cache"):
        wt.open("org/tiny.model-1")


@pytest.mark.parametrize("reference", ["../../../../outside", "/etc", "missing", ""])
def test_reference_that_leaves_the_snapshots_is_not_followed(
    cache: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(cache))
    repository = cache / "hub" / "models--org--tiny.model-1"
    (repository / "refs" / "main").write_text(reference)
    (repository / "snapshots" / "def456").mkdir()
    with pytest.raises(SourceError, match="no such model"):
        wt.open("org/tiny.model-1")


def test_repository_that_is_not_there_says_where_was_looked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(cache / "hub"))
    with pytest.raises(SourceError, match=rf"org/none: .* no such model .*looked in {cache / 'hub'}"):
        wt.open("org/none")
    assert huggingface.cached("a b/c") is None


def test_default_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert huggingface.cache_directory() == tmp_path / ".cache" / "huggingface" / "hub"


# -- writing


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=25), st.integers(1, 160)
)  # empty ones all share a storage there
def test_shards_are_those_of_huggingface_hub(sizes: list[int], limit: int) -> None:
    state = {f"t{i}": torch.zeros(n, dtype=torch.float16) for i, n in enumerate(sizes)}
    theirs = split_torch_state_dict_into_shards(state, max_shard_size=limit)
    arrays = TensorMap.from_arrays({name: tensor.numpy() for name, tensor in state.items()})
    ours = huggingface.shard_plan(arrays, limit)
    assert ours == {name: list(names) for name, names in theirs.filename_to_tensors.items()}
    if theirs.is_sharded:
        record = json.loads(huggingface.index_text(arrays, ours))
        assert record == {"metadata": theirs.metadata, "weight_map": theirs.tensor_to_filename}


def test_written_directory_is_that_of_huggingface_hub(tmp_path: Path) -> None:
    shared = torch.arange(64, dtype=torch.float32).reshape(8, 8)
    state = {"a": shared, "z": torch.ones(40), "é": torch.ones(3, dtype=torch.bfloat16), "tied": shared}
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    save_torch_state_dict(dict(state), theirs, max_shard_size=200)
    kept = wt.open(theirs)
    in_order = [name for name in state if name in set(kept)]
    tensor_map = kept.replace(tensors={name: kept[name] for name in in_order})
    ours.mkdir()
    huggingface.write(tensor_map, ours, huggingface.shard_plan(tensor_map, 200))
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in theirs.iterdir())
    for path in theirs.glob("*.safetensors"):
        assert (ours / path.name).read_bytes() == path.read_bytes()
    record = json.loads((theirs / INDEX).read_text())
    assert (ours / INDEX).read_text() == json.dumps(record, indent=2, sort_keys=True) + "\n"  # as transformers spells
    assert dict(wt.open(ours).aliases) == dict(kept.aliases) != {}


def test_no_limit_gives_one_file() -> None:
    arrays = TensorMap.from_arrays({"a": np.zeros(9), "b": np.zeros(9)})
    assert huggingface.shard_plan(arrays, None, "adapter_model") == {"adapter_model.safetensors": ["a", "b"]}


def test_a_new_model_takes_the_place_of_the_one_before_alone(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in (
        "model.safetensors", "model-00001-of-00002.safetensors", "x.safetensors", "config.json",
        "adapter_model.safetensors", "model-00001-of-00002.bin", "model.fp16.safetensors",
    ):  # fmt: skip
        (tmp_path / name).touch()
    for name in ("part.safetensors", "sub/part.safetensors", "up.safetensors"):
        save_file({name: torch.ones(2)}, tmp_path / name)
    own = {"model.safetensors", "model-00001-of-00002.safetensors", INDEX}

    def named(*names: str) -> set[str]:
        """The files that go where an index names these."""
        text = json.dumps({"weight_map": {name.removeprefix("./"): name for name in names}}) if names else "broken"
        (tmp_path / INDEX).write_text(text)
        return set(huggingface.superseded(tmp_path, ["model.safetensors"]))

    assert named("part.safetensors", "sub/part.safetensors") == own | names_of("part")
    for refused in ("../up.safetensors", "/up.safetensors", "config.json", "gone.safetensors", "sub/../up.safetensors"):
        assert named("part.safetensors", refused) == own
    assert named() == own
    assert huggingface.superseded(tmp_path, ["model-00001-of-00009.safetensors", "…"]) == own
    assert huggingface.superseded(tmp_path, ["adapter_model.safetensors"]) == names_of("adapter_model")
    assert huggingface.superseded(tmp_path / "none", ["model.safetensors"]) == set()


def names_of(*stems: str) -> set[str]:
    return {f"{stem}.safetensors" for stem in stems}


@pytest.mark.parametrize(
    ("there", "written", "first"),
    [
        (["x.safetensors", "adapter_model.safetensors"], ["model.safetensors"], None),
        (["model.safetensors"], ["adapter_model.safetensors"], "model.safetensors"),
        (["x.safetensors.index.json"], ["model.safetensors"], "x.safetensors.index.json"),
        (["x.safetensors.index.json"], ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], None),
    ],
)
def test_another_model_that_is_taken_first(tmp_path: Path, there: list[str], written: list[str], first: str) -> None:
    for name in (*there, *written):
        (tmp_path / name).touch()
    assert huggingface.taken_before(tmp_path, written) == first

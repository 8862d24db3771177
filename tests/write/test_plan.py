"""A write is planned once, its plan says what it will do, and it loses nothing of what is read for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import weighttools as wt
from tests.work import calls_of
from weighttools.errors import SourceError, SpecError
from weighttools.write.destination import choose_destination
from weighttools.write.plan import plan

ARRAYS = {name: np.arange(i, i + 12, dtype=np.float32).reshape(3, 4) for i, name in enumerate(("a.weight", "b.weight"))}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(ARRAYS, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A directory of two shards, one a tensor."""
    home = tmp_path / "shards"
    home.mkdir()
    names = {name: f"model-0000{i}-of-00002.safetensors" for i, name in enumerate(ARRAYS, 1)}
    for name, shard in names.items():
        save_file({name: ARRAYS[name]}, home / shard)
    index = {"metadata": {"total_size": 96}, "weight_map": names}
    (home / "model.safetensors.index.json").write_text(json.dumps(index))
    (home / "config.json").write_text("{}")
    return home


def contents(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_a_plan_says_what_executing_it_then_does(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    planned = plan(wt.open(file), str(target), max_shard_size="50B")
    said, seen = planned.record, []
    assert not said["written"] and not target.exists() and len(said["files"]) == 2
    done = planned.execute(seen.append)
    assert {**done, "written": False} == said and sum(seen) >= planned.n_bytes
    written = {key: value for file in said["files"] for key, value in load_file(target / file["name"]).items()}
    assert all(np.array_equal(written[name], ARRAYS[name]) for name in ARRAYS) and written.keys() == ARRAYS.keys()


def test_what_a_bitmask_needs_is_counted_once(tmp_path: Path) -> None:
    sparse = wt.TensorMap.from_arrays({"w": np.eye(64, dtype=np.float32)})
    planned = plan(sparse, str(tmp_path / "b.safetensors"), store="bitmask")
    seen: list[int] = []
    assert planned.record["stored_bytes"] == 64 * 64 * 4, "headers do not tell"
    rehearsed = planned.run(dry_run=True, progress=seen.append)
    assert rehearsed["stored_bytes"] < 64 * 64 and sum(seen) == 64 * 64 * 4
    assert len(planned.run(progress=seen.append)["notes"]) == len(rehearsed["notes"])


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("command", "n"),
    [
        (("convert", "SRC", "DST", "--dtype", "bfloat16"), 1),
        (("scale", "SRC", "-o", "DST", "--by", "2"), 1),
        (("average", "SRC", "SRC", "-o", "DST"), 1),
        (("prune", "SRC", "-o", "DST", "--sparsity", "0.5"), 1),
        (("prune", "SRC", "-o", "DST", "--sparsity", "0.5", "--mask-out", "MASKS"), 2),
    ],
)
def test_a_command_plans_each_target_once(
    command: tuple[str, ...], n: int, dry: tuple[str, ...], file: Path, tmp_path: Path, inside: Callable[..., Any]
) -> None:
    places = {"SRC": file, "DST": tmp_path / "out.safetensors", "MASKS": tmp_path / "masks.npz"}
    with calls_of(choose_destination) as planned:
        assert inside(*(places.get(word, word) for word in command), *dry).code == 0
    assert planned.calls == n


def test_a_checkpoint_may_be_replaced_by_what_becomes_of_it(file: Path, shards: Path) -> None:
    for place in (file, shards):
        with pytest.raises(SourceError, match="exists"):
            wt.save(place, wt.scale(place, by=2.0))
        wt.save(place, wt.open(place), force=True)
        wt.save(place, wt.scale(place, by=2.0), force=True)
        assert all(np.array_equal(values, 2 * ARRAYS[name]) for name, values in wt.open(place).read().items())
    assert load_file(file).keys() == ARRAYS.keys()


def test_a_shard_is_not_replaced_by_what_becomes_of_the_whole(shards: Path, inside: Callable[..., Any]) -> None:
    before, shard = contents(shards), shards / "model-00001-of-00002.safetensors"
    with pytest.raises(SpecError, match="is a part of what is read; expected a place of its own"):
        wt.save(shard, wt.open(shards), force=True)
    for args in (("convert", shards, shard), ("scale", shards, "--by", "2", "-o", shard)):
        told = inside(*args, "--force")
        assert told.code == 2 and "is a part of what is read" in told.err and told.err.count("\n") == 1
    assert contents(shards) == before


def test_what_is_averaged_is_not_replaced(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({name: values + 2 for name, values in ARRAYS.items()}, other)
    before = contents(tmp_path)
    for place in (file, other):
        with pytest.raises(SpecError, match="is read too"):
            wt.save(place, wt.average([file, other]), force=True)
        with pytest.raises(SpecError, match="is read too"):
            wt.save(place, wt.scale(wt.average([file, other]), by=2.0), force=True)
    assert contents(tmp_path) == before
    wt.save(tmp_path / "mean.safetensors", wt.average([file, other]))
    assert np.array_equal(load_file(tmp_path / "mean.safetensors")["a.weight"], ARRAYS["a.weight"] + 1)


def test_masks_are_written_with_the_pruned(file: Path, tmp_path: Path) -> None:
    pruned, out, masks = wt.prune(file, sparsity=0.5), tmp_path / "p.safetensors", tmp_path / "masks.npz"
    assert wt.save(out, pruned, masks=masks, dry_run=True)["masks"] == str(masks)
    assert not out.exists() and not masks.exists()
    seen: list[int] = []
    record = wt.save(out, pruned, masks=masks, planned=seen.append)
    assert record["masks"] == str(masks) and record["written"] and seen == [2 * 48 + 2 * 12]
    with np.load(masks) as kept:
        assert all(np.array_equal(load_file(out)[name], ARRAYS[name] * kept[name]) for name in ARRAYS)
        assert sum(int(kept[name].sum()) for name in ARRAYS) == 12


@pytest.mark.parametrize("masks", ["-", "model.safetensors", "p.safetensors", "there.npz", "nowhere/m.npz", "m.csv"])
def test_masks_and_output_appear_both_or_none(masks: str, file: Path, tmp_path: Path) -> None:
    (tmp_path / "there.npz").write_bytes(b"old")
    before = contents(tmp_path)
    with pytest.raises(wt.WeighttoolsError):
        wt.save(
            tmp_path / "p.safetensors",
            wt.prune(file, sparsity=0.5),
            masks=masks if masks == "-" else tmp_path / masks,
            force=masks == "model.safetensors",
        )
    assert contents(tmp_path) == before


def test_only_what_was_pruned_has_masks(file: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="just pruned"):
        wt.save(tmp_path / "x.npz", wt.open(file), masks=tmp_path / "masks.npz")


def test_save_takes_what_convert_does(shards: Path, tmp_path: Path) -> None:
    assert len(wt.save(tmp_path / "d", wt.open(shards), max_shard_size="50B")["files"]) == 2
    assert len(wt.save(tmp_path / "d", wt.open(shards), single=True, force=True)["files"]) == 1
    with pytest.raises(SpecError, match="^single and max_shard_size exclude each other"):
        wt.save(tmp_path / "e", wt.open(shards), single=True, max_shard_size=50)
    with pytest.raises(SpecError, match="npz is not written with the compression 'gzip'.*expected compression gzip"):
        wt.save(tmp_path / "e.npz", wt.open(shards), compression="gzip")
    with pytest.raises(SpecError, match="e.npz: max_shard_size writes several files"):
        wt.convert(shards, tmp_path / "e.npz", max_shard_size="1GB")

"""An index against its shards, both ways, and the index written anew: shards by safetensors, read back by transformers' rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import save_torch_state_dict
from safetensors.numpy import load_file, save_file

import weighttools as wt
from tests.analyzers.test_checks import found
from weighttools.errors import WeighttoolsError

INDEX = "model.safetensors.index.json"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Four tensors in two shards or more, written by huggingface_hub."""
    import torch

    directory = tmp_path / "model"
    directory.mkdir()
    state = {f"layers.{i}.weight": torch.randn(8, 8) for i in range(4)}
    save_torch_state_dict(state, directory, max_shard_size=600)
    assert len(list(directory.glob("*.safetensors"))) > 1
    return directory


def index(home: Path) -> dict[str, Any]:
    return json.loads((home / INDEX).read_text())


def rewrite(home: Path, record: dict[str, Any]) -> None:
    (home / INDEX).write_text(json.dumps(record))


def test_a_sound_index(home: Path) -> None:
    assert found(home) == {}


def _extra(home: Path, record: dict[str, Any]) -> None:
    record["weight_map"]["nowhere"] = record["weight_map"]["layers.0.weight"]


def _missing(home: Path, record: dict[str, Any]) -> None:
    del record["weight_map"]["layers.1.weight"]


def _misplaced(home: Path, record: dict[str, Any]) -> None:
    record["weight_map"]["layers.0.weight"] = record["weight_map"]["layers.3.weight"]


def _stale(home: Path, record: dict[str, Any]) -> None:
    record["metadata"]["total_size"] += 1


def _not_an_index(home: Path, record: dict[str, Any]) -> None:
    record["weight_map"] = {"a": 3}


def _outside(home: Path, record: dict[str, Any]) -> None:
    record["weight_map"]["layers.0.weight"] = "../../etc/passwd"


DAMAGE = {
    "index-extra": _extra,
    "index-missing": _missing,
    "index-misplaced": _misplaced,
    "stale-total": _stale,
    "broken-index": _not_an_index,
}


@pytest.mark.parametrize("code", DAMAGE)
def test_damage_is_found_and_mended(code: str, home: Path) -> None:
    sound = index(home)
    record = index(home)
    DAMAGE[code](home, record)
    rewrite(home, record)
    report = found(home)
    assert code in report and report[code][0]["severity"] == ("warning" if code == "stale-total" else "error")
    fixed = wt.check(home, fix_index=True)
    assert fixed["findings"] == [] and fixed["fixed"][0]["n_tensors"] == 4
    assert index(home)["weight_map"] == sound["weight_map"]
    assert index(home)["metadata"]["total_size"] == sound["metadata"]["total_size"]


def test_an_index_that_leaves_its_directory(home: Path) -> None:
    record = index(home)
    _outside(home, record)
    rewrite(home, record)
    assert found(home)["broken-index"][0]["severity"] == "error"


def test_a_missing_shard_is_not_mended(home: Path) -> None:
    gone = index(home)["weight_map"]["layers.0.weight"]
    (home / gone).unlink()
    before = (home / INDEX).read_bytes()
    assert gone in found(home)["missing-shard"][0]["message"]
    with pytest.raises(WeighttoolsError, match="fetch"):
        wt.check(home, fix_index=True)
    assert (home / INDEX).read_bytes() == before and not [p for p in home.iterdir() if "tmp" in p.name]


def test_a_lost_index_is_made(home: Path) -> None:
    sound = index(home)
    (home / INDEX).unlink()
    assert wt.check(home, fix_index=True)["findings"] == []
    assert index(home)["weight_map"] == sound["weight_map"]
    for name, shard in index(home)["weight_map"].items():
        assert name in load_file(home / shard)


def test_a_stray_shard_and_a_name_held_twice(home: Path) -> None:
    record = index(home)
    last = record["weight_map"]["layers.3.weight"]
    twice = load_file(home / last) | {"layers.0.weight": np.zeros((2, 2), np.float32)}
    save_file(twice, home / last, {"format": "pt"})
    assert "duplicate-tensor" in found(home)
    with pytest.raises(WeighttoolsError, match=r"layers\.0\.weight"):
        wt.check(home, fix_index=True)
    save_file({"x": np.zeros(3, np.float32)}, home / "model-00009-of-00009.safetensors")
    assert "stray-shard" in found(home)


def test_ties_of_the_index_are_kept(home: Path) -> None:
    record = index(home)
    record["metadata"]["head.weight"] = "layers.0.weight"
    rewrite(home, record)
    wt.check(home, fix_index=True)
    assert wt.open(home).aliases == {"head.weight": "layers.0.weight"}


@pytest.mark.parametrize("kind", ["missing-shard", "index-extra", "index-missing"])
def test_many_findings_are_summed_up(kind: str, tmp_path: Path) -> None:
    """100,000 shards that are not there are ten lines and one; what else is wrong is said all the same."""
    n = 100_000 if kind == "missing-shard" else 3000
    held = {f"t{i}": np.zeros(0, np.float32) for i in range(n)} if kind == "index-missing" else {}
    save_file({"a": np.ones(2, np.float32), **held}, tmp_path / "model-00001-of-00001.safetensors", {"format": "pt"})
    named = {
        "missing-shard": {f"t{i}": f"model-{i:06d}-of-{n:06d}.safetensors" for i in range(n)},
        "index-extra": {f"t{i}": "model-00001-of-00001.safetensors" for i in range(n)},
        "index-missing": {},
    }[kind]
    rewrite(tmp_path, {"metadata": {"total_size": 1}, "weight_map": {**named, "a": "model-00001-of-00001.safetensors"}})
    report = wt.check(tmp_path, headers=True)["findings"]
    mine = [finding for finding in report if finding["code"] == kind]
    assert len(mine) == 11 and mine[-1]["message"] == f"and {n - 10:,} more of this kind"
    assert {finding["severity"] for finding in mine} == {"error"}
    if kind != "missing-shard":
        assert "stale-total" in {finding["code"] for finding in report}

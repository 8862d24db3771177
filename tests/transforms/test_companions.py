"""What edits change beside weights: config.json and hashes in the metadata."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighttools as wt
from tests.refused import refused
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.transforms.companions import read_json, with_config
from weighttools.transforms.restructuring import restructured


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    metadata = {"format": "pt", "sshs_model_hash": "0" * 64, "modelspec.hash_sha256": "0x12", "modelspec.title": "t"}
    save_file({"a": np.arange(4.0)}, path / "model.safetensors", metadata)
    config = {"model_type": "gemma3", "vocab_size": 3, "text_config": {"vocab_size": 3, "num_hidden_layers": 2}}
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_an_entry_is_changed_where_it_stands(model: Path, tmp_path: Path) -> None:
    changed = with_config(wt.open(model), {"num_hidden_layers": 1, "vocab_size": 5, "new": True})
    wt.save(tmp_path / "out", with_config(changed, {"num_hidden_layers": 7}))
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    inner = {"vocab_size": 5, "num_hidden_layers": 7, "new": True}
    assert written == {"model_type": "gemma3", "vocab_size": 5, "text_config": inner}
    assert read_json(wt.open(model), "config.json") == json.loads((model / "config.json").read_text())


def test_a_file_has_no_place_for_it(model: Path, tmp_path: Path) -> None:
    record = wt.save(tmp_path / "out.safetensors", with_config(wt.open(model), {"vocab_size": 5}))
    assert [note for note in record["notes"] if "config.json" in note and "name a directory" in note]


def test_without_a_configuration() -> None:
    with refused(SpecError, "no-config", "config.json"):
        with_config(TensorMap.from_arrays({"a": np.zeros(2)}), {"vocab_size": 5})


def test_stale_hashes_are_left_out_and_said(model: Path, tmp_path: Path) -> None:
    record = wt.save(tmp_path / "out.safetensors", restructured(wt.open(model), "try", n_renamed=3))
    assert wt.open(tmp_path / "out.safetensors").metadata == {"format": "pt", "modelspec.title": "t"}
    assert [note for note in record["notes"] if "sshs_model_hash, modelspec.hash_sha256" in note]
    assert record["transforms"][-1]["n_renamed"] == 3

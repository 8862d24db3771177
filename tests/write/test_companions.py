"""What goes beside merged weights goes there from Python too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import weighttools as wt
from weighttools.errors import SpecError

CONFIG = {"model_type": "bert", "hidden_size": 4}
FACTORS = {"A": np.arange(8, dtype=np.float32).reshape(2, 4), "B": np.ones((3, 2), np.float32)}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    home = tmp_path / "base"
    home.mkdir()
    save_file({"classifier.dense.weight": np.ones((3, 4), np.float32)}, home / "model.safetensors")
    (home / "config.json").write_text(json.dumps(CONFIG))
    return home


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    home = tmp_path / "adapter"
    home.mkdir()
    names = {side: f"base_model.model.classifier.dense.lora_{side}.weight" for side in "AB"}
    save_file({names[side]: values for side, values in FACTORS.items()}, home / "adapter_model.safetensors")
    (home / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    (home / "head_config.json").write_text(json.dumps({"id2label": {"0": "no", "1": "yes"}}))
    return home


def test_merged_weights_have_their_classes_beside_them(base: Path, adapter: Path, tmp_path: Path, inside) -> None:
    wt.save(tmp_path / "merged", wt.merge_adapter(base, adapter))
    assert json.loads((tmp_path / "merged" / "config.json").read_text()) == {
        **CONFIG,
        "id2label": {"0": "no", "1": "yes"},
    }
    found = load_file(tmp_path / "merged" / "model.safetensors")["classifier.dense.weight"]
    assert np.array_equal(found, 1 + FACTORS["B"] @ FACTORS["A"])
    assert inside("merge-adapter", base, adapter, "-o", tmp_path / "again").code == 0
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "merged" / name).read_bytes()


@pytest.mark.parametrize("name", ["", "adapter_model.safetensors"])
def test_an_adapter_is_not_replaced_by_what_it_is_merged_into(name: str, base: Path, adapter: Path, inside) -> None:
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    with pytest.raises(SpecError, match="is read too"):
        wt.save(adapter / name, wt.merge_adapter(base, adapter), force=True)
    told = inside("merge-adapter", base, adapter, "-o", adapter / name, "--force")
    assert told.code == 2 and "is read too" in told.err
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == before


def test_a_base_may_be_replaced_by_what_is_merged_into_it(base: Path, adapter: Path) -> None:
    wt.save(base, wt.merge_adapter(base, adapter), force=True)
    assert "id2label" in json.loads((base / "config.json").read_text())

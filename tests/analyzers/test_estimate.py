"""Memory, against what torch's optimizers and transformers' cache really hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import weighttools as wt
from weighttools.analyzers.estimate import OPTIMIZERS


def model() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(40, 30), torch.nn.LayerNorm(30), torch.nn.BatchNorm1d(5)
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_file(model().state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path / "model.safetensors"


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    values = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    return sum(v.numel() * v.element_size() for v in values if v.dim())


REAL: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p),
    "adafactor": lambda p: torch.optim.Adafactor(p),
}


@pytest.mark.parametrize("name", REAL)
def test_optimizer_state_is_what_torch_holds(name: str, saved: Path) -> None:
    net = model()
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer = REAL[name](net.parameters())
    optimizer.step()
    rows = {row["precision"]: row for row in wt.estimate(saved)["train"] if row["optimizer"] == name}
    n = sum(p.numel() for p in net.parameters())
    assert {row["optimizer_bytes"] for row in rows.values()} == {state_bytes(optimizer)}
    assert rows["float32"]["n_bytes"] == 8 * n + state_bytes(optimizer) == rows["mixed"]["n_bytes"]
    assert (rows["mixed"]["weights_bytes"], rows["mixed"]["master_bytes"]) == (2 * n, 4 * n)


def test_other_optimizers() -> None:
    assert OPTIMIZERS["lion"]((100, 10)) == 4000
    assert OPTIMIZERS["adam8bit"]((4095,)) == 8 * 4095
    assert OPTIMIZERS["adam8bit"]((64, 64)) == 2 * 4096 + 2 * 4 * 16
    assert OPTIMIZERS["adam8bit"]((4097,)) == 2 * 4097 + 2 * 4 * 17


def test_loading(saved: Path) -> None:
    state = model().state_dict()
    load = {row["dtype"]: row["n_bytes"] for row in wt.estimate(saved)["load"]}
    assert load["as stored"] == sum(v.numel() * v.element_size() for v in state.values())
    halved = {k: v.bfloat16() if "running" not in k and v.is_floating_point() else v for k, v in state.items()}
    assert load["bfloat16"] == sum(v.numel() * v.element_size() for v in halved.values())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_cache_is_what_transformers_holds(kind: str, tmp_path: Path) -> None:
    import transformers as t

    config = (
        t.LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
        if kind == "llama" else t.GPT2Config(vocab_size=50, n_embd=16, n_layer=3, n_head=4, n_positions=32)
    )  # fmt: skip
    net = {"llama": t.LlamaForCausalLM, "gpt2": t.GPT2LMHeadModel}[kind](config).eval()
    net.save_pretrained(tmp_path)
    with torch.no_grad():
        cache = net(torch.ones(2, 11, dtype=torch.long), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    record = wt.estimate(tmp_path, context=11, batch=2, cache_dtype="float32")["kv_cache"]
    assert record["n_bytes"] == held and record["bytes_per_token"] * 22 == held


def test_no_cache_says_why(saved: Path) -> None:
    assert wt.estimate(saved)["kv_cache_note"] == "there is no config.json"
    config = saved.parent / "config.json"
    for content, word in (
        ({"model_type": "bert", "hidden_size": 8}, "encoder"),
        ({"model_type": "llama", "hidden_size": "x"}, "does not tell"),
        ({"kv_lora_rank": 4}, "latent"),
        ({"text_config": [1], "num_hidden_layers": True}, "does not tell"),
    ):
        config.write_text(json.dumps(content))
        record = wt.estimate(saved)
        assert record["kv_cache"] is None and word in record["kv_cache_note"]
    config.write_text("{")
    assert "JSON" in wt.estimate(saved)["kv_cache_note"]


def test_gguf_metadata_tells_the_cache(tmp_path: Path) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(3)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_tensor("token_embd.weight", np.zeros((8, 64), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    cache = wt.estimate(tmp_path / "m.gguf", context=10)["kv_cache"]
    assert cache["n_bytes"] == 3 * 2 * 16 * 2 * 2 * 10


def test_bad_options(saved: Path) -> None:
    for settings in ({"context": 0}, {"batch": -1}, {"cache_dtype": "flot"}):
        with pytest.raises(wt.WeighttoolsError):
            wt.estimate(saved, **settings)

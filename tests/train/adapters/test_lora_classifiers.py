"""Adapters of sequence classifiers: trained and saved here, loaded by peft onto transformers' own models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers

from tests.train import tiny_texts
from weighttools import train
from weighttools.train.checkpoints.companions import adapter_prefix
from weighttools.train.checkpoints.heads import Classifier

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's own
ROWS = [("good film", "pos"), ("bad book .", "neg"), ("it was a very good plot", "pos"), ("the end is bad", "neg")] * 2
SIZES = {
    "vocab_size": len(tiny_texts.BERT), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 24,
}  # fmt: skip
CONFIGS = {
    "bert": transformers.BertConfig(**SIZES),
    "roberta": transformers.RobertaConfig(**SIZES, pad_token_id=0),
    "xlm-roberta": transformers.XLMRobertaConfig(**SIZES, pad_token_id=0),
    "camembert": transformers.CamembertConfig(**SIZES, pad_token_id=0),
    "electra": transformers.ElectraConfig(**SIZES, embedding_size=16),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=len(tiny_texts.BERT), dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=24
    ),
}


def saved(home: Path, kind: str, with_head: bool) -> Path:
    """A model with random values in all its tensors, biases too: as its classifier, or its body alone."""
    torch.manual_seed(0)
    config = CONFIGS[kind]
    config.num_labels = 2
    auto = transformers.AutoModelForSequenceClassification if with_head else transformers.AutoModel
    module = auto.from_config(config)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.2 * torch.randn_like(p)
    module.save_pretrained(home)
    template = "[CLS] $A [SEP]"
    specials = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    tiny_texts.tokenizer(tiny_texts.BERT, specials, template, f"{template} $B:1 [SEP]:1").save(
        str(home / "tokenizer.json")
    )
    return home


def logits_of(home: Path, adapter: Path, batch: dict[str, Any]) -> Any:
    base = transformers.AutoModelForSequenceClassification.from_pretrained(home, num_labels=2)
    module = peft.PeftModel.from_pretrained(base, adapter).eval()
    mask = torch.tensor(batch.get("mask", np.ones_like(batch["ids"]))).long()
    with torch.no_grad():
        return module(input_ids=torch.tensor(batch["ids"]).long(), attention_mask=mask).logits.numpy()


@pytest.mark.parametrize("with_head", [False, True])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_trained_adapter_in_peft(tmp_path: Path, kind: str, with_head: bool) -> None:
    home = saved(tmp_path / "base", kind, with_head)
    data = train.data.text(ROWS, tokenizer=home)
    base = train.model(home, Classifier(2, names=data.names))
    result = train.fit(
        train.lora(base, r=3, alpha=6), data, task=train.Classification(2), epochs=3, batch_size=4,
        optimizer=train.optim.adamw(0.05), log=None,
    )  # fmt: skip
    train.save_lora(tmp_path / "adapter", result.model, prefix=adapter_prefix(base), task_type="SEQ_CLS")
    batch = data.batch(np.arange(len(data)))
    found = result.model.run(result.model.params, batch)
    before = base.run(base.params, batch)
    assert np.abs(found - before).max() > 0.1, "training has changed what it gives"
    expected = logits_of(home, tmp_path / "adapter", batch)
    assert np.abs(found - expected).max() < 1e-4
    again = train.load_lora(train.model(home, Classifier(2, names=data.names)), tmp_path / "adapter")
    assert np.abs(again.run(again.params, batch) - expected).max() < 1e-4

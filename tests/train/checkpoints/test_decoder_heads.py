"""Heads on decoders: which task a checkpoint speaks for, and the token that the head looks at, as in transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.train import tiny_texts
from weighttools import train

END = 3
ROWS = [("good film", "fine"), ("bad book </s>", "poor"), ("very good plot </s> </s>", "fine"), ("</s>", "poor")] * 4
SIZES = {"vocab_size": len(tiny_texts.LLAMA), "pad_token_id": END, "eos_token_id": END, "bos_token_id": 2}
KIN = {
    **SIZES, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 24, "max_position_embeddings": 32, "head_dim": 8,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {**SIZES, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}),
    "llama": ("Llama", {**KIN, "tie_word_embeddings": False}),
    "gemma": ("Gemma", KIN),
    "qwen2": ("Qwen2", KIN),
}


def saved(home: Path, family: str, **more: Any) -> Path:
    """A classifier that transformers made, and a tokenizer that begins every text with <s>."""
    kind, config = MODELS[family]
    torch.manual_seed(0)
    whole = getattr(transformers, f"{kind}Config")(**{**config, **more})
    getattr(transformers, f"{kind}ForSequenceClassification")(whole).save_pretrained(home)
    tokenizer = tiny_texts.tokenizer(tiny_texts.LLAMA, {"bos_token": "<s>"}, "<s> $A", "<s> $A $B")
    tokenizer.save(str(home / "tokenizer.json"))
    return home


def table(path: Path, rows: list[tuple[str, Any]]) -> Path:
    path.write_text("\n".join(["text,label", *(f"{text},{label}" for text, label in rows)]))
    return path


def theirs(home: Path, texts: list[str]) -> torch.Tensor:
    """transformers' scores, a text at a time."""
    module = transformers.AutoModelForSequenceClassification.from_pretrained(home).eval()
    fast = tiny_texts.fast(home)
    with torch.no_grad():
        return torch.cat([module(input_ids=torch.tensor([fast(text)["input_ids"]])).logits for text in texts])


@pytest.mark.parametrize("family", MODELS)
def test_a_text_that_ends_in_the_padding_token_gives_transformers_scores(family: str, tmp_path: Path) -> None:
    home = saved(tmp_path, family)
    texts = [text for text, _ in ROWS]
    model = train.model(home)
    data = train.data.text(texts, tokenizer=home, label=None)
    for size in (1, 3, len(texts)):  # the batch's own filling makes no difference
        ours = np.concatenate(
            [model.run(model.params, data.batch(np.arange(i, min(i + size, 16)))) for i in range(0, 16, size)]
        )
        np.testing.assert_allclose(ours, theirs(home, texts).numpy(), rtol=1e-4, atol=1e-6)


def test_null_means_the_very_last_token(tmp_path: Path) -> None:
    home = saved(tmp_path, "llama", pad_token_id=None)
    texts = [text for text, _ in ROWS[:4]]
    ours = train.predict(train.model(home), train.data.text(texts, tokenizer=home, label=None), batch_size=1)
    np.testing.assert_allclose(ours, theirs(home, texts).numpy(), rtol=1e-4, atol=1e-6)


def test_defaults_of_transformers_where_config_json_does_not_say() -> None:
    from weighttools.train.checkpoints.pooling import pad_of
    from weighttools.train.models.classes import CLASSES
    from weighttools.train.models.families import FAMILIES

    for family in (name for name, row in FAMILIES.items() if row.kind == "decoder" and name in CLASSES):
        said = getattr(transformers, f"{CLASSES[family]}Config")().pad_token_id
        assert pad_of({}, family) == said, family
    assert pad_of({"pad_token_id": None}, "gemma") is None
    assert pad_of({"text_config": {"pad_token_id": 7}}, "gemma3") == 7


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("pad", [END, None])
def test_what_is_tuned_scores_in_transformers_as_it_does_here(
    inside, family: str, pad: int | None, tmp_path: Path
) -> None:
    home, out = saved(tmp_path / "m", family, pad_token_id=pad), tmp_path / "tuned"
    data = table(tmp_path / "d.csv", ROWS)
    ran = inside("finetune", home, "--data", data, "--epochs", "3", "--lr", "1e-2", "--batch-size", "4", "-o", out)
    assert ran.code == 0, ran.err
    assert "2 classes: 0 = fine (8), 1 = poor (8)" in ran.out  # no language model: its config.json and its head say so
    found = json.loads(inside("evaluate", out, "--data", data, "--json").out)
    labels = torch.tensor([("fine", "poor").index(label) for _, label in ROWS])
    loss = torch.nn.functional.cross_entropy(theirs(out, [text for text, _ in ROWS]), labels).item()
    assert found["metrics"]["loss"] == pytest.approx(loss, rel=1e-4)


def test_the_architecture_says_the_task_where_the_head_is_not_stored(inside, tmp_path: Path) -> None:
    home = tiny_texts.llama(tmp_path / "m")
    config = json.loads((home / "config.json").read_text())
    config["architectures"] = ["LlamaForSequenceClassification"]
    (home / "config.json").write_text(json.dumps(config))
    data = table(tmp_path / "d.csv", ROWS)
    ran = inside("finetune", home, "--data", data, "--epochs", "1", "-o", tmp_path / "tuned")
    assert ran.code == 0 and "2 classes" in ran.out and "score.weight (2 × 16)" in ran.out, ran.err
    ran = inside("evaluate", home, "--data", data)
    assert ran.code == 2 and "has no head" in ran.err


def test_a_language_model_says_that_it_does_not_learn_labels(inside, tmp_path: Path) -> None:
    home = tiny_texts.llama(tmp_path / "m")
    ran = inside("finetune", home, "--data", table(tmp_path / "d.csv", ROWS), "--epochs", "1", "-o", tmp_path / "out")
    assert ran.code == 0 and "column 'label' is not learnt" in ran.out


def test_labels_are_told_by_the_numbers_of_the_head(inside, tmp_path: Path) -> None:
    names = {0: "sad", 1: "poor", 2: "angry", 3: "fine"}
    home = saved(tmp_path / "m", "llama", id2label=names, label2id={name: i for i, name in names.items()})
    data = table(tmp_path / "d.csv", ROWS)
    for command in (("finetune", home, "--epochs", "1", "-o", tmp_path / "out"), ("evaluate", home)):
        ran = inside(*command[:2], "--data", data, *command[2:])
        assert "4 classes: 0 = sad (0), 1 = poor (8), 2 = angry (0), 3 = fine (8)" in ran.out, ran.err


def test_a_head_of_one_number_learns_numbers_and_a_new_one_classes(inside, tmp_path: Path) -> None:
    home = saved(tmp_path / "m", "llama", num_labels=1)
    data = table(tmp_path / "n.csv", [(text, len(text) / 7) for text, _ in ROWS])
    ran = inside("finetune", home, "--data", data, "--epochs", "1", "-o", tmp_path / "out", "--json")
    assert ran.code == 0 and json.loads(ran.out)["task"] == "regression", ran.err
    data = table(tmp_path / "d.csv", ROWS)
    ran = inside("finetune", home, "--data", data, "--epochs", "1", "-o", tmp_path / "classes", "--json")
    assert ran.code == 0 and json.loads(ran.out)["task"] == "classification", ran.err

"""finetune --lora, evaluate --adapter, generate --adapter, merge-adapter: one adapter through all of them, and peft."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import tokenizers
import torch
import transformers
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's own
LINES = [
    "the lamp is lit at six",
    "the lamp is out at nine",
    "the sea is high at night",
    "the wind is north at six",
] * 6


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    """A small Llama in a directory of its own, with a tokenizer."""
    tokenizer = Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=40, eos_token_id=None, bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    home = tmp_path / "llama"
    transformers.LlamaForCausalLM(config).save_pretrained(home)
    tokenizer.save(str(home / "tokenizer.json"))
    return home


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A small BERT of words in a directory of its own, without a head."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *["good", "bad", "fine", "poor", "great", "awful", "day", "book"]]
    tokenizer = Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40
    )
    home = tmp_path / "bert"
    transformers.BertModel(config).save_pretrained(home)
    tokenizer.save(str(home / "tokenizer.json"))
    return home


def lines(path: Path) -> Path:
    path.write_text("\n".join(json.dumps({"text": line}) for line in LINES))
    return path


def figures(run: Callable[..., Any], *args: object) -> dict[str, Any]:
    ran = run("evaluate", *args, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)["metrics"]
    return found


def test_a_language_model_s_adapter(inside: Callable[..., Any], decoder: Path, tmp_path: Path) -> None:
    data = lines(tmp_path / "lines.jsonl")
    args = ("finetune", decoder, "--data", data, "--lora", "r=4,alpha=8,dropout=0.05", "--lora-targets", "*_proj.weight",
            "--epochs", "8", "--batch-size", "4", "--block", "16", "--lr", "0.02")  # fmt: skip
    planned = inside(*args, "-o", tmp_path / "adapter", "--dry-run")
    plan = json.loads(inside(*args, "-o", tmp_path / "adapter", "--dry-run", "--json").out)
    base_bytes = sum(array.nbytes for array in load_file(decoder / "model.safetensors").values())
    assert plan["weights_bytes"] == base_bytes + 2_880 * 4  # the frozen weights too
    assert planned.code == 0 and "would train 2,880 of " in planned.out and not (tmp_path / "adapter").exists()
    ran = inside(*args, "-o", tmp_path / "adapter")
    assert ran.code == 0, ran.err
    assert "LoRA: 14 weights adapted" in ran.out
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json"}  # with a config.json, it would be a model
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 8, "CAUSAL_LM")

    data_args = ("--data", data, "--block", "16")
    before, after = (
        figures(inside, decoder, *data_args),
        figures(inside, decoder, *data_args, "--adapter", tmp_path / "adapter"),
    )
    assert after["perplexity"] < before["perplexity"] / 3
    merged = inside("merge-adapter", decoder, tmp_path / "adapter", "-o", tmp_path / "merged")
    assert merged.code == 0, merged.err
    assert figures(inside, tmp_path / "merged", *data_args)["loss"] == pytest.approx(after["loss"], rel=1e-4)

    wrong = inside("generate", tmp_path / "adapter", "--prompt", "the lamp")
    assert wrong.code == 2 and "is a LoRA adapter, and no model" in wrong.err and "--adapter" in wrong.err
    prompt = ("--prompt", "the lamp", "-n", "12", "--json")
    texts = [
        json.loads(inside("generate", *which, *prompt).out)["text"]
        for which in ((decoder,), (decoder, "--adapter", tmp_path / "adapter"), (tmp_path / "merged",))
    ]
    assert texts[1] == texts[2] != texts[0]

    module = peft.PeftModel.from_pretrained(
        transformers.LlamaForCausalLM.from_pretrained(decoder), tmp_path / "adapter"
    ).eval()
    whole = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "merged").eval()
    ids = torch.arange(20).reshape(2, 10)
    assert torch.allclose(module(ids).logits, whole(ids).logits, atol=1e-4)
    by_itself = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    assert torch.allclose(by_itself(ids).logits, whole(ids).logits, atol=1e-4)


def test_a_gguf_base_becomes_a_directory_that_transformers_loads(
    inside: Callable[..., Any], decoder: Path, tmp_path: Path
) -> None:
    module = peft.get_peft_model(transformers.LlamaForCausalLM.from_pretrained(decoder), peft.LoraConfig(r=2)).eval()
    with torch.no_grad():
        for name, p in module.named_parameters():
            if "lora_B" in name:
                p += torch.randn_like(p)
    module.save_pretrained(tmp_path / "adapter")
    ran = inside("convert", decoder, tmp_path / "m.gguf", "--names", "gguf")
    assert ran.code == 0, ran.err
    args = ("merge-adapter", tmp_path / "m.gguf", tmp_path / "adapter", "-o", tmp_path / "merged")
    other = inside(*args)
    assert other.code == 2 and "--names hf" in other.err
    ran = inside(*args, "--names", "hf")
    assert ran.code == 0, ran.err
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    ids = torch.arange(20).reshape(2, 10)
    assert torch.allclose(module(ids).logits, whole(ids).logits, atol=1e-4)


def test_a_classifier_s_adapter_brings_its_head(inside: Callable[..., Any], encoder: Path, tmp_path: Path) -> None:
    rows = [
        ("good day", "pos"),
        ("bad day", "neg"),
        ("fine book", "pos"),
        ("poor book", "neg"),
        ("great day", "pos"),
        ("awful book", "neg"),
    ] * 4
    data = tmp_path / "rows.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    args = ("finetune", encoder, "--data", data, "--lora", "r=4", "--epochs", "15", "--batch-size", "8", "--lr", "0.02")
    ran = inside(*args, "-o", tmp_path / "adapter")
    assert ran.code == 0, ran.err
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS" and "classifier" in config["modules_to_save"]
    beside = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert "head_config.json" in beside and "config.json" not in beside
    bert = transformers.BertForSequenceClassification.from_pretrained(encoder, num_labels=2)
    module = peft.PeftModel.from_pretrained(bert, tmp_path / "adapter").eval()
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    ids = torch.tensor([tokenizer.encode(text).ids for text, _ in rows])
    said = ["neg" if row[0] > row[1] else "pos" for row in module(ids).logits.tolist()]
    assert said == [label for _, label in rows]
    found = figures(inside, encoder, "--data", data, "--adapter", tmp_path / "adapter")
    assert found["accuracy"] == 1
    ran = inside("merge-adapter", encoder, tmp_path / "adapter", "-o", tmp_path / "merged")
    assert ran.code == 0, ran.err
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert loaded.config.id2label == {0: "neg", 1: "pos"}
    assert torch.allclose(loaded(ids).logits, module(ids).logits, atol=1e-4)
    ran = inside(*args, "-o", tmp_path / "whole", "--merge")
    assert ran.code == 0, ran.err
    whole = figures(inside, tmp_path / "whole", "--data", data)
    assert whole["loss"] == pytest.approx(found["loss"], rel=1e-3)
    tensors, config = (
        load_file(tmp_path / "whole" / "model.safetensors"),
        json.loads((tmp_path / "whole" / "config.json").read_text()),
    )
    assert "classifier.weight" in tensors and config["id2label"] == {"0": "neg", "1": "pos"}
    assert not [name for name in tensors if "lora" in name]
    frozen = load_file(encoder / "model.safetensors")
    assert np.array_equal(tensors["encoder.layer.0.output.dense.weight"], frozen["encoder.layer.0.output.dense.weight"])
    assert not np.array_equal(*(t["encoder.layer.0.attention.self.query.weight"] for t in (tensors, frozen)))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--lora", "r=x"), "'r=x': expected r=8"),
        (("--lora", "rank=8"), "'rank=8': expected r=8"),
        (("--lora", "r=0"), "a rank of 0"),
        (("--lora", "r=1,r=2"), "r is given twice"),
        (("--lora-targets", "*q_proj*"), "--lora-targets goes with --lora"),
        (("--merge",), "--merge goes with --lora"),
        (("--lora", "r=2", "--lora-targets", "*nothing*"), "matches no tensor"),
    ],
)
def test_what_does_not_fit(
    args: tuple[str, ...], message: str, inside: Callable[..., Any], decoder: Path, tmp_path: Path
) -> None:
    ran = inside("finetune", decoder, "--data", lines(tmp_path / "a.jsonl"), *args, "-o", tmp_path / "out")
    assert ran.code == 2 and message in ran.err and not (tmp_path / "out").exists()


def test_an_adapter_of_another_model(inside: Callable[..., Any], decoder: Path, encoder: Path, tmp_path: Path) -> None:
    data = lines(tmp_path / "a.jsonl")
    ran = inside("finetune", decoder, "--data", data, "--lora", "r=2", "--steps", "1", "-o", tmp_path / "adapter")
    assert ran.code == 0, ran.err
    for args in (("evaluate", encoder, "--data", data), ("generate", encoder, "-p", "x"), ("merge-adapter", encoder)):
        place = ("-o", tmp_path / "merged") if args[0] == "merge-adapter" else ()
        adapter = (tmp_path / "adapter",) if args[0] == "merge-adapter" else ("--adapter", tmp_path / "adapter")
        wrong = inside(*args, *adapter, *place)
        assert wrong.code == 2 and len(wrong.err.strip().splitlines()) == 1, wrong.err


def test_an_adapter_replaces_no_base_and_a_merge_no_adapter(
    inside: Callable[..., Any], decoder: Path, tmp_path: Path
) -> None:
    home, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(decoder, home)
    train = ("finetune", home, "--data", lines(tmp_path / "a.jsonl"), "--lora", "r=2", "--steps", "1", "--force")
    ran = inside(*train, "-o", home)
    assert ran.code == 2 and "is the directory of the model that the adapter is for" in ran.err, ran.err
    assert {p.name: p.read_bytes() for p in home.iterdir()} == {p.name: p.read_bytes() for p in decoder.iterdir()}
    assert inside(*train, "-o", adapter).code == 0
    ran = inside("merge-adapter", home, adapter, "-o", adapter / "adapter_model.safetensors", "--force")
    assert ran.code == 2 and "adapter_model.safetensors: is read too" in ran.err, ran.err

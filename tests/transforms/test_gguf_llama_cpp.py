"""Directories that become GGUF files, and the reverse, in the programs they are for: llama.cpp and transformers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.tokenization_utils_base import generate_merges

from tests.llama_cpp import LlamaCpp
from weighttools import api

CORPUS = ["the cat sat on the mat", "a dog and a cat and 1234 logs", "don't  stop\n\n it's 3.14 or 22", "émoji 😀 日本語"] * 6
TEXTS = [
    "the cat sat",
    "  two  spaces ",
    "a\nb\n\n c\t d\r\n",
    "12 3456 7.89 x2 ½",
    "émoji 😀👩‍👩‍👧 日本語 العربية",
    "don't I'LL WE'RE",
    "<s>the</s> cat",
    " ",
    "unseen: zzz ÿ",
]
SPLITS = {
    "gpt-2": None,
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "smollm": "digits",
}


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()


def byte_level(cut: str) -> Tokenizer:
    """A byte-level BPE as the models of one kind have it, trained on a few lines."""
    found = Tokenizer(models.BPE(ignore_merges=cut == "llama-bpe"))
    split = SPLITS[cut]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split in (None, "digits"))
    before = [pre_tokenizers.Digits(individual_digits=True)] if split == "digits" else []
    before = [pre_tokenizers.Split(Regex(split), "isolated")] if split and split != "digits" else before
    found.pre_tokenizer = pre_tokenizers.Sequence([*before, level])
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<unk>", "<s>", "</s>", "<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    found.train_from_iterator(CORPUS, trainer)
    return found


def sentencepiece(begun: bool = True) -> Tokenizer:
    """A BPE of characters with bytes to fall back on, all of whose merges follow from its scores."""
    letters = sorted(set("".join(CORPUS)) - {" "} | set("abcdefghijklmnopqrstuvwxyz▁"))[:80]
    words = ["▁the", "▁cat", "▁t", "th", "he", "the", "at", "ca", "cat", "▁c", "▁ca", "▁a", "nd", "and", "▁and", "▁▁"]
    order = np.random.default_rng(4).permutation(len(words))
    pieces = ["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{i:02X}>" for i in range(256)), *(words[i] for i in order), *letters]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    merges = generate_merges({k: v for k, v in vocab.items() if v >= 260}, {k: -v for k, v in vocab.items() if v >= 260})
    found = (transformers.LlamaTokenizer if begun else transformers.GemmaTokenizer)(vocab, merges).backend_tokenizer
    if begun:  # as the tokenizer.json of Llama 2 and llama.cpp do it; the class has another way with spaces in front
        found.pre_tokenizer = None
        found.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    found.add_special_tokens(["<unk>", "<s>", "</s>", "<pad>"])
    return found


def fast(tokenizer: Tokenizer, bos: bool = False, **more: Any) -> Any:
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends, **more)


SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16, "rope_theta": 10000.0}  # fmt: skip
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0],
        "rope_theta": 10000.0}  # fmt: skip
GEMMA = {**SMALL, "query_pre_attn_scalar": 8, "sliding_window": 16}
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("LlamaForCausalLM", SMALL, "spm"),
    "llama-tied": ("LlamaForCausalLM", {**SMALL, "tie_word_embeddings": True, "attention_bias": True}, "smollm"),
    "llama3": ("LlamaForCausalLM", {**SMALL, "rope_parameters": LLAMA3}, "llama-bpe"),
    "llama-linear": ("LlamaForCausalLM", {**SMALL, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}, "spm"),
    "llama-yarn": ("LlamaForCausalLM", {**SMALL, "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 32}}, "spm"),
    "mistral": ("MistralForCausalLM", {**SMALL, "sliding_window": None}, "spm"),
    "qwen2": ("Qwen2ForCausalLM", {k: v for k, v in SMALL.items() if k != "head_dim"}, "qwen2"),
    "qwen3": ("Qwen3ForCausalLM", SMALL, "qwen2"),
    "phi3": ("Phi3ForCausalLM", {**SMALL, "sliding_window": None}, "spm"),
    "phi3-long": ("Phi3ForCausalLM", {**SMALL, "sliding_window": None, "rope_parameters": LONG,
                                      "original_max_position_embeddings": 256, "max_position_embeddings": 512}, "spm"),
    "gemma": ("GemmaForCausalLM", SMALL, "gemma"),
    "gemma2": ("Gemma2ForCausalLM", GEMMA, "gemma"),
    "gemma3": ("Gemma3ForCausalLM", {**GEMMA, "num_hidden_layers": 6}, "gemma"),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.3}, "gpt-2"),
}  # fmt: skip


def saved(name: str, folder: Path) -> tuple[Any, Any]:
    """A small model of random weights with its tokenizer, in float32."""
    kind, settings, cut = MODELS[name]
    tokenizer = fast(sentencepiece(cut == "spm") if cut in ("spm", "gemma") else byte_level(cut), bos=cut != "gpt-2")
    torch.manual_seed(1)
    numbers = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    config = getattr(transformers, kind).config_class(**{**settings, **numbers})
    module = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return module, tokenizer


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_writes_what_transformers_does(name: str, tmp_path: Path) -> None:
    module, tokenizer = saved(name, tmp_path / "hf")
    record = api.convert(tmp_path / "hf", tmp_path / "m.gguf", names="gguf")
    assert not [note for note in record["notes"] if "llama.cpp" in note]
    theirs = LlamaCpp(tmp_path / "m.gguf")
    for text in TEXTS:
        assert theirs.ids(text) == tokenizer(text)["input_ids"], text
    ids = tokenizer("the cat sat on the mat and a dog")["input_ids"]
    settings = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": 3}
    expected = module.generate(torch.tensor([ids]), **settings)[0].tolist()[len(ids) :]
    assert theirs.greedy(ids, 16) == expected

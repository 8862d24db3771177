"""A tiny BERT and a tiny Llama with tokenizers, made by transformers and tokenizers, for the tests of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("good", "bad", "film", "book", "very", "not", "a", "it", "is", "was", "the", "plot", "end", ".", "!")
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS)
LLAMA = ("<pad>", "<unk>", "<s>", "</s>", *WORDS)


def tokenizer(vocabulary: tuple[str, ...], specials: dict[str, str], template: str, pair: str) -> Tokenizer:
    """Words by white space and punctuation, with what a template adds."""
    found = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token=vocabulary[1]))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.add_special_tokens([*vocabulary[:4]])
    tokens = [(name, vocabulary.index(name)) for name in specials.values()]
    found.post_processor = processors.TemplateProcessing(single=template, pair=pair, special_tokens=tokens)
    return found


def bert(home: Path, **more: Any) -> Path:
    """Save a BERT of 2 layers with its tokenizer.json, which says to cut at 12 and to pad to 12."""
    home.mkdir(parents=True, exist_ok=True)
    found = tokenizer(
        BERT, {"cls_token": "[CLS]", "sep_token": "[SEP]"}, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
    )
    found.enable_truncation(12)
    found.enable_padding(length=12, pad_id=0, pad_token="[PAD]")
    found.save(str(home / "tokenizer.json"))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(BERT), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, **more,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(home)
    return home


def llama(home: Path) -> Path:
    """Save a Llama of 2 layers with its tokenizer.json."""
    home.mkdir(parents=True, exist_ok=True)
    tokenizer(LLAMA, {"bos_token": "<s>"}, "<s> $A", "<s> $A $B").save(str(home / "tokenizer.json"))
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(LLAMA), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, bos_token_id=2, eos_token_id=3, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(home)
    return home


def fast(home: Path) -> Any:
    """The tokenizer as transformers runs it."""
    raw = tokenizers.Tokenizer.from_file(str(home / "tokenizer.json"))
    raw.no_truncation()
    raw.no_padding()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=raw.id_to_token(0))

"""GGUF metadata that contradict tensors, tokenizer or themselves; the files are written by the gguf package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter

import weighttools as wt

N, WIDTH, HEADS, GROUPS, INNER, LAYERS, EXPERTS = 20, 64, 4, 2, 96, 3, 4
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def tensors() -> dict[str, Any]:
    found = {
        "token_embd.weight": normal(N, WIDTH),
        "output_norm.weight": normal(WIDTH),
        "output.weight": normal(N, WIDTH),
    }
    for i in range(LAYERS):
        head = WIDTH // HEADS
        found |= {
            f"blk.{i}.attn_q.weight": normal(HEADS * head, WIDTH),
            f"blk.{i}.attn_k.weight": normal(GROUPS * head, WIDTH),
            f"blk.{i}.attn_v.weight": normal(GROUPS * head, WIDTH),
            f"blk.{i}.attn_output.weight": normal(WIDTH, HEADS * head),
            f"blk.{i}.ffn_up.weight": normal(INNER, WIDTH),
            f"blk.{i}.ffn_down.weight": normal(WIDTH, INNER),
            f"blk.{i}.ffn_gate_inp.weight": normal(EXPERTS, WIDTH),
        }
    return found


SOUND: dict[str, Any] = {
    "llama.block_count": LAYERS, "llama.context_length": 128, "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": INNER, "llama.attention.head_count": HEADS, "llama.attention.head_count_kv": GROUPS,
    "llama.expert_count": EXPERTS, "llama.expert_used_count": 2, "llama.vocab_size": N,
    "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": [f"t{i}" for i in range(N)],
    "tokenizer.ggml.scores": [0.0] * N, "tokenizer.ggml.token_type": [1] * N,
    "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": N - 1,
    "tokenizer.ggml.padding_token_id": 2**32 - 1, "tokenizer.ggml.unknown_token_id": 0,
}  # fmt: skip


def write(path: Path, metadata: Mapping[str, Any], arrays: Mapping[str, Any]) -> Path:
    writer = GGUFWriter(path, "llama")
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value < 0:
            writer.add_int32(key, value)
        else:
            writer.add_uint32(key, value)
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def facts(path: Path) -> list[str]:
    return [f["message"] for f in wt.check(path, headers=True)["findings"] if f["code"] == "gguf-metadata"]


def test_what_fits_is_no_finding(tmp_path: Path) -> None:
    assert wt.check(write(tmp_path / "a.gguf", SOUND, tensors()), headers=True)["findings"] == []


@pytest.mark.parametrize(("key", "value", "said"), [
    ("llama.block_count", 2, "3 layers"), ("llama.block_count", 5, "3 layers"), ("llama.block_count", 0, "1 or more"),
    ("llama.context_length", 0, "1 or more"), ("llama.embedding_length", 128, "embedding_length"),
    ("llama.feed_forward_length", 80, "feed_forward_length"), ("llama.attention.head_count", 8, "head_count"),
    ("llama.attention.head_count_kv", 4, "head_count_kv"), ("llama.attention.head_count_kv", 3, "does not divide"),
    ("llama.expert_count", 8, "expert_count"), ("llama.expert_used_count", 9, "experts"),
    ("llama.vocab_size", 21, "20 tokens"), ("tokenizer.ggml.tokens", ["a"] * 19, "token_embd.weight"),
    ("tokenizer.ggml.scores", [0.0] * 19, "scores"), ("tokenizer.ggml.token_type", [1] * 21, "token_type"),
    ("tokenizer.ggml.eos_token_id", N, "eos_token_id"), ("tokenizer.ggml.bos_token_id", 99, "bos_token_id"),
    ("tokenizer.ggml.padding_token_id", N, "padding_token_id"), ("tokenizer.ggml.eos_token_ids", [1, N], "eos_token_ids"),
    ("tokenizer.ggml.unknown_token_id", -7, "unknown_token_id"), ("tokenizer.ggml.model", "gpt2", "merges"),
    ("llama.attention.key_length", 32, "head_count"),
])  # fmt: skip
def test_one_entry_that_does_not_fit(tmp_path: Path, key: str, value: Any, said: str) -> None:
    found = facts(write(tmp_path / "a.gguf", {**SOUND, key: value}, tensors()))
    assert any(said in fact for fact in found), found
    assert len(found) <= 20


def test_a_layer_in_the_middle_that_is_missing(tmp_path: Path) -> None:
    arrays = {name: array for name, array in tensors().items() if not name.startswith("blk.1.")}
    assert any("2 layers" in fact for fact in facts(write(tmp_path / "a.gguf", SOUND, arrays)))


def test_a_vocabulary_alone_and_an_adapter_are_no_finding(tmp_path: Path) -> None:
    assert facts(write(tmp_path / "vocab.gguf", SOUND, {})) == []
    adapter = {**SOUND, "general.type": "adapter", "llama.block_count": 9}
    assert facts(write(tmp_path / "adapter.gguf", adapter, tensors())) == []


def test_a_mix_by_design_gets_no_note(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    for i in range(4):
        halves = normal(8, 32).astype(np.float16 if i % 2 else np.float32)
        writer.add_tensor(f"blk.{i}.attn_q.weight", halves)
    quantised = np.zeros((8, 34), np.uint8)
    writer.add_tensor("blk.0.attn_v.weight", quantised, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert not [f for f in wt.check(tmp_path / "a.gguf", headers=True)["findings"] if f["code"] == "mixed-dtypes"]

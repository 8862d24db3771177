"""GGUF metadata against the tensors and the tokenizer: a runtime believes the metadata, and reads by them.

Source: llama.cpp, ``src/llama-model.cpp`` (which key gives which side of which tensor) and ``src/llama-vocab.cpp``
(scores, types and merges beside the tokens, special ids). Sides of attention and feed-forward tensors are held only
against architectures whose tensors are laid out as LLaMA's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weighttools.core.findings import ERROR, Finding
from weighttools.core.tensormap import TensorMap

_LAID_OUT_AS_LLAMA = frozenset(
    [
        "llama",
        "mistral",
        "mistral3",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "gemma3",
        "smollm3",
        "olmo2",
        "internlm2",
        "granite",
        "exaone",
        "stablelm",
        "starcoder2",
        "command-r",
    ]
)
_LAYERS = (("blk.", "block_count"), ("enc.blk.", "block_count"), ("dec.blk.", "decoder_block_count"))
_NUMBER = re.compile(r"(\d{1,6})\.")
_NO_ID = (-1, 2**32 - 1)
"""What stands for no token at all."""
_POSITIVE = (
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.key_length",
    "attention.value_length",
)
_TOKENS = "tokenizer.ggml.tokens"
_LISTS = ("tokenizer.ggml.scores", "tokenizer.ggml.token_type")


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield a finding for each entry of the metadata that contradicts the tensors, the tokenizer or itself."""
    metadata = tensor_map.metadata
    if tensor_map.origin.format != "gguf" or metadata.get("general.type", "model") != "model":
        return
    yield from (Finding(ERROR, "gguf-metadata", fact) for fact in _tokenizer(metadata))
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        return
    yield from (Finding(ERROR, "gguf-metadata", fact) for fact in _numbers(metadata, architecture))
    if _whole(metadata.get("split.count")) in (None, 0, 1):  # of one part of several, the rest is elsewhere
        found = [*_layers(tensor_map, architecture), *_sides(tensor_map, architecture)]
        yield from (Finding(ERROR, "gguf-metadata", fact) for fact in found)
    else:
        yield from _split(metadata)


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, Sequence) and not isinstance(value, str) else None


def _split(metadata: Mapping[str, Any]) -> Iterator[Finding]:
    number, count = _whole(metadata.get("split.no")), _whole(metadata.get("split.count"))
    if number is not None and count is not None and not 0 <= number < count:
        yield Finding(ERROR, "gguf-metadata", f"split.no is {number:,}; split.count says there are {count:,} parts")


# -- the tokenizer ----------------------------------------------------------------------------------------------------


def _tokenizer(metadata: Mapping[str, Any]) -> Iterator[str]:
    n = _length(metadata.get(_TOKENS))
    if n is None:
        return
    for key in _LISTS:
        length = _length(metadata.get(key))
        if length is not None and length != n:
            yield f"{key} has {length:,} entries, {_TOKENS} has {n:,}"
    for key, value in metadata.items():
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id"):
            yield from _id(key, _whole(value), n)
    many = metadata.get("tokenizer.ggml.eos_token_ids")
    for value in many[:64] if isinstance(many, Sequence) and not isinstance(many, str) else ():
        yield from _id("tokenizer.ggml.eos_token_ids", _whole(value), n)
    if metadata.get("tokenizer.ggml.model") == "gpt2" and not _length(metadata.get("tokenizer.ggml.merges")):
        yield "tokenizer.ggml.model is gpt2, which needs tokenizer.ggml.merges, and there are none"


def _id(key: str, value: int | None, n: int) -> Iterator[str]:
    if value is not None and value not in _NO_ID and not 0 <= value < n:
        yield f"{key} is {value:,}; there are {n:,} tokens"


# -- numbers ----------------------------------------------------------------------------------------------------------


def _numbers(metadata: Mapping[str, Any], architecture: str) -> Iterator[str]:
    for name in _POSITIVE:
        value = _whole(metadata.get(f"{architecture}.{name}"))
        if value is not None and value < 1:
            yield f"{architecture}.{name} is {value}, not 1 or more"
    heads, groups = (_whole(metadata.get(f"{architecture}.attention.{key}")) for key in ("head_count", "head_count_kv"))
    if heads and groups and (groups > heads or heads % groups):
        yield f"{architecture}.attention.head_count_kv is {groups:,}, which does not divide head_count {heads:,}"
    count, used = (_whole(metadata.get(f"{architecture}.{key}")) for key in ("expert_count", "expert_used_count"))
    if count and used and used > count:
        yield f"{architecture}.expert_used_count is {used:,}; there are {count:,} experts"
    tokens, size = _length(metadata.get(_TOKENS)), _whole(metadata.get(f"{architecture}.vocab_size"))
    if tokens and size is not None and size != tokens:
        yield f"{architecture}.vocab_size is {size:,}; there are {tokens:,} tokens"


# -- tensors ----------------------------------------------------------------------------------------------------------


def _layers(tensor_map: TensorMap, architecture: str) -> Iterator[str]:
    said = {key: _whole(tensor_map.metadata.get(f"{architecture}.{key}")) for _, key in _LAYERS}
    for start, key in _LAYERS:
        found = {int(match[1]) for name in tensor_map if name.startswith(start)
                 and (match := _NUMBER.match(name, len(start)))}  # fmt: skip
        claimed = said[key] if said[key] is not None else said["block_count"]
        beyond = _whole(tensor_map.metadata.get(f"{architecture}.nextn_predict_layers")) or 0
        if not found or claimed is None or claimed < 1:
            continue
        if not set(range(min(claimed - beyond, 1_000_000))) <= found <= set(range(min(claimed, 1_000_000))):
            yield f"{architecture}.{key} is {claimed:,}; the tensors are of {len(found):,} layers, up to {max(found):,}"


def _sides(tensor_map: TensorMap, architecture: str) -> Iterator[str]:
    """Yield each kind of tensor whose shape is not what the metadata say; rows first, as everywhere here."""
    wanted = _wanted(tensor_map.metadata, architecture)
    told: set[str] = set()
    for name, spec in zip(tensor_map, tensor_map.specs(), strict=True):
        kind = re.sub(r"^blk\.\d+\.", "", name)
        sides = wanted.get(kind)
        if sides is None or kind in told or len(sides) != len(spec.shape):
            continue
        for axis, (length, (expected, why)) in enumerate(zip(spec.shape, sides, strict=True)):
            if expected is not None and length != expected:
                told.add(kind)
                shape = " x ".join(map(str, spec.shape))
                yield f"{name} is {shape}; its {('rows', 'columns', 'depth')[axis]} should be {expected:,}, by {why}"
                break


_Side = tuple[int | None, str]


def _wanted(metadata: Mapping[str, Any], architecture: str) -> dict[str, tuple[_Side, ...]]:
    def said(key: str, default: int | None = None) -> int | None:
        value = _whole(metadata.get(f"{architecture}.{key}"))
        return default if value is None else value

    width, heads, experts = said("embedding_length"), said("attention.head_count"), said("expert_count")
    tokens = _length(metadata.get(_TOKENS)) or said("vocab_size")
    across: _Side = (width, f"{architecture}.embedding_length")
    rows: _Side = (tokens, f"the {tokens or 0:,} tokens")
    found: dict[str, tuple[_Side, ...]] = {
        "token_embd.weight": (rows, across),
        "output.weight": (rows, across),
        "output_norm.weight": (across,),
        "ffn_gate_inp.weight": ((experts or None, f"{architecture}.expert_count"), across),
    }
    if architecture in _LAID_OUT_AS_LLAMA and width and heads:
        found |= _attention(said, architecture, width, heads)
    return found


def _attention(said: Any, architecture: str, width: int, heads: int) -> dict[str, tuple[_Side, ...]]:
    groups = said("attention.head_count_kv", heads)
    key = said("attention.key_length", width // heads)
    value = said("attention.value_length", width // heads)
    inner: _Side = (said("feed_forward_length"), f"{architecture}.feed_forward_length")
    across: _Side = (width, f"{architecture}.embedding_length")
    by = f"{architecture}.attention.head_count"
    return {
        "attn_q.weight": ((heads * key, by), across),
        "attn_k.weight": ((groups * key, f"{by}_kv"), across),
        "attn_v.weight": ((groups * value, f"{by}_kv"), across),
        "attn_output.weight": (across, (heads * value, by)),
        "ffn_up.weight": (inner, across),
        "ffn_down.weight": (across, inner),
    }

"""What GGUF's metadata says of a model, in the words of config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weighttools.core.tensormap import TensorMap
from weighttools.errors import UnsupportedError
from weighttools.families.gguf.rope import DIVISORS, llama3_of
from weighttools.families.gguf.settings import CAPS, SETTINGS, style_of
from weighttools.families.model_family import GgufArchitecture, ModelFamily, Pairs
from weighttools.families.models import gguf_families
from weighttools.formats.gguf.numbers import Float32

ARCHITECTURE = "general.architecture"
_EMBEDDINGS = "token_embd.weight"
_MORE = (*CAPS, ("sliding_window", "attention.sliding_window"))
_SCALING = (
    ("rope_type", "rope.scaling.type"),
    ("factor", "rope.scaling.factor"),
    ("original_max_position_embeddings", "rope.scaling.original_context_length"),
    ("attention_factor", "rope.scaling.attn_factor"),
)
_TOKENS = (
    ("bos_token_id", "tokenizer.ggml.bos_token_id"),
    ("eos_token_id", "tokenizer.ggml.eos_token_id"),
    ("pad_token_id", "tokenizer.ggml.padding_token_id"),
)
_BIASES = {"attention_bias": ".attn_q.bias", "mlp_bias": ".ffn_gate.bias"}
"""Settings of config.json that GGUF leaves to the tensors."""
_FACTORS = ("long", "short")
"""What GGUF calls the tensors that Phi-3's frequencies are divided by, in long texts and in short ones."""


def is_gguf(tensor_map: TensorMap) -> bool:
    """Return whether a map has GGUF's names."""
    return ARCHITECTURE in tensor_map.metadata and _EMBEDDINGS in tensor_map


def configuration(tensor_map: TensorMap) -> dict[str, Any]:
    """Return the config.json that a GGUF map's metadata stands for.

    Raises
    ------
    UnsupportedError
        The architecture has no row in `weighttools.families.models`, or heads turn in part where its class has none
        that do.
    """
    name = str(tensor_map.metadata.get(ARCHITECTURE))
    family = gguf_families().get(name)
    if family is None or family.gguf is None:
        raise UnsupportedError(f"no table for GGUF's {name!r}", expected=", ".join(gguf_families()))
    begin = f"{name}."
    own = {key.removeprefix(begin): value for key, value in tensor_map.metadata.items() if key.startswith(begin)}
    config: dict[str, Any] = {"architectures": [family.plain_class], "model_type": family.model_type}
    config |= _named(own, _entries(family.gguf)) | _named(tensor_map.metadata, _TOKENS)
    config.setdefault("vocab_size", tensor_map[_EMBEDDINGS].shape[0])  # a row each, where nothing says it
    if style_of(family).query_scale:
        config["query_pre_attn_scalar"] = _query_scalar(family.gguf, config)
    if family.gguf.head is not None:  # Said of both, for what transformers takes unsaid differs from family to family.
        config["tie_word_embeddings"] = "output.weight" not in tensor_map
        config |= {key: True for key, end in _BIASES.items() if any(n.endswith(end) for n in tensor_map)}
    rope = _rope(tensor_map, own, family, config)
    config = dict.fromkeys(family.gguf.nulls) | config | _named(own, family.gguf.read)
    return config | ({"rope_scaling": rope} if rope else {})


def _entries(own: GgufArchitecture) -> Pairs:
    """Return the table of settings, in the words of the family: GPT-2 has some of its own."""
    keys = {theirs for _, theirs in own.entries}
    return (*own.entries, *(pair for pair in (*SETTINGS, *_MORE) if pair[1] not in keys))


def _named(own: Mapping[str, Any], table: Pairs) -> dict[str, Any]:
    return {ours: _plain(own[theirs]) for ours, theirs in table if theirs in own}


def _plain(value: Any) -> Any:
    """Return GGUF's sized numbers as Python's; a float32 as the shortest decimal that is it."""
    if isinstance(value, Float32):
        return float(str(value))
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def _query_scalar(own: GgufArchitecture, config: Mapping[str, Any]) -> Any:
    if config.get("num_hidden_layers") == own.scaled_by_heads:
        size, heads = (config.get(key) for key in ("hidden_size", "num_attention_heads"))
        return size // max(1, heads) if isinstance(size, int) and isinstance(heads, int) else None
    return config.get("head_dim", 256)


def _rope(
    tensor_map: TensorMap, own: Mapping[str, Any], family: ModelFamily, config: Mapping[str, Any]
) -> dict[str, Any]:
    rope = {key: value for key, value in _named(own, _SCALING).items() if value != "none"}
    turned, size = own.get("rope.dimension_count"), config.get("head_dim")
    if isinstance(turned, int) and isinstance(size, int) and 0 < turned < size:
        if not style_of(family).turns_part:
            fact = f"rope.dimension_count is {turned}, of heads of {size}"
            raise UnsupportedError(fact, subject=family.model_type, expected=f"{size}")
        rope["partial_rotary_factor"] = turned / size
    factors = {name: tensor_map[f"rope_factors_{name}.weight"] for name in _FACTORS
               if f"rope_factors_{name}.weight" in tensor_map}  # fmt: skip
    if factors:
        rope |= {"rope_type": "longrope", **{f"{name}_factor": t.read().tolist() for name, t in factors.items()}}
    if DIVISORS in tensor_map:
        divisors = tensor_map[DIVISORS].read().tolist()
        rope |= llama3_of(divisors, config.get("rope_theta")) or {"rope_type": "divided", "divisors": divisors}
    return rope

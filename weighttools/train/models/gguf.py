"""What GGUF's metadata says of a model, in the words of config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weighttools.core.tensormap import TensorMap
from weighttools.errors import UnsupportedError
from weighttools.families.gguf.names import FAMILIES
from weighttools.families.gguf.rope import DIVISORS
from weighttools.families.gguf.settings import CAPS, SETTINGS, WIDE, WINDOW
from weighttools.formats.gguf.numbers import Float32
from weighttools.train.models.classes import class_of
from weighttools.train.models.rotary import PARTIAL, llama3_of
from weighttools.transforms.gguf_names import ARCHITECTURE, to_hugging_face

MODEL_TYPES = {name: name for name in FAMILIES} | {"gemma3": "gemma3_text"}
"""GGUF's ``general.architecture`` to Hugging Face's ``model_type``."""

_MORE = (*CAPS, WINDOW)
_SCALING = (
    ("rope_type", "rope.scaling.type"),
    ("factor", "rope.scaling.factor"),
    ("original_max_position_embeddings", "rope.scaling.original_context_length"),
    ("attention_factor", "rope.scaling.attn_factor"),
)
_TOKENS = (("bos_token_id", "bos_token_id"), ("eos_token_id", "eos_token_id"), ("pad_token_id", "padding_token_id"))


def is_gguf(tensor_map: TensorMap) -> bool:
    """Return whether a map has GGUF's names."""
    return ARCHITECTURE in tensor_map.metadata and "token_embd.weight" in tensor_map


_BIASES = {"attention_bias": ".self_attn.q_proj.bias", "mlp_bias": ".mlp.gate_proj.bias"}
"""Settings of config.json that GGUF leaves to the tensors."""


def from_gguf(tensor_map: TensorMap) -> tuple[TensorMap, dict[str, Any]]:
    """Return a GGUF map with Hugging Face's names and layout, and the config.json that its metadata stands for.

    Raises
    ------
    UnsupportedError
        The architecture has no table.
    SpecError
        A tensor has no known name.
    """
    name = str(tensor_map.metadata.get(ARCHITECTURE))
    if name not in MODEL_TYPES:
        raise UnsupportedError(f"no table for GGUF's {name!r}", expected=", ".join(MODEL_TYPES))
    own = {
        key.removeprefix(f"{name}."): value for key, value in tensor_map.metadata.items() if key.startswith(f"{name}.")
    }
    kind = MODEL_TYPES[name]
    config: dict[str, Any] = {
        "architectures": [class_of(kind, "encoder" if name == "bert" else "decoder")],
        "model_type": kind,
    }
    config |= _named(own, (*_words(name), *_MORE)) | _ids(tensor_map.metadata)
    config.setdefault("vocab_size", tensor_map["token_embd.weight"].shape[0])  # a row each, where nothing says it
    if name in ("gemma2", "gemma3"):
        config["query_pre_attn_scalar"] = _query_scalar(name, config)
    rope = _rope(tensor_map, own, config)
    named = to_hugging_face(tensor_map)
    if name != "bert":  # Said of both, for what transformers takes unsaid differs from family to family.
        config["tie_word_embeddings"] = "lm_head.weight" in named.aliases
        config |= {key: True for key, end in _BIASES.items() if any(n.endswith(end) for n in named)}
    if name == "phi3":  # its class has numbers of its own for what is not said
        config = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), None) | config
        original = rope.get("original_max_position_embeddings")
        config |= {"original_max_position_embeddings": original} if original else {}
    return named, config | ({"rope_scaling": rope} if rope else {})


def _named(own: Mapping[str, Any], table: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return {ours: _plain(own[theirs]) for ours, theirs in table if theirs in own}


def _words(name: str) -> tuple[tuple[str, str], ...]:
    """Return the table of settings, in the words of the family: GPT-2 has some of its own."""
    own = {theirs for ours, theirs in SETTINGS if ours.startswith("n_")}
    if name == "gpt2":
        return tuple(pair for pair in SETTINGS if pair[0].startswith("n_") or pair[1] not in own)
    return tuple(pair for pair in SETTINGS if not pair[0].startswith("n_"))


def _plain(value: Any) -> Any:
    """Return GGUF's sized numbers as Python's; a float32 as the shortest decimal that is it."""
    if isinstance(value, Float32):
        return float(str(value))
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def _ids(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return _named(metadata, tuple((ours, f"tokenizer.ggml.{theirs}") for ours, theirs in _TOKENS))


def _query_scalar(name: str, config: Mapping[str, Any]) -> Any:
    if (name, config.get("num_hidden_layers")) in WIDE:
        size, heads = (config.get(key) for key in ("hidden_size", "num_attention_heads"))
        return size // max(1, heads) if isinstance(size, int) and isinstance(heads, int) else None
    return config.get("head_dim", 256)


_FACTORS = ("long", "short")
"""What GGUF calls the tensors that Phi-3's frequencies are divided by, in long texts and in short ones."""


def _rope(tensor_map: TensorMap, own: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    rope = {key: value for key, value in _named(own, _SCALING).items() if value != "none"}
    turned, size = own.get("rope.dimension_count"), config.get("head_dim")
    if isinstance(turned, int) and isinstance(size, int) and 0 < turned < size:
        if config["model_type"] not in PARTIAL:
            fact = f"rope.dimension_count is {turned}, of heads of {size}"
            raise UnsupportedError(fact, subject=config["model_type"], expected=f"{size}")
        rope["partial_rotary_factor"] = turned / size
    factors = {name: tensor_map[f"rope_factors_{name}.weight"] for name in _FACTORS
               if f"rope_factors_{name}.weight" in tensor_map}  # fmt: skip
    if factors:
        rope |= {"rope_type": "longrope", **{f"{name}_factor": t.read().tolist() for name, t in factors.items()}}
    if DIVISORS in tensor_map:
        divisors = tensor_map[DIVISORS].read().tolist()
        rope |= llama3_of(divisors, config.get("rope_theta")) or {"rope_type": "divided", "divisors": divisors}
    return rope

"""What config.json says, as GGUF's metadata has it: a table of keys, and a row for each architecture.

Source: llama.cpp, ``convert_hf_to_gguf.py`` for the keys and their types; ``src/llama-model.cpp`` for what is read,
what is taken where it is not said, and what no key can change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from weighttools.errors import SpecError, UnsupportedError, brief
from weighttools.families.gguf.rope import float32, scaling

SETTINGS: tuple[tuple[str, str], ...] = (
    ("num_hidden_layers", "block_count"),
    ("n_layer", "block_count"),
    ("max_position_embeddings", "context_length"),
    ("n_positions", "context_length"),
    ("hidden_size", "embedding_length"),
    ("n_embd", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("n_inner", "feed_forward_length"),
    ("num_attention_heads", "attention.head_count"),
    ("n_head", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("head_dim", "attention.value_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("layer_norm_eps", "attention.layer_norm_epsilon"),
    ("layer_norm_epsilon", "attention.layer_norm_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("vocab_size", "vocab_size"),
)
"""Entries of config.json, and the keys, after the architecture's name, that GGUF has for them."""
WINDOW = ("sliding_window", "attention.sliding_window")
CAPS = (
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
)
_RMS, _NORM = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
_FLOATS = {"rope.freq_base", _RMS, _NORM, *(theirs for _, theirs in CAPS)}
_ABOVE_0 = _FLOATS - {_RMS, _NORM}
WIDE = {("gemma2", 46), ("gemma3", 62)}
"""The 27B models, by architecture and layers: their attention is scaled by hidden size / heads, not by a head's."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ArchitectureSettings:
    """What one architecture has beyond `SETTINGS`.

    Parameters
    ----------
    epsilon
        Its norms' key; llama.cpp reads no model without.
    more
        Further entries of config.json and their keys.
    defaults
        What transformers takes where config.json does not say it.
    fixed
        Entries that GGUF has no key for, and the values that llama.cpp computes with.
    always
        Metadata that go with every model.
    """

    epsilon: str = _RMS
    more: tuple[tuple[str, str], ...] = ()
    defaults: Json = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    always: Json = field(default_factory=dict)


_SILU = {"hidden_act": ("silu", "swish")}
_WHOLE = {**_SILU, "use_sliding_window": (False,)}
_GEMMA = {"hidden_activation": ("gelu_pytorch_tanh", None)}
_DECODER = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0}

ROWS: Mapping[str, ArchitectureSettings] = {
    "llama": ArchitectureSettings(defaults=_DECODER, fixed=_SILU),
    "qwen2": ArchitectureSettings(defaults=_DECODER, fixed=_WHOLE),
    "qwen3": ArchitectureSettings(defaults={**_DECODER, "head_dim": 128}, fixed=_WHOLE),
    "phi3": ArchitectureSettings(more=(WINDOW,), defaults={**_DECODER, "rms_norm_eps": 1e-5}, fixed=_SILU),
    "gemma": ArchitectureSettings(defaults={**_DECODER, "head_dim": 256}, fixed=_GEMMA),
    "gemma2": ArchitectureSettings(
        more=(WINDOW, *CAPS),
        defaults={**_DECODER, "head_dim": 256, "sliding_window": 4096, "query_pre_attn_scalar": 256,
                  "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        fixed=_GEMMA,
    ),
    "gemma3": ArchitectureSettings(
        more=(WINDOW, CAPS[1]),
        defaults={**_DECODER, "rope_theta": 1e6, "head_dim": 256, "sliding_window": 4096,
                  "query_pre_attn_scalar": 256},
        fixed={**_GEMMA, "attn_logit_softcapping": (None,), "sliding_window_pattern": (6, None),
               "rope_local_base_freq": (10000, None), "use_bidirectional_attention": (False, None)},
    ),
    "gpt2": ArchitectureSettings(
        _NORM,
        defaults={"layer_norm_epsilon": 1e-5},
        fixed={"activation_function": ("gelu_new", "gelu_pytorch_tanh"), "scale_attn_weights": (True,),
               "scale_attn_by_inverse_layer_idx": (False,)},
    ),
    "bert": ArchitectureSettings(
        _NORM,
        defaults={"layer_norm_eps": 1e-12},
        fixed={"hidden_act": ("gelu",), "position_embedding_type": ("absolute", None)},
        always={"attention.causal": False},
    ),
}  # fmt: skip
"""By GGUF's ``general.architecture``."""

_NEEDED = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count")


def flattened(config: Json) -> dict[str, Any]:
    """Return config.json with its text part's entries, and those of its rotary positions, on the first level."""
    text = config.get("text_config")
    flat = {**config, **(text if isinstance(text, dict) else {})}
    rope = flat.get("rope_parameters")
    whole = rope.get("full_attention", rope) if isinstance(rope, dict) else {}
    return {**(whole if isinstance(whole, dict) else {}), **flat}


def plain_settings(config: Json) -> dict[str, Any]:
    """Return the numbers of config.json by GGUF's keys, as they stand there."""
    return dict(_numbers(flattened(config), SETTINGS))


def settings_of(config: Json, architecture: str) -> dict[str, Any]:
    """Return config.json's entries by GGUF's keys, without the architecture's name before them, typed.

    Entries that are no numbers are left out.

    Raises
    ------
    SpecError
        A number is none that GGUF can hold, or that any model could have.
    UnsupportedError
        llama.cpp computes otherwise than config.json says, and no metadata can tell it.
    """
    row, flat = ROWS.get(architecture, ArchitectureSettings()), flattened(config)
    found = dict(_numbers(flat, (*SETTINGS, *row.more)))
    if "block_count" not in found:  # no description of a model: nothing is taken for granted
        return found
    flat = {**row.defaults, **flat}
    found = dict(_numbers(flat, (*SETTINGS, *row.more)))
    if architecture == "gpt2" and "embedding_length" in found:
        found.setdefault("feed_forward_length", 4 * found["embedding_length"])
    _refuse_other(flat, architecture, row)
    if "rope.freq_base" in found and row.epsilon == _RMS:
        found |= scaling(flat, architecture, found)
    return found | dict(row.always)


def lacking(settings: Json, architecture: str) -> list[str]:
    """Return the keys that llama.cpp reads no model without, and that are not there."""
    row = ROWS.get(architecture, ArchitectureSettings())
    return [key for key in (*_NEEDED, row.epsilon) if key not in settings]


def unsaid(config: Json, architecture: str) -> list[str]:
    """Return what GGUF has no key for, and llama.cpp computes without, a line each: the window of Mistral's attention.

    Its architecture is Llama's there, which has none. Other families' windows have a key, or are refused.
    """
    flat = flattened(config)
    window = flat.get("sliding_window", 4096 if flat.get("model_type") == "mistral" else None)  # as transformers does
    longest = flat.get("max_position_embeddings")
    if architecture != "llama" or isinstance(window, bool) or not isinstance(window, int):
        return []
    if window < 1 or (isinstance(longest, int) and window >= longest):
        return []
    told = f"sliding_window {window:,} has no place in GGUF for {architecture}"
    return [f"{told}: llama.cpp looks at all tokens, so texts of more than {window:,} tokens come out differently"]


def _numbers(flat: Json, table: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, Any]]:
    for ours, theirs in table:
        value = flat.get(ours)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        yield theirs, float32(ours, value, above_0=theirs in _ABOVE_0) if theirs in _FLOATS else _whole(ours, value)


def _whole(key: str, value: float) -> int:
    if not 0 <= value < 1 << 32 or value != int(value):
        raise SpecError(f"{key} is {brief(repr(value), 60)}", subject="config.json",
                        expected="a whole number of 32 bits, from 0")  # fmt: skip
    return int(value)


def _refuse_other(flat: Json, architecture: str, row: ArchitectureSettings) -> None:
    for key, values in row.fixed.items():
        if key in flat and flat[key] not in values:
            raise _unsupported(f"{key} is {brief(repr(flat[key]), 60)}", architecture, " or ".join(map(repr, values)))
    if architecture not in ("gemma2", "gemma3"):
        return
    size, heads, scalar = (flat.get(key) for key in ("hidden_size", "num_attention_heads", "query_pre_attn_scalar"))
    by_heads = size // heads if isinstance(size, int) and isinstance(heads, int) and heads > 0 else None
    wanted = by_heads if (architecture, flat.get("num_hidden_layers")) in WIDE else flat["head_dim"]
    if scalar != wanted:
        raise _unsupported(f"query_pre_attn_scalar is {brief(repr(scalar), 60)}", architecture, repr(wanted))
    types = flat.get("layer_types")
    step = 2 if architecture == "gemma2" else 6
    if isinstance(types, list) and any((t == "full_attention") != ((i + 1) % step == 0) for i, t in enumerate(types)):
        raise _unsupported("layer_types are of another order", architecture, f"full attention in every {step}th layer")


def _unsupported(fact: str, architecture: str, expected: str) -> UnsupportedError:
    return UnsupportedError(f"{fact}, which llama.cpp does not compute for {architecture}", subject="config.json",
                            expected=expected)  # fmt: skip

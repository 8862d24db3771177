"""What config.json says, as GGUF's metadata has it: a table of keys, and what each family's row has beyond it.

Source: llama.cpp, ``convert_hf_to_gguf.py`` for the keys and their types; ``src/llama-model.cpp`` for what is read,
what is taken where it is not said, and what no key can change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from weighttools.errors import SpecError, UnsupportedError, brief
from weighttools.families.gguf.rope import float32, scaling
from weighttools.families.model_family import DecoderStyle, GgufArchitecture, ModelFamily
from weighttools.families.models import FAMILIES, gguf_families

SETTINGS: tuple[tuple[str, str], ...] = (
    ("num_hidden_layers", "block_count"),
    ("max_position_embeddings", "context_length"),
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("head_dim", "attention.value_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("layer_norm_eps", "attention.layer_norm_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("vocab_size", "vocab_size"),
)
"""Entries of config.json, and the keys, after the architecture's name, that GGUF has for them: what most families have.

A family's own come behind (`GgufArchitecture.entries`).
"""
CAPS = (
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
)
_RMS = "attention.layer_norm_rms_epsilon"
_ABOVE_0 = {"rope.freq_base", *(theirs for _, theirs in CAPS)}
_FLOATS = _ABOVE_0 | {_RMS, "attention.layer_norm_epsilon"}

Json = Mapping[str, Any]

_NEEDED = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count")


def flattened(config: Json) -> dict[str, Any]:
    """Return config.json with its text part's entries, and those of its rotary positions, on the first level."""
    text = config.get("text_config")
    flat = {**config, **(text if isinstance(text, dict) else {})}
    rope = flat.get("rope_parameters")
    whole = rope.get("full_attention", rope) if isinstance(rope, dict) else {}
    return {**(whole if isinstance(whole, dict) else {}), **flat}


def plain_settings(config: Json, architecture: str) -> dict[str, Any]:
    """Return the numbers of config.json by GGUF's keys, as they stand there."""
    return dict(_numbers(flattened(config), (*SETTINGS, *_gguf(gguf_families()[architecture]).entries)))


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
    family, flat = _family(config, architecture), flattened(config)
    own = _gguf(family)
    found = dict(_numbers(flat, (*SETTINGS, *own.entries)))
    if "block_count" not in found:  # no description of a model: nothing is taken for granted
        return found
    flat = {**family.defaults, **flat}
    found = dict(_numbers(flat, (*SETTINGS, *own.entries)))
    if own.widening and "embedding_length" in found:
        found.setdefault("feed_forward_length", own.widening * found["embedding_length"])
    _refuse_other(flat, family)
    if "rope.freq_base" in found and own.epsilon == _RMS:
        found |= scaling(flat, style_of(family).turns_part, found)
    return found | dict(own.always)


def _family(config: Json, architecture: str) -> ModelFamily:
    """Return the family that config.json names, if it is of an architecture of GGUF, else what that is read as."""
    kind = config.get("model_type")
    named = FAMILIES.get(kind) if isinstance(kind, str) else None
    is_of = named is not None and named.gguf is not None and named.gguf.architecture == architecture
    return named if named is not None and is_of else gguf_families()[architecture]


def _gguf(family: ModelFamily) -> GgufArchitecture:
    assert family.gguf is not None
    return family.gguf


def style_of(family: ModelFamily) -> DecoderStyle:
    """Return what sets a family of Llama's kin apart; nothing does where it is none of them."""
    how = family.function.how if family.function is not None else None
    return how if isinstance(how, DecoderStyle) else DecoderStyle()


def lacking(settings: Json, architecture: str) -> list[str]:
    """Return the keys that llama.cpp reads no model without, and that are not there."""
    return [key for key in (*_NEEDED, _gguf(gguf_families()[architecture]).epsilon) if key not in settings]


def unsaid(config: Json, architecture: str) -> list[str]:
    """Return what GGUF has no key for, and llama.cpp computes without, a line each: the window of Mistral's attention.

    Its architecture is Llama's there, which has none. Other families' windows have a key, or are refused.
    """
    flat = flattened(config)
    window = flat.get("sliding_window", _family(flat, architecture).defaults.get("sliding_window"))
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


def _refuse_other(flat: Json, family: ModelFamily) -> None:
    own, style = _gguf(family), style_of(family)
    for key, values in own.fixed.items():
        if key in flat and flat[key] not in values:
            raise _unsupported(f"{key} is {brief(repr(flat[key]), 60)}", own, " or ".join(map(repr, values)))
    if not style.query_scale:
        return
    size, heads, scalar = (flat.get(key) for key in ("hidden_size", "num_attention_heads", "query_pre_attn_scalar"))
    by_heads = size // heads if isinstance(size, int) and isinstance(heads, int) and heads > 0 else None
    wanted = by_heads if flat.get("num_hidden_layers") == own.scaled_by_heads else flat["head_dim"]
    if scalar != wanted:
        raise _unsupported(f"query_pre_attn_scalar is {brief(repr(scalar), 60)}", own, repr(wanted))
    types, step = flat.get("layer_types"), style.windows
    if not isinstance(types, list) or not isinstance(step, int):
        return
    if any((kind == "full_attention") != ((i + 1) % step == 0) for i, kind in enumerate(types)):
        raise _unsupported("layer_types are of another order", own, f"full attention in every {step}th layer")


def _unsupported(fact: str, own: GgufArchitecture, expected: str) -> UnsupportedError:
    return UnsupportedError(f"{fact}, which llama.cpp does not compute for {own.architecture}", subject="config.json",
                            expected=expected)  # fmt: skip

"""How the layers of Llama's kin compute, by their family's style and config.json: windows, rotary positions, scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weighttools.errors import UnsupportedError
from weighttools.families.model_family import DecoderStyle
from weighttools.train.models.llama import Layers
from weighttools.train.models.rotary import Rotary, rotary
from weighttools.train.models.settings import ModelSettings

MOST_LAYERS = 4096


def decoder_options(style: DecoderStyle, s: ModelSettings) -> dict[str, Any]:
    """Return the options of `weighttools.train.models.llama.decoder`.

    Raises
    ------
    SpecError
        A number is missing, or none that a model could have.
    UnsupportedError
        config.json asks for what no layer here does.
    """
    heads, size = s.count("num_attention_heads"), s.count("hidden_size")
    layers = s.count("num_hidden_layers", most=MOST_LAYERS)
    head_size = s.count("head_dim", default=max(1, size // heads))
    slides = [kind == "sliding_attention" for kind in _layer_types(style, s, layers)]
    window = s.count("sliding_window") if any(slides) else None
    how = Layers(
        heads,
        s.count("num_key_value_heads", default=heads),
        _rotaries(style, s, head_size, slides),
        tuple(window if slide else None for slide in slides),
        eps=s.number("rms_norm_eps"),
        activation=s.activation(*_ACTIVATIONS),
        norm_shift=1 if style.is_scaled else 0,
        post_norms=style.post_norms,
        head_norms=style.head_norms,
        scale=s.number("query_pre_attn_scalar") ** -0.5 if style.query_scale else None,
        cap=s.maybe("attn_logit_softcapping"),
    )
    return {"layers": layers, "how": how, "embed_scale": size**0.5 if style.is_scaled else 1}


_ACTIVATIONS = ("hidden_activation", "hidden_act")


def _layer_types(style: DecoderStyle, s: ModelSettings, layers: int) -> list[str]:
    """Return ``"sliding_attention"`` or ``"full_attention"`` for every layer."""
    kinds, said = ("full_attention", "sliding_attention"), s.get("layer_types")
    none = [kinds[0]] * layers
    if style.windows == "none" or s.stated("sliding_window") is None:
        return none
    if style.windows == "said" and not s.get("use_sliding_window"):
        return none  # Qwen's files name a window that is not used
    if isinstance(said, list) and len(said) == layers and all(kind in kinds for kind in said):
        return said
    if said is not None:
        raise UnsupportedError("layer_types are not all known", subject=s.kind, expected=f"{layers} of {kinds}")
    if style.windows == "said":
        full = min(layers, s.count("max_window_layers", least=0))
        return none[:full] + [kinds[1]] * (layers - full)
    every = s.count("sliding_window_pattern", default=style.windows) if isinstance(style.windows, int) else layers + 1
    return [kinds[bool((i + 1) % every)] for i in range(layers)]


def _rotaries(style: DecoderStyle, s: ModelSettings, head_size: int, slides: Sequence[bool]) -> tuple[Rotary, ...]:
    said = dict(s.part("rope_parameters"))
    base = {key: s.get(key) for key in ("rope_theta", "partial_rotary_factor")}
    base["original_max_position_embeddings"] = s.get("original_max_position_embeddings", "max_position_embeddings")
    whole = {**base, **s.part("rope_scaling"), **{k: v for k, v in said.items() if not isinstance(v, Mapping)}}
    base_freq = s.get("rope_local_base_freq") or s.defaults.get("rope_local_base_freq")
    local = {"rope_theta": base_freq} if "rope_local_base_freq" in s.defaults else whole
    each = {"full_attention": whole, "sliding_attention": local}
    asked = {kind: _turned({**each[kind], **_mapping(said.get(kind))}, style, s) for kind in each}
    found = {kind: rotary(asked[kind], head_size, s.defaults["rope_theta"]) for kind in each}
    return tuple(found["sliding_attention" if slide else "full_attention"] for slide in slides)


def _turned(parameters: Mapping[str, Any], style: DecoderStyle, s: ModelSettings) -> Mapping[str, Any]:
    """Return what `rotary` is asked: for a part of each head in families that have it so; else plain kinds ignore it.

    Source: transformers, ``compute_default_rope_parameters`` of each family; with a scaling its Llama fails.
    """
    share = parameters.get("partial_rotary_factor")
    if style.turns_part or share in (None, 1):
        return parameters
    if (parameters.get("rope_type") or parameters.get("type") or "default") != "default":
        fact = f"partial_rotary_factor is {share!r} with scaled rotary positions"
        raise UnsupportedError(fact, subject=s.kind, expected="1")
    return {key: value for key, value in parameters.items() if key != "partial_rotary_factor"}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

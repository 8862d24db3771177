"""The families: how each reads its options from config.json, and which tensors it uses. Mostly tables."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weighttools.errors import UnsupportedError
from weighttools.train.models.bert import ALBERT, BERT, DISTILBERT, ELECTRA, LayerNames, bert
from weighttools.train.models.gpt2 import gpt2_hidden
from weighttools.train.models.llama import Layers, decoder
from weighttools.train.models.rotary import PARTIAL, Rotary, rotary
from weighttools.train.models.settings import ModelSettings

Options = dict[str, Any]
Tensors = tuple[list[str], list[str]]
"""Names that are needed, and names that are used where they are."""

MOST_LAYERS = 4096
_BOTH = (".weight", ".bias")


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """A family.

    Parameters
    ----------
    kind
        ``"encoder"`` or ``"decoder"``.
    body
        ``body(params, ids, mask=None, **options)``: hidden states.
    options
        Reads them from config.json.
    tensors
        The names that `body` uses, without prefix, by its options.
    anchor
        A tensor that every file of the family has; what precedes it in the file's name is the prefix.
    size
        config.json's key for the length of a hidden state.
    only
        Values that config.json must have where it has the key: what `body` does not do otherwise.
    final_cap
        Gemma 2: what the logits are capped to unless config.json says otherwise.
    """

    kind: str
    body: Callable[..., Any]
    options: Callable[[ModelSettings], Options]
    tensors: Callable[[Options, ModelSettings], Tensors]
    anchor: str
    size: str = "hidden_size"
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    final_cap: float | None = None

    def refuse(self, settings: ModelSettings) -> None:
        """Raise UnsupportedError for what config.json asks and `body` does not do."""
        for key, allowed in self.only.items():
            value = settings.get(key)
            if value is not None and value not in allowed:
                raise UnsupportedError(f"{key} is {value!r}", subject=settings.kind, expected=f"{allowed[0]!r}")


def _ends(names: Iterable[str], ends: Sequence[str] = _BOTH) -> list[str]:
    return [name + end for name, end in itertools.product(names, ends)]


# Encoders.


def _bert(names: LayerNames, **own: Any) -> Callable[[ModelSettings], Options]:
    def options(s: ModelSettings) -> Options:
        return {
            "layers": s.count("num_hidden_layers", most=MOST_LAYERS),
            "heads": s.count("num_attention_heads"),
            "eps": s.number("layer_norm_eps", default=1e-12),
            "activation": s.activation("hidden_act", default=own.get("activation", "gelu")),
            "names": names,
        }

    return options


def _roberta(s: ModelSettings) -> Options:
    return {**_bert(BERT)(s), "padding": s.count("pad_token_id", default=1, least=0)}


def _distilbert(s: ModelSettings) -> Options:
    return {
        "layers": s.count("n_layers", most=MOST_LAYERS),
        "heads": s.count("n_heads"),
        "activation": s.activation("activation", default="gelu"),
        "names": DISTILBERT,
    }


def _albert(s: ModelSettings) -> Options:
    options = _bert(ALBERT, activation="gelu_new")(s)
    groups = s.count("num_hidden_groups", default=1, most=options["layers"])
    return {**options, "groups": groups, "inner": s.count("inner_group_num", default=1, most=MOST_LAYERS)}


def _bert_tensors(o: Options, s: ModelSettings) -> Tensors:
    names: LayerNames = o["names"]
    n = o.get("groups") or o["layers"]
    places = [names.layer.format(i, j) for i in range(n) for j in range(o.get("inner", 1))]
    parts = (*names.qkv, names.attended, names.attention_norm, names.up, names.down, names.norm)
    required = ["embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"]
    required += _ends(["embeddings.LayerNorm"]) + _ends(f"{place}.{part}" for place in places for part in parts)
    return required, ["embeddings.token_type_embeddings.weight", *_ends(n for n in (names.widened, names.pooler) if n)]


_ABSOLUTE = {"position_embedding_type": ("absolute",), "is_decoder": (False,)}
_WORDS = "embeddings.word_embeddings.weight"
_BERT = ModelFamily("encoder", bert, _bert(BERT), _bert_tensors, _WORDS, only=_ABSOLUTE)
_ROBERTA = ModelFamily("encoder", bert, _roberta, _bert_tensors, _WORDS, only=_ABSOLUTE)


# Decoders.


def _gpt2(s: ModelSettings) -> Options:
    return {
        "layers": s.count("n_layer", "num_hidden_layers", most=MOST_LAYERS),
        "heads": s.count("n_head", "num_attention_heads"),
        "eps": s.number("layer_norm_epsilon", default=1e-5),
        "activation": s.activation("activation_function", default="gelu_new"),
    }


def _gpt2_tensors(o: Options, s: ModelSettings) -> Tensors:
    parts = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    layers = [f"h.{i}.{part}" for i in range(o["layers"]) for part in parts]
    return ["wte.weight", "wpe.weight", *_ends([*layers, "ln_f"])], []


@dataclass(frozen=True, slots=True)
class Style:
    """What sets a family of Llama's kin apart, beside its config.json.

    Parameters
    ----------
    windows
        Which layers see a window only: ``"none"``, ``"all"``, ``"said"`` (config.json's ``use_sliding_window``), or
        all but one in every so many.
    activation, theta, head_size
        What holds where config.json does not say; a `theta` of its own is that of layers without a window.
    gemma
        Embeddings are scaled by sqrt(size), and norms multiply by 1 + weight.
    post_norms, head_norms, cap
        As `Layers` has them.
    fused
        Whether q, k, v are one tensor, and gate and up another.
    query_scale
        Whether config.json says what attention is scaled by (``query_pre_attn_scalar``).
    """

    windows: str | int = "none"
    activation: str = "silu"
    gemma: bool = False
    post_norms: bool = False
    head_norms: bool = False
    fused: bool = False
    query_scale: bool = False
    cap: float | None = None
    theta: float = 1e4
    head_size: int | None = None


def _kin(style: Style, s: ModelSettings) -> Options:
    heads, size = s.count("num_attention_heads"), s.count("hidden_size")
    layers = s.count("num_hidden_layers", most=MOST_LAYERS)
    head_size = s.count("head_dim", default=style.head_size or max(1, size // heads))
    slides = [kind == "sliding_attention" for kind in _layer_types(style, s, layers)]
    window = s.count("sliding_window", default=4096) if any(slides) else None
    how = Layers(
        heads,
        s.count("num_key_value_heads", default=heads),
        _rotaries(style, s, head_size, slides),
        tuple(window if slide else None for slide in slides),
        eps=s.number("rms_norm_eps", default=1e-6),
        activation=s.activation("hidden_activation", "hidden_act", default=style.activation),
        norm_shift=1 if style.gemma else 0,
        post_norms=style.post_norms,
        head_norms=style.head_norms,
        scale=s.number("query_pre_attn_scalar", default=256) ** -0.5 if style.query_scale else None,
        cap=s.maybe("attn_logit_softcapping", style.cap),
    )
    return {"layers": layers, "how": how, "embed_scale": size**0.5 if style.gemma else 1}


def _layer_types(style: Style, s: ModelSettings, layers: int) -> list[str]:
    """Return ``"sliding_attention"`` or ``"full_attention"`` for every layer."""
    kinds, said = ("full_attention", "sliding_attention"), s.get("layer_types")
    none = [kinds[0]] * layers
    if style.windows == "none" or ("sliding_window" in s.values and s.get("sliding_window") is None):
        return none
    if style.windows == "said" and not s.get("use_sliding_window"):
        return none  # Qwen's files name a window that is not used
    if isinstance(said, list) and len(said) == layers and all(kind in kinds for kind in said):
        return said
    if said is not None:
        raise UnsupportedError("layer_types are not all known", subject=s.kind, expected=f"{layers} of {kinds}")
    if style.windows == "said":
        full = min(layers, s.count("max_window_layers", default=28, least=0))
        return none[:full] + [kinds[1]] * (layers - full)
    every = s.count("sliding_window_pattern", default=style.windows) if isinstance(style.windows, int) else layers + 1
    return [kinds[bool((i + 1) % every)] for i in range(layers)]


def _rotaries(style: Style, s: ModelSettings, head_size: int, slides: Sequence[bool]) -> tuple[Rotary, ...]:
    said = dict(s.part("rope_parameters"))
    base = {key: s.get(key) for key in ("rope_theta", "partial_rotary_factor")}
    base["original_max_position_embeddings"] = s.get("original_max_position_embeddings", "max_position_embeddings")
    whole = {**base, **s.part("rope_scaling"), **{k: v for k, v in said.items() if not isinstance(v, Mapping)}}
    local = {"rope_theta": s.get("rope_local_base_freq") or 1e4} if style.theta != 1e4 else whole
    each = {"full_attention": whole, "sliding_attention": local}
    asked = {kind: _turned({**each[kind], **_mapping(said.get(kind))}, s) for kind in each}
    found = {kind: rotary(asked[kind], head_size, style.theta) for kind in each}
    return tuple(found["sliding_attention" if slide else "full_attention"] for slide in slides)


def _turned(parameters: Mapping[str, Any], s: ModelSettings) -> Mapping[str, Any]:
    """Return what `rotary` is asked: a part of each head turns in `PARTIAL` only, and plain kinds elsewhere ignore it.

    Source: transformers, ``compute_default_rope_parameters`` of each family; with a scaling its Llama fails.
    """
    share = parameters.get("partial_rotary_factor")
    if s.kind in PARTIAL or share in (None, 1):
        return parameters
    if (parameters.get("rope_type") or parameters.get("type") or "default") != "default":
        fact = f"partial_rotary_factor is {share!r} with scaled rotary positions"
        raise UnsupportedError(fact, subject=s.kind, expected=f"1, but for {', '.join(PARTIAL)}")
    return {key: value for key, value in parameters.items() if key != "partial_rotary_factor"}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _kin_tensors(style: Style, o: Options, s: ModelSettings) -> Tensors:
    sums = ("self_attn.qkv_proj", "mlp.gate_up_proj") if style.fused else _SEPARATE
    parts = [*sums, "self_attn.o_proj", "mlp.down_proj"]
    norms = ["input_layernorm", "post_attention_layernorm"]
    norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"] * style.post_norms
    norms += ["self_attn.q_norm", "self_attn.k_norm"] * style.head_norms
    places = [f"layers.{i}" for i in range(o["layers"])]
    required = [f"{place}.{part}.weight" for place in places for part in (*parts, *norms)]
    return ["embed_tokens.weight", "norm.weight", *required], [f"{at}.{part}.bias" for at in places for part in parts]


_SEPARATE = (*(f"self_attn.{n}_proj" for n in "qkv"), "mlp.gate_proj", "mlp.up_proj")


def _llama(
    style: Style, only: Mapping[str, tuple[Any, ...]] | None = None, final_cap: float | None = None
) -> ModelFamily:
    return ModelFamily(
        "decoder",
        decoder,
        functools.partial(_kin, style),
        functools.partial(_kin_tensors, style),
        "embed_tokens.weight",
        only=only or {},
        final_cap=final_cap,
    )


_CAUSAL = {"use_bidirectional_attention": (False,)}
_GEMMA3 = _llama(
    Style(6, "gelu_pytorch_tanh", True, True, head_norms=True, query_scale=True, theta=1e6, head_size=256), _CAUSAL
)

FAMILIES: Mapping[str, ModelFamily] = {
    "albert": ModelFamily("encoder", bert, _albert, _bert_tensors, _WORDS, only=_ABSOLUTE),
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": ModelFamily("encoder", bert, _distilbert, _bert_tensors, _WORDS, "dim"),
    "electra": ModelFamily("encoder", bert, _bert(ELECTRA), _bert_tensors, _WORDS, only=_ABSOLUTE),
    "gemma": _llama(Style(activation="gelu_pytorch_tanh", gemma=True, head_size=256), _CAUSAL),
    "gemma2": _llama(
        Style(2, "gelu_pytorch_tanh", True, True, query_scale=True, cap=50.0, head_size=256), _CAUSAL, 30.0
    ),
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "gpt2": ModelFamily(
        "decoder",
        gpt2_hidden,
        _gpt2,
        _gpt2_tensors,
        "wte.weight",
        "n_embd",
        {"scale_attn_by_inverse_layer_idx": (False,), "scale_attn_weights": (True,)},
    ),
    "llama": _llama(Style()),
    "mistral": _llama(Style("all")),
    "phi3": _llama(Style("all", fused=True)),
    "qwen2": _llama(Style("said")),
    "qwen3": _llama(Style("said", head_norms=True, head_size=128)),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""By config.json's ``model_type``."""

"""From a checkpoint's config.json and names to the function that runs it: a table a family."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from weighttools.errors import SpecError, UnsupportedError
from weighttools.train import ops
from weighttools.train.models.bert import bert
from weighttools.train.models.gpt2 import gpt2
from weighttools.train.models.llama import llama

ACTIVATIONS: Mapping[str, Callable[..., Any]] = {
    "gelu": ops.gelu,
    "gelu_new": ops.gelu_tanh,
    "gelu_pytorch_tanh": ops.gelu_tanh,
    "relu": ops.relu,
    "silu": ops.silu,
    "swish": ops.silu,
    "tanh": ops.tanh,
}
"""config.json's names."""


@dataclass(frozen=True, slots=True)
class Model:
    """A family.

    Parameters
    ----------
    run
        ``run(params, ids, mask=None, **options)``.
    options
        Each option's key in config.json.
    anchor
        A tensor that every file of the family has; what precedes it in the file's name is the prefix.
    only
        Values that config.json must have where it has the key: what `run` does not do otherwise.
    """

    run: Callable[..., Any]
    options: Mapping[str, str]
    anchor: str
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


_LLAMA = Model(
    llama,
    {
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "key_heads": "num_key_value_heads",
        "theta": "rope_theta",
        "eps": "rms_norm_eps",
        "head_size": "head_dim",
    },
    "embed_tokens.weight",
    {"hidden_act": ("silu",), "rope_scaling": (None,), "use_sliding_window": (False,), "sliding_window": (None,)},
)

MODELS: Mapping[str, Model] = {
    "bert": Model(
        bert,
        {
            "layers": "num_hidden_layers",
            "heads": "num_attention_heads",
            "eps": "layer_norm_eps",
            "activation": "hidden_act",
        },
        "embeddings.word_embeddings.weight",
        {"position_embedding_type": ("absolute",)},
    ),
    "gpt2": Model(
        gpt2,
        {"layers": "n_layer", "heads": "n_head", "eps": "layer_norm_epsilon", "activation": "activation_function"},
        "wte.weight",
        {"scale_attn_by_inverse_layer_idx": (False,), "scale_attn_weights": (True,)},
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Model(_LLAMA.run, _LLAMA.options, _LLAMA.anchor, {**_LLAMA.only, "sliding_window": ()}),
}
"""By config.json's ``model_type``."""


def from_config(config: Mapping[str, Any], names: Iterable[str]) -> Callable[..., Any]:
    """Return ``run(params, ids, mask=None)`` for a checkpoint.

    Parameters
    ----------
    config
        config.json, read.
    names
        The tensors' names.

    Raises
    ------
    UnsupportedError
        The family is unknown, or config.json asks for what the function does not do.
    SpecError
        A number is missing, or the family's first tensor.
    """
    kind, known = str(config.get("model_type")), list(names)
    if kind not in MODELS:
        raise UnsupportedError(
            f"no function for model_type {kind!r}",
            expected=", ".join(MODELS),
            remedy=f"write one over the file's names: {', '.join(known[:3])}, …",
        )
    model = MODELS[kind]
    for key, allowed in model.only.items():
        if allowed and key in config and config[key] not in allowed:
            raise UnsupportedError(f"{key} is {config[key]!r}", subject=kind, expected=f"{allowed[0]!r}")
    rope = (config.get("rope_parameters") or {}).get("rope_type", "default")
    if rope != "default":
        raise UnsupportedError(f"rope_type is {rope!r}", subject=kind, expected="'default'")
    prefix = next((n.removesuffix(model.anchor) for n in known if n.endswith(model.anchor)), None)
    if prefix is None:
        raise SpecError(f"no tensor ends in {model.anchor}", subject=kind)
    return functools.partial(model.run, **_options(model, config, kind), prefix=prefix)


def _options(model: Model, config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    flat = {**config, **(config.get("rope_parameters") or {})}
    flat.setdefault("num_key_value_heads", flat.get("num_attention_heads"))
    found = {option: flat[key] for option, key in model.options.items() if flat.get(key) is not None}
    missing = [model.options[option] for option in ("layers", "heads") if option not in found]
    if missing:
        raise SpecError(f"config.json lacks {', '.join(missing)}", subject=kind)
    if "activation" in found:
        if found["activation"] not in ACTIVATIONS:
            raise UnsupportedError(f"activation {found['activation']!r}", subject=kind, expected=", ".join(ACTIVATIONS))
        found["activation"] = ACTIVATIONS[found["activation"]]
    return found

"""config.json against the shapes of the tensors, for the families of LLaMA, BERT and GPT-2.

Source: transformers, ``models/{llama,bert,gpt2}/modeling_*.py``. Expected lengths are expressions over the
configuration's entries; an entry that is missing leaves what depends on it unchecked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from weighttools.analyzers import configuration
from weighttools.analyzers.configuration import whole
from weighttools.core.findings import ERROR, WARNING, Finding
from weighttools.core.tensor import Spec
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError

Config = Mapping[str, Any]
Length = Callable[[Config], int | None]


class Architecture(NamedTuple):
    """What the shapes of a family of models are.

    Parameters
    ----------
    layer
        Matches a layer's number in a name.
    n_layers
        The entry that counts the layers.
    shapes
        The ends of names, and the entries or expressions that give the lengths of their axes.
    """

    layer: re.Pattern[str]
    n_layers: str
    shapes: Mapping[str, tuple[str | Length, ...]]


def _head(config: Config) -> int | None:
    hidden, heads = whole(config, "hidden_size"), whole(config, "num_attention_heads")
    return whole(config, "head_dim") or (hidden // heads if hidden and heads else None)


def _times(a: int | None, b: int | None) -> int | None:
    return a * b if a and b else None


def _queries(config: Config) -> int | None:
    return _times(whole(config, "num_attention_heads"), _head(config))


def _keys(config: Config) -> int | None:
    return _times(whole(config, "num_key_value_heads", "num_attention_heads"), _head(config))


def _three(config: Config) -> int | None:
    return _times(3, whole(config, "n_embd"))


def _inner(config: Config) -> int | None:
    return whole(config, "n_inner") or _times(4, whole(config, "n_embd"))


_LLAMA = Architecture(
    re.compile(r"(?:^|\.)layers\.(\d+)\."),
    "num_hidden_layers",
    {
        "embed_tokens.weight": ("vocab_size", "hidden_size"),
        "lm_head.weight": ("vocab_size", "hidden_size"),
        "self_attn.q_proj.weight": (_queries, "hidden_size"),
        "self_attn.k_proj.weight": (_keys, "hidden_size"),
        "self_attn.v_proj.weight": (_keys, "hidden_size"),
        "self_attn.o_proj.weight": ("hidden_size", _queries),
        "mlp.gate_proj.weight": ("intermediate_size", "hidden_size"),
        "mlp.up_proj.weight": ("intermediate_size", "hidden_size"),
        "mlp.down_proj.weight": ("hidden_size", "intermediate_size"),
        "input_layernorm.weight": ("hidden_size",),
    },
)
_BERT = Architecture(
    re.compile(r"encoder\.layer\.(\d+)\."),
    "num_hidden_layers",
    {
        "embeddings.word_embeddings.weight": ("vocab_size", "hidden_size"),
        "embeddings.position_embeddings.weight": ("max_position_embeddings", "hidden_size"),
        "embeddings.token_type_embeddings.weight": ("type_vocab_size", "hidden_size"),
        "attention.self.query.weight": ("hidden_size", "hidden_size"),
        "attention.self.key.weight": ("hidden_size", "hidden_size"),
        "attention.self.value.weight": ("hidden_size", "hidden_size"),
        "attention.output.dense.weight": ("hidden_size", "hidden_size"),
        "intermediate.dense.weight": ("intermediate_size", "hidden_size"),
    },
)
_GPT2 = Architecture(
    re.compile(r"(?:^|\.)h\.(\d+)\."),
    "n_layer",
    {
        "wte.weight": ("vocab_size", "n_embd"),
        "wpe.weight": ("n_positions", "n_embd"),
        "attn.c_attn.weight": ("n_embd", _three),
        "attn.c_proj.weight": ("n_embd", "n_embd"),
        "mlp.c_fc.weight": ("n_embd", _inner),
        "mlp.c_proj.weight": (_inner, "n_embd"),
        "ln_f.weight": ("n_embd",),
    },
)
ARCHITECTURES: dict[str, Architecture] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2"), _LLAMA),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "gpt2": _GPT2,
}


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield a finding for each tensor, and for the number of layers, that is not what config.json says."""
    try:
        config = configuration.read_beside(tensor_map.origin, "config.json")
    except WeighttoolsError as error:
        yield Finding(WARNING, "broken-config", str(error))
        return
    model = config.get("model_type") if config else None
    if config and isinstance(model, str) and model in ARCHITECTURES:
        yield from _shapes(tensor_map, config, ARCHITECTURES[model])
        yield from _layers(tensor_map, config, ARCHITECTURES[model])


def _shapes(tensor_map: TensorMap, config: Config, architecture: Architecture) -> Iterator[Finding]:
    for name, spec in zip(tensor_map, tensor_map.specs(), strict=True):
        ending = next((end for end in architecture.shapes if name == end or name.endswith("." + end)), None)
        if ending and spec.dtype.is_float:
            yield from _compared(name, spec, architecture.shapes[ending], config)


def _compared(name: str, spec: Spec, lengths: tuple[str | Length, ...], config: Config) -> Iterator[Finding]:
    expected = [whole(config, length) if isinstance(length, str) else length(config) for length in lengths]
    fits = len(expected) == len(spec.shape) and all(
        theirs is None or ours == theirs for ours, theirs in zip(spec.shape, expected, strict=True)
    )
    if not fits:
        told = " x ".join("?" if length is None else str(length) for length in expected)
        shape = " x ".join(map(str, spec.shape)) or "scalar"
        yield Finding(ERROR, "config-shape", f"{name!r} is {shape}; config.json says {told}", name)


def _layers(tensor_map: TensorMap, config: Config, architecture: Architecture) -> Iterator[Finding]:
    claimed = whole(config, architecture.n_layers)
    found = {int(match[1]) for match in map(architecture.layer.search, tensor_map) if match and len(match[1]) < 8}
    if claimed and found and found != set(range(min(claimed, 1_000_000))):
        absent = sorted(set(range(min(claimed, 1_000_000))) - found)
        more = f"; layer {absent[0]} is missing" if absent else ""
        message = f"there are {len(found):,} layers; config.json says {architecture.n_layers} {claimed:,}{more}"
        yield Finding(ERROR, "config-layers", message)

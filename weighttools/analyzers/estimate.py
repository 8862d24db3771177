"""What memory a checkpoint takes: to load, to train, and for the cache of keys and values. From headers alone.

Sources of optimizer state: torch.optim (SGD, AdamW, Adafactor), Chen et al. 2023 (Lion), bitsandbytes (8-bit Adam:
blocks of 256 with a float32 scale each, tensors below 4096 elements in float32).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from weighttools.analyzers.alike import TensorFamily
from weighttools.analyzers.configuration import text_part, whole
from weighttools.core.dtypes import DTYPES, DType
from weighttools.families.tables import ENCODERS

Record = dict[str, Any]

LOAD_DTYPES = ("float32", "bfloat16", "float8_e4m3fn", "int8", "float4_e2m1fn")
NOT_INCLUDED = ("activations", "temporary buffers", "fragmentation", "the framework itself")

_BLOCK, _LEAST_8BIT = 256, 4096


def _adam8bit(shape: tuple[int, ...]) -> int:
    n = math.prod(shape)
    return 8 * n if n < _LEAST_8BIT else 2 * (n + 4 * -(-n // _BLOCK))


def _adafactor(shape: tuple[int, ...]) -> int:
    """Factored second moments for two axes or more, whole ones for fewer; no first moment."""
    if len(shape) < 2:
        return 4 * math.prod(shape)
    outer = math.prod(shape[:-2])
    return 4 * outer * (shape[-2] + shape[-1])


OPTIMIZERS: dict[str, Callable[[tuple[int, ...]], int]] = {
    "sgd": lambda shape: 0,
    "momentum": lambda shape: 4 * math.prod(shape),
    "adamw": lambda shape: 8 * math.prod(shape),
    "adafactor": _adafactor,
    "lion": lambda shape: 4 * math.prod(shape),
    "adam8bit": _adam8bit,
}
"""Bytes of state for a tensor of a shape, kept in float32 unless said otherwise."""


class Precision(NamedTuple):
    """How training holds weights and gradients: bytes an element, and of a float32 copy of the weights beside."""

    weights: int
    gradients: int
    master: int


PRECISIONS = {"float32": Precision(4, 4, 0), "mixed": Precision(2, 2, 4)}
"""``mixed``: bfloat16 weights and gradients beside a float32 copy of the weights."""


def loading(families: Iterable[TensorFamily]) -> list[Record]:
    """Return bytes to hold all tensors: as stored, and with parameters in other dtypes (the rest as it is)."""
    known = list(families)
    stored = sum(family.n_tensors * family.stored_bytes for family in known)
    rows: list[Record] = [{"dtype": "as stored", "n_bytes": stored}]
    for name in LOAD_DTYPES:
        rows.append({"dtype": name, "n_bytes": sum(f.n_tensors * _held(f, DTYPES[name]) for f in known)})
    return rows


def _held(family: TensorFamily, dtype: DType) -> int:
    return dtype.nbytes(family.spec.n_elements) if family.is_parameter else family.stored_bytes


def training(families: Iterable[TensorFamily]) -> list[Record]:
    """Return bytes to train every parameter, for each optimizer and precision."""
    shapes = [(f.n_tensors, f.spec.shape) for f in families if f.is_parameter]
    n = sum(n_tensors * math.prod(shape) for n_tensors, shape in shapes)
    rows = []
    for optimizer, state_of in OPTIMIZERS.items():
        state = sum(n_tensors * state_of(shape) for n_tensors, shape in shapes)
        for precision, each in PRECISIONS.items():
            parts = {
                "weights_bytes": n * each.weights,
                "gradients_bytes": n * each.gradients,
                "master_bytes": n * each.master,
                "optimizer_bytes": state,
            }
            rows.append({"optimizer": optimizer, "precision": precision, **parts, "n_bytes": sum(parts.values())})
    return rows


class CacheShape(NamedTuple):
    """The shape of a cache of keys and values."""

    n_layers: int
    n_kv_heads: int
    head_dim: int


def cache_shape(config: Mapping[str, Any]) -> CacheShape | str:
    """Return the shape of the cache that config.json tells of, or why there is none."""
    part = text_part(config)
    if part.get("model_type") in ENCODERS and part.get("is_decoder") is not True:
        return f"{part.get('model_type')} is an encoder: it has no cache"
    if part.get("kv_lora_rank"):
        return "latent attention: what is cached depends on the implementation"
    layers = whole(part, "num_hidden_layers", "n_layer", "num_layers")
    heads = whole(part, "num_attention_heads", "n_head", "num_heads")
    hidden = whole(part, "hidden_size", "n_embd", "d_model")
    head_dim = whole(part, "head_dim") or (hidden // heads if hidden and heads else None)
    if not (layers and heads and head_dim):
        return "config.json does not tell layers, heads and hidden size"
    return CacheShape(layers, whole(part, "num_key_value_heads") or heads, head_dim)


def gguf_cache_shape(metadata: Mapping[str, Any]) -> CacheShape | str:
    """Return the shape of the cache that GGUF's metadata tells of, or why there is none."""
    name = metadata.get("general.architecture")
    own = {key.removeprefix(f"{name}."): value for key, value in metadata.items() if key.startswith(f"{name}.")}
    heads, hidden = whole(own, "attention.head_count"), whole(own, "embedding_length")
    layers = whole(own, "block_count")
    head_dim = whole(own, "attention.key_length") or (hidden // heads if hidden and heads else None)
    if not (layers and heads and head_dim):
        return "the metadata does not tell layers, heads and embedding length"
    return CacheShape(layers, whole(own, "attention.head_count_kv") or heads, head_dim)


def cache(shape: CacheShape, dtype: DType, context: int, batch: int) -> Record:
    """Return bytes of the cache: layers x heads x head_dim x 2 (keys and values) x dtype, for each token."""
    per_token = dtype.nbytes(shape.n_layers * shape.n_kv_heads * shape.head_dim * 2)
    return {
        **shape._asdict(),
        "dtype": dtype.name,
        "context": context,
        "batch": batch,
        "bytes_per_token": per_token,
        "n_bytes": per_token * context * batch,
    }

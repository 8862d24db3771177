"""BERT's encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from weighttools.train.ops import attention, embedding, gelu, layer_norm, linear, mul, sum


def bert(
    p: Mapping[str, Any],
    ids: Any,
    mask: Any = None,
    *,
    layers: int,
    heads: int,
    eps: float = 1e-12,
    activation: Callable[[Any], Any] = gelu,
    prefix: str = "",
    segments: Any = 0,
    lengths: Sequence[int] | None = None,
) -> Any:
    """Return the last hidden states, (\\*ids.shape, size).

    Parameters
    ----------
    ids
        (batch, positions), or packed end to end (sum of `lengths`,).
    mask
        True, or 1, at real tokens: (batch, positions); None without padding.
    segments
        Token types: an integer, or like `ids`.

    References
    ----------
    Devlin et al., arXiv:1810.04805; the names are those of Hugging Face's BertModel.
    """
    positions = np.arange(ids.shape[-1]) if lengths is None else np.concatenate([np.arange(n) for n in lengths])
    options = {"mask": None if mask is None else np.asarray(mask, bool), "lengths": lengths}

    def dense(x: Any, name: str) -> Any:
        return linear(x, p[f"{prefix}{name}.weight"], p[f"{prefix}{name}.bias"])

    def norm(x: Any, name: str) -> Any:
        return layer_norm(x, p[f"{prefix}{name}.LayerNorm.weight"], p[f"{prefix}{name}.LayerNorm.bias"], eps=eps)

    def table(name: str, ids: Any) -> Any:
        return embedding(p[f"{prefix}embeddings.{name}_embeddings.weight"], ids=np.atleast_1d(ids))

    x = norm(table("word", ids) + table("position", positions) + table("token_type", segments), "embeddings")
    for at in (f"encoder.layer.{i}" for i in range(layers)):
        qkv = [dense(x, f"{at}.attention.self.{n}").reshape(*ids.shape, heads, -1) for n in ("query", "key", "value")]
        a = dense(attention(*qkv, **options).reshape(*x.shape), f"{at}.attention.output.dense")
        x = norm(x + a, f"{at}.attention.output")
        x = norm(x + dense(activation(dense(x, f"{at}.intermediate.dense")), f"{at}.output.dense"), f"{at}.output")
    return x


def mean_pool(x: Any, mask: Any = None) -> Any:
    """Return the mean of the states (batch, positions, size) at real tokens: (batch, size)."""
    weights = np.ones(x.shape[:2]) if mask is None else np.asarray(mask, bool)
    share = (weights / np.maximum(weights.sum(1, keepdims=True), 1)).astype(x.dtype)
    return sum(mul(x, share[..., None]), axis=1)

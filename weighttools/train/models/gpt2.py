"""GPT-2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from weighttools.train.ops import attention, embedding, gelu_tanh, layer_norm, linear, transpose


def gpt2(
    p: Mapping[str, Any],
    ids: Any,
    mask: Any = None,
    *,
    layers: int,
    heads: int,
    eps: float = 1e-5,
    activation: Callable[[Any], Any] = gelu_tanh,
    prefix: str = "",
) -> Any:
    """Return the logits (batch, positions, vocabulary) of the token after each of `ids` (batch, positions).

    References
    ----------
    Radford et al., Language Models are Unsupervised Multitask Learners (2019); the names are those of the openai
    files (with `prefix` "transformer.", GPT2LMHeadModel's), whose Conv1D weights are (in, out).
    """

    def dense(x: Any, name: str) -> Any:
        return linear(x, transpose(p[f"{prefix}{name}.weight"]), p[f"{prefix}{name}.bias"])

    def norm(x: Any, name: str) -> Any:
        return layer_norm(x, p[f"{prefix}{name}.weight"], p[f"{prefix}{name}.bias"], eps=eps)

    seen, table = None if mask is None else np.asarray(mask, bool), p[f"{prefix}wte.weight"]
    x = embedding(table, ids=ids) + embedding(p[f"{prefix}wpe.weight"], ids=np.arange(ids.shape[1]))
    for at in (f"h.{i}" for i in range(layers)):
        qkv = dense(norm(x, f"{at}.ln_1"), f"{at}.attn.c_attn").reshape(*ids.shape, 3, heads, -1)
        a = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], causal=True, mask=seen)
        x = x + dense(a.reshape(*x.shape), f"{at}.attn.c_proj")
        x = x + dense(activation(dense(norm(x, f"{at}.ln_2"), f"{at}.mlp.c_fc")), f"{at}.mlp.c_proj")
    return linear(norm(x, "ln_f"), p.get("lm_head.weight", table))

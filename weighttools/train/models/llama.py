"""Llama and its kin: SmolLM, Mistral, Qwen2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from weighttools.train.ops import attention, embedding, linear, rms_norm, rope, rope_tables, swiglu


def llama(
    p: Mapping[str, Any],
    ids: Any,
    mask: Any = None,
    *,
    layers: int,
    heads: int,
    key_heads: int,
    theta: float = 1e4,
    eps: float = 1e-5,
    head_size: int | None = None,
    prefix: str = "model.",
) -> Any:
    """Return the logits (batch, positions, vocabulary) of the token after each of `ids` (batch, positions).

    Biases are used where the file has them (Qwen2's queries, keys and values).

    References
    ----------
    Touvron et al., arXiv:2302.13971; the names are those of Hugging Face's LlamaForCausalLM.
    """

    def dense(x: Any, name: str) -> Any:
        return linear(x, p[f"{prefix}{name}.weight"], p.get(f"{prefix}{name}.bias"))

    def norm(x: Any, name: str) -> Any:
        return rms_norm(x, p[f"{prefix}{name}.weight"], eps=eps)

    seen, table = None if mask is None else np.asarray(mask, bool), p[f"{prefix}embed_tokens.weight"]
    x = embedding(table, ids=ids)
    cos, sin = rope_tables(np.arange(ids.shape[1]), head_size or x.shape[-1] // heads, theta=theta, dtype=x.dtype)
    for at in (f"layers.{i}" for i in range(layers)):
        h = norm(x, f"{at}.input_layernorm")
        q, k, v = (
            dense(h, f"{at}.self_attn.{n}_proj").reshape(*ids.shape, count, -1)
            for n, count in (("q", heads), ("k", key_heads), ("v", key_heads))
        )
        a = attention(rope(q, cos=cos, sin=sin), rope(k, cos=cos, sin=sin), v, causal=True, mask=seen)
        x = x + dense(a.reshape(*ids.shape, -1), f"{at}.self_attn.o_proj")
        h = norm(x, f"{at}.post_attention_layernorm")
        x = x + dense(swiglu(dense(h, f"{at}.mlp.gate_proj"), dense(h, f"{at}.mlp.up_proj")), f"{at}.mlp.down_proj")
    return linear(norm(x, "norm"), p.get("lm_head.weight", table))

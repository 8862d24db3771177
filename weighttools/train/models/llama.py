"""Llama and its kin: SmolLM, Mistral, Qwen 2 and 3, Gemma 1 to 3, Phi-3. They differ in norms, scales and windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weighttools.train.models.cache import Cache
from weighttools.train.models.decoding import Seen
from weighttools.train.models.rotary import Rotary, plain, rotated
from weighttools.train.models.scope import Scope, stacked
from weighttools.train.ops import linear, silu, swiglu


@dataclass(frozen=True, slots=True)
class Layers:
    """How the layers of a family compute.

    Parameters
    ----------
    heads, key_heads
        Heads of the queries, and of keys and values.
    rotaries
        Each layer's angles; the last one holds for all that follow.
    windows
        How many of the last tokens each layer sees, None for all; the last one holds for all that follow.
    norm_shift
        What is added to the weight of a norm: 1 in Gemma.
    post_norms
        Gemma 2 and 3: what a block adds is normalised too.
    head_norms
        Qwen 3 and Gemma 3: every head of queries and keys is normalised.
    scale, cap
        Of attention scores: 1 / sqrt(head size), and uncapped, unless given.
    """

    heads: int
    key_heads: int
    rotaries: Sequence[Rotary]
    windows: Sequence[int | None] = (None,)
    eps: float = 1e-5
    activation: Callable[[Any], Any] = silu
    norm_shift: float = 0
    post_norms: bool = False
    head_norms: bool = False
    scale: float | None = None
    cap: float | None = None


def llama(
    p: Mapping[str, Any],
    ids: Any,
    mask: Any = None,
    *,
    layers: int,
    heads: int,
    key_heads: int | None = None,
    theta: float = 1e4,
    eps: float = 1e-5,
    head_size: int | None = None,
    prefix: str = "model.",
    **options: Any,
) -> Any:
    """Return Llama's logits (\\*ids.shape, vocabulary) of the token after each of `ids` (batch, positions).

    The output layer is ``lm_head.weight``, or the table of embeddings where there is none. `options` are those of
    `decoder`.

    References
    ----------
    Touvron et al., arXiv:2302.13971; the names are those of Hugging Face's LlamaForCausalLM.
    """
    table = Scope(p, prefix)["embed_tokens.weight"]
    rotary = Rotary(plain(theta, head_size or table.shape[1] // heads))
    how = Layers(heads, key_heads or heads, (rotary,), eps=eps)
    return linear(
        decoder(p, ids, mask, layers=layers, how=how, prefix=prefix, **options), p.get("lm_head.weight", table)
    )


def decoder(
    p: Mapping[str, Any],
    ids: Any,
    mask: Any = None,
    *,
    layers: int,
    how: Layers,
    embed_scale: float = 1,
    prefix: str = "",
    lengths: Sequence[int] | None = None,
    cache: Cache | None = None,
    recompute: bool = False,
) -> Any:
    """Return the last hidden states, normalised: (\\*ids.shape, size).

    Parameters
    ----------
    ids
        (batch, positions), or packed end to end (sum of `lengths`,).
    mask
        True, or 1, at real tokens: (batch, positions); with a cache, those in the cache come first.
    how
        What the layers do.
    embed_scale
        What embeddings are multiplied by: sqrt(size) in Gemma.
    cache
        What ran before; it is extended.
    recompute
        Keep each layer's input only, and compute the layer again for the backward pass.
    """
    root, seen = Scope(p, prefix), Seen(ids, mask, lengths, cache)
    x = root.table("embed_tokens", ids)
    x = x if embed_scale == 1 else x * embed_scale

    def step(at: Scope, x: Any, i: int) -> Any:
        after, before = ("post_attention_layernorm", "pre_feedforward_layernorm") if how.post_norms else ("", "")
        a = _attended(at.inside("self_attn"), _norm(at, x, "input_layernorm", how), i, how, seen)
        x = at.plus(x, _norm(at, a, after, how), "self_attn.o_proj")
        h = _fed_forward(at.inside("mlp"), _norm(at, x, before or "post_attention_layernorm", how), how.activation)
        return at.plus(x, _norm(at, h, "post_feedforward_layernorm" if how.post_norms else "", how), "mlp.down_proj")

    x = stacked(step, root, x, [f"layers.{i}" for i in range(layers)], recompute)
    return _norm(root, x, "norm", how)


def _norm(at: Scope, x: Any, name: str, how: Layers) -> Any:
    return at.rms_norm(x, name, how.eps, how.norm_shift) if name else x


def _attended(at: Scope, x: Any, i: int, how: Layers, seen: Seen) -> Any:
    q, k, v = _qkv(at, x, how, seen.shape)
    if how.head_norms:
        q, k = _norm(at, q, "q_norm", how), _norm(at, k, "k_norm", how)
    tables, window = seen.tables(_of_layer(how.rotaries, i), x.dtype), _of_layer(how.windows, i)
    a = seen.attend(i, rotated(q, tables), rotated(k, tables), v, window=window, scale=how.scale, cap=how.cap)
    return at.dense(a.reshape(*seen.shape, -1), "o_proj")


def _of_layer(values: Sequence[Any], i: int) -> Any:
    return values[min(i, len(values) - 1)]


def _qkv(at: Scope, x: Any, how: Layers, shape: tuple[int, ...]) -> list[Any]:
    """Return queries, keys and values (\\*shape, heads, size), of one weighted sum (Phi-3) or of three."""
    counts = (how.heads, how.key_heads, how.key_heads)
    if "qkv_proj.weight" in at:
        y = at.dense(x, "qkv_proj").reshape(*shape, sum(counts), -1)
        stops = (how.heads, how.heads + how.key_heads, sum(counts))
        return [y[..., stop - n : stop, :] for stop, n in zip(stops, counts, strict=True)]
    return [at.dense(x, f"{name}_proj").reshape(*shape, n, -1) for name, n in zip("qkv", counts, strict=True)]


def _fed_forward(at: Scope, x: Any, activation: Callable[[Any], Any]) -> Any:
    if "gate_up_proj.weight" in at:
        both = at.dense(x, "gate_up_proj")
        gate, up = both[..., : both.shape[-1] // 2], both[..., both.shape[-1] // 2 :]
    else:
        gate, up = at.dense(x, "gate_proj"), at.dense(x, "up_proj")
    return at.dense(swiglu(gate, up) if activation is silu else at.times(activation(gate), up, "up_proj"), "down_proj")

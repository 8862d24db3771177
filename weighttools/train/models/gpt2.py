"""GPT-2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from weighttools.train.models.cache import Cache
from weighttools.train.models.decoding import Seen
from weighttools.train.models.scope import Scope, stacked
from weighttools.train.ops import gelu_tanh, linear


def gpt2(p: Mapping[str, Any], ids: Any, mask: Any = None, *, prefix: str = "", **options: Any) -> Any:
    """Return the logits (\\*ids.shape, vocabulary) of the token after each of `ids`; `options` of `gpt2_hidden`."""
    x = gpt2_hidden(p, ids, mask, prefix=prefix, **options)
    return linear(x, p.get("lm_head.weight", Scope(p, prefix)["wte.weight"]))


def gpt2_hidden(
    p: Mapping[str, Any],
    ids: Any,
    mask: Any = None,
    *,
    layers: int,
    heads: int,
    eps: float = 1e-5,
    activation: Callable[[Any], Any] = gelu_tanh,
    prefix: str = "",
    lengths: Sequence[int] | None = None,
    cache: Cache | None = None,
    recompute: bool = False,
) -> Any:
    """Return the last hidden states, normalised: (\\*ids.shape, size); the parameters are those of `llama.decoder`.

    References
    ----------
    Radford et al., Language Models are Unsupervised Multitask Learners (2019); the names are those of the openai
    files (with `prefix` "transformer.", GPT2LMHeadModel's), whose Conv1D weights are (in, out).
    """
    root, seen = Scope(p, prefix), Seen(ids, mask, lengths, cache)

    def step(at: Scope, x: Any, i: int) -> Any:
        qkv = at.dense(at.layer_norm(x, "ln_1", eps), "attn.c_attn", transposed=True).reshape(*ids.shape, 3, heads, -1)
        a = seen.attend(i, *(qkv[..., j, :, :] for j in range(3)))
        x = at.plus(x, at.dense(a.reshape(*ids.shape, -1), "attn.c_proj", transposed=True), "attn.c_proj")
        h = activation(at.dense(at.layer_norm(x, "ln_2", eps), "mlp.c_fc", transposed=True))
        return at.plus(x, at.dense(h, "mlp.c_proj", transposed=True), "mlp.c_proj")

    x = root.plus(root.table("wte", ids), root.table("wpe", seen.positions), "wpe")
    x = stacked(step, root, x, [f"h.{i}" for i in range(layers)], recompute)
    return root.layer_norm(x, "ln_f", eps)

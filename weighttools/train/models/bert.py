"""BERT's encoder and its kin: RoBERTa, DistilBERT, ALBERT, ELECTRA. They differ in names, and in what is shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighttools.train.models.scope import Scope, stacked
from weighttools.train.ops import attention, gelu, mul, sum, tanh


@dataclass(frozen=True, slots=True)
class LayerNames:
    """What a family calls the parts of a layer, and where its layers lie."""

    layer: str = "encoder.layer.{}"
    qkv: tuple[str, str, str] = ("attention.self.query", "attention.self.key", "attention.self.value")
    attended: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm: str = "output.LayerNorm"
    widened: str = ""
    """The weighted sum after the embeddings, where those are narrower than the layers."""
    pooler: str = "pooler.dense"


BERT = LayerNames()
ELECTRA = LayerNames(widened="embeddings_project", pooler="")
DISTILBERT = LayerNames(
    "transformer.layer.{}",
    ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
    pooler="",
)
ALBERT = LayerNames(
    "encoder.albert_layer_groups.{}.albert_layers.{}",
    ("attention.query", "attention.key", "attention.value"),
    "attention.dense",
    "attention.LayerNorm",
    "ffn",
    "ffn_output",
    "full_layer_layer_norm",
    "encoder.embedding_hidden_mapping_in",
    "pooler",
)


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
    names: LayerNames = BERT,
    groups: int | None = None,
    inner: int = 1,
    padding: int | None = None,
    recompute: bool = False,
) -> Any:
    """Return the last hidden states, (\\*ids.shape, size).

    Parameters
    ----------
    ids
        (batch, positions), or packed end to end (sum of `lengths`,).
    mask
        True, or 1, at real tokens: (batch, positions); None without padding.
    segments
        Token types: an integer, or like `ids`; not looked at where the file has none.
    names
        What the family calls its parts.
    groups, inner
        ALBERT: so many groups of `inner` layers each, shared by `layers` steps. None: nothing is shared.
    padding
        RoBERTa: the id that pads; positions are counted from the one after it, over other ids only.
    recompute
        Keep each layer's input only, and compute the layer again for the backward pass.

    References
    ----------
    Devlin et al., arXiv:1810.04805; Liu et al., RoBERTa, arXiv:1907.11692; Sanh et al., DistilBERT, arXiv:1910.01108;
    Lan et al., ALBERT, arXiv:1909.11942. The names are those of Hugging Face's classes.
    """
    root, shape = Scope(p, prefix), ids.shape
    seen = {"mask": None if mask is None else np.asarray(mask, bool), "lengths": lengths}

    def step(at: Scope, x: Any, i: int) -> Any:
        qkv = (at.dense(x, name).reshape(*shape, heads, -1) for name in names.qkv)
        a = at.dense(attention(*qkv, **seen).reshape(*shape, -1), names.attended)
        x = at.layer_norm(at.plus(x, a, names.attended), names.attention_norm, eps)
        h = at.dense(activation(at.dense(x, names.up)), names.down)
        return at.layer_norm(at.plus(x, h, names.down), names.norm, eps)

    x = _embedded(root.inside("embeddings"), ids, segments, positions(ids, lengths, padding), eps)
    if names.widened and f"{names.widened}.weight" in root:
        x = root.dense(x, names.widened)
    return stacked(step, root, x, _places(names, layers, groups, inner), recompute)


def _embedded(at: Scope, ids: Any, segments: Any, places: Any, eps: float) -> Any:
    x = at.table("word_embeddings", ids)
    x = at.plus(x, at.table("position_embeddings", places), "position_embeddings")
    if "token_type_embeddings.weight" in at:
        x = at.plus(x, at.table("token_type_embeddings", segments), "token_type_embeddings")
    return at.layer_norm(x, "LayerNorm", eps)


def positions(ids: Any, lengths: Sequence[int] | None, padding: int | None = None) -> Any:
    """Return each token's position: (positions,) or like `ids`. With `padding` they are counted as RoBERTa does."""
    if lengths is not None:
        start = 0 if padding is None else padding + 1
        return np.concatenate([np.arange(start, start + n) for n in lengths] or [np.arange(0)])
    if padding is None:
        return np.arange(ids.shape[-1])
    real = np.asarray(ids) != padding
    return real.cumsum(-1) * real + padding


def _places(names: LayerNames, layers: int, groups: int | None, inner: int) -> list[str]:
    """Return where the layers lie, in the order in which they are run; a shared one more than once."""
    if groups is None:
        return [names.layer.format(i) for i in range(layers)]
    return [names.layer.format(i * groups // layers, j) for i in range(layers) for j in range(inner)]


def first_pool(p: Mapping[str, Any], x: Any, *, name: str) -> Any:
    """Return the tanh of a weighted sum of the first token's state: BERT's pooler, (batch, size)."""
    return tanh(Scope(p).dense(x[:, 0], name))


def mean_pool(x: Any, mask: Any = None) -> Any:
    """Return the mean of the states (batch, positions, size) at real tokens: (batch, size)."""
    weights = np.ones(x.shape[:2]) if mask is None else np.asarray(mask, bool)
    share = (weights / np.maximum(weights.sum(1, keepdims=True), 1)).astype(x.dtype)
    return sum(mul(x, share[..., None]), axis=1)

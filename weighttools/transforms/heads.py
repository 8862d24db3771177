"""Which tensors of an attention belong to its heads, and which part of each to which head; by the names they have.

Sources: the models of transformers (BERT, RoBERTa, ELECTRA, DistilBERT, ALBERT, GPT-2, Llama and its kin, Phi-3),
llama.cpp's names for GGUF, and keras.layers.MultiHeadAttention.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.families.kernels import Layouts
from weighttools.transforms.units import Units

_MEMBERS = re.compile(
    r"(?:^|[._/])(?:(?P<query>query|q_proj|q_lin|wq|to_q|attn_q)"
    r"|(?P<rows>key|value|[kv]_proj|[kv]_lin|w[kv]|to_[kv]|attn_[kv])"
    r"|(?P<fused>qkv_proj|in_proj|attn_qkv|(?:(?<=[._/]attn[._/])|(?<=^attn[._/]))c_attn)"
    r"|(?P<columns>output[./]dense|o_proj|out_proj|out_lin|wo|to_out\.0|attn_output|attention_output|output_dense"
    r"|(?<=attention[._/])dense|(?:(?<=[._/]attn[._/])|(?<=^attn[._/]))c_proj))(?=[._/])"
)
"""What follows the name of an attention: projections to queries, to keys or values, to all three, and to outputs."""

_BIAS = re.compile(r"bias(?::0)?$|/vars/[1-9]$")
"""Keras's and Flax's biases of heads have two axes, too."""


def attentions(
    tensor_map: TensorMap, names: Sequence[str], layouts: Layouts, n_heads: int
) -> Iterator[tuple[str, dict[str, Units]]]:
    """Yield each attention with those of its tensors that lose heads together, and how each is cut into heads.

    Keys and values that heads share are left alone, in a tensor of their own or in one with the queries: they would
    be missed by the heads that stay. Without its columns of the output projection a head gives nothing.

    Parameters
    ----------
    names
        Tensors that may be changed.
    n_heads
        How many heads of queries each attention has.

    Raises
    ------
    SpecError
        Heads do not fit an attention, or it has no output projection of a known name.
    """
    groups = _groups(tensor_map)
    allowed = set(names)
    for label, roles in groups.items():
        widths = {name: _width(tensor_map, name, role, layouts) for name, role in roles.items()}
        width = _query_width(roles, widths)
        if width is None or not any(role in ("query", "fused") and name in allowed for name, role in roles.items()):
            continue
        first = next(name for name, role in roles.items() if role in ("query", "fused"))
        if width % n_heads:
            raise SpecError(f"{width} rows are not {n_heads} heads", subject=first, expected="a divisor")
        if "columns" not in roles.values():
            fact = f"the attention {label!r} has no output projection of a known name, by which its heads take effect"
            raise SpecError(fact, subject=first, expected="such as o_proj or attention.output.dense")
        parts = {
            name: cut
            for name, role in roles.items()
            if name in allowed and (cut := _cut(tensor_map, name, role, layouts, width, n_heads)) is not None
        }
        yield label, parts


def _groups(tensor_map: TensorMap) -> dict[str, dict[str, str]]:
    """Return the tensors of each attention, by what they are."""
    groups: dict[str, dict[str, str]] = {}
    for name, spec in zip(tensor_map, tensor_map.specs(), strict=True):
        found = _MEMBERS.search(name)
        if found and len(spec.shape) in (2, 3) and spec.dtype.is_float and not _BIAS.search(name):
            stem = re.sub(r"[._/]self$", "", name[: found.start()])
            groups.setdefault(stem, {})[name] = str(found.lastgroup)
    return groups


def _axes(tensor_map: TensorMap, name: str, role: str, layouts: Layouts) -> tuple[int, ...]:
    axes = layouts.axes(name, tensor_map[name].shape)
    return axes.inputs if role == "columns" else axes.outputs


def _width(tensor_map: TensorMap, name: str, role: str, layouts: Layouts) -> int:
    shape = tensor_map[name].shape
    return math.prod(shape[axis] for axis in _axes(tensor_map, name, role, layouts))


def _query_width(roles: Mapping[str, str], widths: Mapping[str, int]) -> int | None:
    """Return what all heads of queries take together: the query's width, or what the output projection takes."""
    by_role = {role: widths[name] for name, role in roles.items()}
    if "query" in by_role or "fused" not in by_role:
        return by_role.get("query")
    return by_role.get("columns", by_role["fused"] // 3)


def _cut(tensor_map: TensorMap, name: str, role: str, layouts: Layouts, width: int, n_heads: int) -> Units | None:
    """Return how a tensor is cut into heads; None for keys and values that heads share."""
    shape, axes = tensor_map[name].shape, _axes(tensor_map, name, role, layouts)
    whole = _width(tensor_map, name, role, layouts)
    if role != "fused":
        return Units.of(shape, axes, n_heads) if whole == width else None
    per = width // n_heads
    if whole <= width or (whole - width) % (2 * per):
        raise SpecError(
            f"{whole} rows are not queries of {n_heads} heads, keys and values", subject=name, expected="whole heads"
        )
    heads, n_shared = np.arange(width) // per, whole - width
    others = np.concatenate([heads, heads]) if n_shared == 2 * width else np.full(n_shared, n_heads)
    return Units(math.prod(shape[axes[-1] + 1 :]), np.concatenate([heads, others]), n_heads)

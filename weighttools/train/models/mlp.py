"""Weighted sums with activations between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from weighttools.train.ops import linear, relu


def mlp(p: Mapping[str, Any], x: Any, *, layers: Sequence[str], activation: Callable[[Any], Any] = relu) -> Any:
    """Return the outputs of ``layers``, name prefixes in order; a single one is linear or logistic regression."""
    for i, name in enumerate(layers):
        x = linear(activation(x) if i else x, p[f"{name}.weight"], p.get(f"{name}.bias"))
    return x

"""The steps of `train_workloads.py` that HIPS autograd (``pip install autograd``) can express, written for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Step = Callable[[], Any]
Params = Mapping[str, np.ndarray]


def mlp(p: Params, x: np.ndarray, y: np.ndarray) -> Step:
    """Return cross-entropy's step for three weighted sums with ReLU between."""
    import autograd.numpy as anp
    from autograd import value_and_grad

    rows = np.arange(len(x))

    def loss(p: Any) -> Any:
        h = x
        for i in range(3):
            h = anp.dot(h if i == 0 else anp.maximum(h, 0), p[f"{i}.weight"].T) + p[f"{i}.bias"]
        h = h - anp.max(h, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(h), axis=1)) - h[rows, y])

    step = value_and_grad(loss)
    return lambda: step(p)


def bert(p: Params, ids: np.ndarray, layers: int, heads: int) -> Step:
    """Return the mean square's step for BERT's last hidden states."""
    import autograd.numpy as anp
    from autograd import value_and_grad
    from autograd.scipy.special import erf

    b, t = ids.shape

    def norm(x: Any, p: Any, at: str) -> Any:
        x = x - anp.mean(x, axis=-1, keepdims=True)
        x = x / anp.sqrt(anp.mean(x * x, axis=-1, keepdims=True) + 1e-12)
        return x * p[f"{at}.LayerNorm.weight"] + p[f"{at}.LayerNorm.bias"]

    def dense(x: Any, p: Any, at: str) -> Any:
        return anp.dot(x, p[f"{at}.weight"].T) + p[f"{at}.bias"]

    def layer(x: Any, p: Any, at: str) -> Any:
        q, k, v = (
            anp.transpose(anp.reshape(dense(x, p, f"{at}.attention.self.{s}"), (b, t, heads, -1)), (0, 2, 1, 3))
            for s in ("query", "key", "value")
        )
        scores = anp.matmul(q, anp.swapaxes(k, 2, 3)) * q.shape[-1] ** -0.5
        e = anp.exp(scores - anp.max(scores, axis=-1, keepdims=True))
        a = anp.matmul(e / anp.sum(e, axis=-1, keepdims=True), v)
        a = dense(anp.reshape(anp.transpose(a, (0, 2, 1, 3)), (b * t, -1)), p, f"{at}.attention.output.dense")
        x = norm(x + a, p, f"{at}.attention.output")
        h = dense(x, p, f"{at}.intermediate.dense")
        h = h * 0.5 * (1 + erf(h * 0.5**0.5))
        return norm(x + dense(h, p, f"{at}.output.dense"), p, f"{at}.output")

    def loss(p: Any) -> Any:
        e = "embeddings"
        x = p[f"{e}.word_embeddings.weight"][ids] + p[f"{e}.position_embeddings.weight"][:t]
        x = norm(anp.reshape(x + p[f"{e}.token_type_embeddings.weight"][0], (b * t, -1)), p, e)
        for i in range(layers):
            x = layer(x, p, f"encoder.layer.{i}")
        return anp.mean(x * x)

    step = value_and_grad(loss)
    return lambda: step(p)

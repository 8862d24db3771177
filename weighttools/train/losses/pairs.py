"""Losses of pairs of vectors: cosines, and which belongs to which."""

from __future__ import annotations

from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.variable import matmul, mul, sub, sum, transpose
from weighttools.train.losses.classes import cross_entropy
from weighttools.train.losses.weighting import normalised, positive, row_weights
from weighttools.train.ops.norms import normalize
from weighttools.train.ops.pointwise import relu


def cosine_similarity(a: Any, b: Any) -> Any:
    """Return the cosine of the angle between the last axes of `a` and `b`."""
    return sum(mul(normalize(a, eps=1e-8), normalize(b, eps=1e-8)), axis=-1)


def cosine_embedding(a: Any, b: Any, *, target: Any, margin: float = 0.0, sample_weight: Any = None) -> Any:
    """Return the mean of ``1 - cos(a, b)`` for pairs with target 1 and ``max(0, cos(a, b) - margin)`` for -1.

    `a` and `b` are (n, size); the mean is weighted by `sample_weight`, one number a pair.
    """
    labels, cosine = np.asarray(target), cosine_similarity(a, b)
    if labels.shape != cosine.shape or not np.isin(labels, (-1, 1)).all():
        raise SpecError(
            f"targets of shape {labels.shape}", subject="cosine_embedding", expected="1 or -1 for each pair"
        )
    rows = row_weights(len(labels), sample_weight, a.dtype, "cosine_embedding")
    w = normalised(rows, "mean", "cosine_embedding")
    like = mul(sub(1, cosine), w * (labels == 1))
    return sum(like + mul(relu(sub(cosine, margin)), w * (labels == -1)))


def contrastive(a: Any, b: Any, *, temperature: float = 0.05, symmetric: bool = False) -> Any:
    """Return the InfoNCE loss of pairs: each row of `a` must find its row of `b` among all rows of the batch.

    Parameters
    ----------
    a, b
        (n, size); row i of one belongs to row i of the other.
    temperature
        The cosines are divided by it.
    symmetric
        Take the mean with the loss of finding `a` from `b`, as CLIP does.

    Raises
    ------
    SpecError
        `temperature` is not more than 0.

    References
    ----------
    van den Oord et al., arXiv:1807.03748, equation 4; Radford et al., arXiv:2103.00020, figure 3.
    """
    positive("contrastive", temperature=temperature)
    scores = mul(matmul(normalize(a), transpose(normalize(b))), 1 / temperature)
    target = np.arange(a.shape[0])
    loss = cross_entropy(scores, target=target)
    return mul(loss + cross_entropy(transpose(scores), target=target), 0.5) if symmetric else loss

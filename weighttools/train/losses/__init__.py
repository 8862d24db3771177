"""Losses: each a scalar operation whose gradient is made in the forward pass.

All take ``sample_weight``, one number a sample, and are normalised by the weights that count: the loss is
``sum(weight * loss) / sum(weight)``, so weights of 1 give the mean, and doubling all weights changes nothing.
``reduction="sum"`` leaves the division out.

- Classes: `cross_entropy`, `focal`, `binary_cross_entropy`, `binary_focal`
- Numbers: `mse`, `mae`, `huber`
- Pairs: `contrastive`, `cosine_embedding`, `cosine_similarity`
- Weights of classes: `class_weights`, `effective_weights`
- Figures: `perplexity`
"""

from __future__ import annotations

from weighttools.train.losses.classes import cross_entropy as cross_entropy
from weighttools.train.losses.classes import focal as focal
from weighttools.train.losses.classes import perplexity as perplexity
from weighttools.train.losses.elementwise import binary_cross_entropy as binary_cross_entropy
from weighttools.train.losses.elementwise import binary_focal as binary_focal
from weighttools.train.losses.elementwise import huber as huber
from weighttools.train.losses.elementwise import mae as mae
from weighttools.train.losses.elementwise import mse as mse
from weighttools.train.losses.pairs import contrastive as contrastive
from weighttools.train.losses.pairs import cosine_embedding as cosine_embedding
from weighttools.train.losses.pairs import cosine_similarity as cosine_similarity
from weighttools.train.weights import class_weights as class_weights
from weighttools.train.weights import effective_weights as effective_weights

__all__ = [
    "binary_cross_entropy",
    "binary_focal",
    "class_weights",
    "contrastive",
    "cosine_embedding",
    "cosine_similarity",
    "cross_entropy",
    "effective_weights",
    "focal",
    "huber",
    "mae",
    "mse",
    "perplexity",
]


def __dir__() -> list[str]:
    return sorted(__all__)

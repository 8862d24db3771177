"""Initialisers: what weights begin with. The same numbers for the same seed and name, also drawn in blocks for a file.

- Rules by fan: `he_normal`, `he_uniform`, `xavier_normal`, `xavier_uniform`, `lecun_normal`, `lecun_uniform`
- Others: `orthogonal`, `normal`, `truncated_normal`, `uniform`, `zeros`, `depth_scaled`
- What they are made of: `Initializer`, `INITIALIZERS`, `gain`, `fans`, `initialized`
"""

from __future__ import annotations

from weighttools.transforms.initializers import INITIALIZERS as INITIALIZERS
from weighttools.transforms.initializers import Initializer as Initializer
from weighttools.transforms.initializers import depth_scaled as depth_scaled
from weighttools.transforms.initializers import fans as fans
from weighttools.transforms.initializers import gain as gain
from weighttools.transforms.initializers import he_normal as he_normal
from weighttools.transforms.initializers import he_uniform as he_uniform
from weighttools.transforms.initializers import initialized as initialized
from weighttools.transforms.initializers import lecun_normal as lecun_normal
from weighttools.transforms.initializers import lecun_uniform as lecun_uniform
from weighttools.transforms.initializers import normal as normal
from weighttools.transforms.initializers import orthogonal as orthogonal
from weighttools.transforms.initializers import truncated_normal as truncated_normal
from weighttools.transforms.initializers import uniform as uniform
from weighttools.transforms.initializers import xavier_normal as xavier_normal
from weighttools.transforms.initializers import xavier_uniform as xavier_uniform
from weighttools.transforms.initializers import zeros as zeros

__all__ = [
    "INITIALIZERS",
    "Initializer",
    "depth_scaled",
    "fans",
    "gain",
    "he_normal",
    "he_uniform",
    "initialized",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]


def __dir__() -> list[str]:
    return sorted(__all__)

"""Architectures as functions of ``{file's tensor name: array}``; tables read their options from config.json.

- Architectures: `llama`, `gpt2`, `bert`, `mean_pool`, `mlp`
- From files: `load`, `described`, `Checkpoint`, `from_config`, `from_shapes`, `FAMILIES`
- Their parts: `Architecture`, `Loading`, `Cache`
"""

from __future__ import annotations

from weighttools.train.models.architecture import Architecture as Architecture
from weighttools.train.models.architecture import Loading as Loading
from weighttools.train.models.bert import bert as bert
from weighttools.train.models.bert import mean_pool as mean_pool
from weighttools.train.models.cache import Cache as Cache
from weighttools.train.models.config import from_config as from_config
from weighttools.train.models.families import FAMILIES as FAMILIES
from weighttools.train.models.files import Checkpoint as Checkpoint
from weighttools.train.models.files import described as described
from weighttools.train.models.files import load as load
from weighttools.train.models.gpt2 import gpt2 as gpt2
from weighttools.train.models.llama import llama as llama
from weighttools.train.models.mlp import mlp as mlp
from weighttools.train.models.shapes import from_shapes as from_shapes

__all__ = [
    "FAMILIES",
    "Architecture",
    "Cache",
    "Checkpoint",
    "Loading",
    "bert",
    "described",
    "from_config",
    "from_shapes",
    "gpt2",
    "llama",
    "load",
    "mean_pool",
    "mlp",
]


def __dir__() -> list[str]:
    return sorted(__all__)

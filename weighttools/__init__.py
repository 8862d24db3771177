"""weighttools: look inside, count, convert and edit the files that hold a neural network's weights.

>>> import numpy as np, weighttools as wt
>>> tensor_map = wt.TensorMap.from_arrays({"fc.weight": np.zeros((2, 3), np.float32)})
>>> tensor_map["fc.weight"].shape
(2, 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from weighttools.api import convert as convert
    from weighttools.api import get as get
    from weighttools.api import inspect as inspect
    from weighttools.api import list_formats as list_formats
    from weighttools.api import open as open
    from weighttools.api import params as params
    from weighttools.api import save as save
    from weighttools.api import stats as stats
    from weighttools.core.tensor import Spec as Spec
    from weighttools.core.tensor import Tensor as Tensor
    from weighttools.core.tensormap import TensorMap as TensorMap
    from weighttools.diagnosis import estimate as estimate
    from weighttools.diagnosis import init_check as init_check
    from weighttools.diagnosis import spectrum as spectrum
    from weighttools.edits import average as average
    from weighttools.edits import clip as clip
    from weighttools.edits import decay as decay
    from weighttools.edits import init as init
    from weighttools.edits import masks as masks
    from weighttools.edits import merge_adapter as merge_adapter
    from weighttools.edits import noise as noise
    from weighttools.edits import prune as prune
    from weighttools.edits import scale as scale
    from weighttools.edits import sizes as sizes
    from weighttools.errors import WeighttoolsError as WeighttoolsError
    from weighttools.verbs.check import check as check

_HOMES = {
    "open": "weighttools.api",
    "save": "weighttools.api",
    "convert": "weighttools.api",
    "inspect": "weighttools.api",
    "params": "weighttools.api",
    "stats": "weighttools.api",
    "get": "weighttools.api",
    "check": "weighttools.verbs.check",
    "estimate": "weighttools.diagnosis",
    "spectrum": "weighttools.diagnosis",
    "init_check": "weighttools.diagnosis",
    "list_formats": "weighttools.api",
    "average": "weighttools.edits",
    "clip": "weighttools.edits",
    "decay": "weighttools.edits",
    "init": "weighttools.edits",
    "masks": "weighttools.edits",
    "merge_adapter": "weighttools.edits",
    "noise": "weighttools.edits",
    "prune": "weighttools.edits",
    "scale": "weighttools.edits",
    "sizes": "weighttools.edits",
    "TensorMap": "weighttools.core.tensormap",
    "Tensor": "weighttools.core.tensor",
    "Spec": "weighttools.core.tensor",
    "WeighttoolsError": "weighttools.errors",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562), so that ``import weighttools`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'weighttools' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

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
    from weighttools.core.spec import Spec as Spec
    from weighttools.core.tensor import Tensor as Tensor
    from weighttools.core.tensormap import TensorMap as TensorMap
    from weighttools.errors import WeighttoolsError as WeighttoolsError
    from weighttools.transforms.naming import transform as transform
    from weighttools.verbs.api import convert as convert
    from weighttools.verbs.api import get as get
    from weighttools.verbs.api import inspect as inspect
    from weighttools.verbs.api import list_formats as list_formats
    from weighttools.verbs.api import open as open
    from weighttools.verbs.api import params as params
    from weighttools.verbs.api import save as save
    from weighttools.verbs.api import stats as stats
    from weighttools.verbs.check import check as check
    from weighttools.verbs.decay import decay as decay
    from weighttools.verbs.diagnosis import estimate as estimate
    from weighttools.verbs.diagnosis import init_check as init_check
    from weighttools.verbs.diagnosis import spectrum as spectrum
    from weighttools.verbs.edits import average as average
    from weighttools.verbs.edits import clip as clip
    from weighttools.verbs.edits import init as init
    from weighttools.verbs.edits import masks as masks
    from weighttools.verbs.edits import merge_adapter as merge_adapter
    from weighttools.verbs.edits import noise as noise
    from weighttools.verbs.edits import prune as prune
    from weighttools.verbs.edits import scale as scale
    from weighttools.verbs.edits import sizes as sizes

_HOMES = {
    "open": "weighttools.verbs.api",
    "save": "weighttools.verbs.api",
    "convert": "weighttools.verbs.api",
    "inspect": "weighttools.verbs.api",
    "params": "weighttools.verbs.api",
    "stats": "weighttools.verbs.api",
    "get": "weighttools.verbs.api",
    "check": "weighttools.verbs.check",
    "estimate": "weighttools.verbs.diagnosis",
    "spectrum": "weighttools.verbs.diagnosis",
    "init_check": "weighttools.verbs.diagnosis",
    "list_formats": "weighttools.verbs.api",
    "average": "weighttools.verbs.edits",
    "clip": "weighttools.verbs.edits",
    "decay": "weighttools.verbs.decay",
    "init": "weighttools.verbs.edits",
    "masks": "weighttools.verbs.edits",
    "merge_adapter": "weighttools.verbs.edits",
    "noise": "weighttools.verbs.edits",
    "prune": "weighttools.verbs.edits",
    "scale": "weighttools.verbs.edits",
    "sizes": "weighttools.verbs.edits",
    "transform": "weighttools.transforms.naming",
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

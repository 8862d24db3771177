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
    from weighttools import train as train
    from weighttools.core.spec import Spec as Spec
    from weighttools.core.tensor import Tensor as Tensor
    from weighttools.core.tensormap import TensorMap as TensorMap
    from weighttools.errors import WeighttoolsError as WeighttoolsError
    from weighttools.transforms.naming import transform as transform
    from weighttools.verbs.average import average as average
    from weighttools.verbs.check import check as check
    from weighttools.verbs.clip import clip as clip
    from weighttools.verbs.convert import convert as convert
    from weighttools.verbs.decay import decay as decay
    from weighttools.verbs.diff import diff as diff
    from weighttools.verbs.estimate import estimate as estimate
    from weighttools.verbs.evaluate import evaluate as evaluate
    from weighttools.verbs.finetune import finetune as finetune
    from weighttools.verbs.formats import list_formats as list_formats
    from weighttools.verbs.generate import generate as generate
    from weighttools.verbs.get import get as get
    from weighttools.verbs.git import git_setup as git_setup
    from weighttools.verbs.hash import hash as hash
    from weighttools.verbs.init import init as init
    from weighttools.verbs.init_check import init_check as init_check
    from weighttools.verbs.inspect import inspect as inspect
    from weighttools.verbs.merge_adapter import merge_adapter as merge_adapter
    from weighttools.verbs.noise import noise as noise
    from weighttools.verbs.open import open as open
    from weighttools.verbs.params import params as params
    from weighttools.verbs.predict import predict as predict
    from weighttools.verbs.prune import masks as masks
    from weighttools.verbs.prune import prune as prune
    from weighttools.verbs.prune import sizes as sizes
    from weighttools.verbs.save import save as save
    from weighttools.verbs.scale import scale as scale
    from weighttools.verbs.spectrum import spectrum as spectrum
    from weighttools.verbs.stats import stats as stats
    from weighttools.verbs.trace import trace as trace
    from weighttools.verbs.verify import verify as verify

_HOMES = {
    "open": "weighttools.verbs.open",
    "save": "weighttools.verbs.save",
    "convert": "weighttools.verbs.convert",
    "inspect": "weighttools.verbs.inspect",
    "params": "weighttools.verbs.params",
    "stats": "weighttools.verbs.stats",
    "get": "weighttools.verbs.get",
    "check": "weighttools.verbs.check",
    "diff": "weighttools.verbs.diff",
    "git_setup": "weighttools.verbs.git",
    "hash": "weighttools.verbs.hash",
    "trace": "weighttools.verbs.trace",
    "verify": "weighttools.verbs.verify",
    "estimate": "weighttools.verbs.estimate",
    "spectrum": "weighttools.verbs.spectrum",
    "init_check": "weighttools.verbs.init_check",
    "list_formats": "weighttools.verbs.formats",
    "average": "weighttools.verbs.average",
    "clip": "weighttools.verbs.clip",
    "decay": "weighttools.verbs.decay",
    "init": "weighttools.verbs.init",
    "masks": "weighttools.verbs.prune",
    "merge_adapter": "weighttools.verbs.merge_adapter",
    "noise": "weighttools.verbs.noise",
    "prune": "weighttools.verbs.prune",
    "scale": "weighttools.verbs.scale",
    "sizes": "weighttools.verbs.prune",
    "generate": "weighttools.verbs.generate",
    "predict": "weighttools.verbs.predict",
    "finetune": "weighttools.verbs.finetune",
    "evaluate": "weighttools.verbs.evaluate",
    "transform": "weighttools.transforms.naming",
    "TensorMap": "weighttools.core.tensormap",
    "Tensor": "weighttools.core.tensor",
    "Spec": "weighttools.core.tensor",
    "WeighttoolsError": "weighttools.errors",
}

__all__ = [*_HOMES, "train", "__version__"]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562), so that ``import weighttools`` costs nothing."""
    from importlib import import_module

    if name == "train":
        return import_module("weighttools.train")
    if name not in _HOMES:
        import difflib

        near = difflib.get_close_matches(name, __all__, n=1) if not name.startswith("_") else []
        hint = f"; did you mean {near[0]}?" if near else ""
        raise AttributeError(f"module 'weighttools' has no attribute {name!r}{hint}")

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""The NumPy training core: a model is a function of ``{file's tensor name: array}``; there are no layer classes.

>>> import numpy as np
>>> from weighttools import train
>>> def model(p, x):
...     h = train.ops.relu(train.ops.linear(x, p["fc1.weight"], p["fc1.bias"]))
...     return train.ops.linear(h, p["fc2.weight"], p["fc2.bias"])
>>> def loss(p, x, y):
...     return train.losses.cross_entropy(model(p, x), target=y)
>>> shapes = {"fc1.weight": (8, 4), "fc1.bias": (8,), "fc2.weight": (3, 8), "fc2.bias": (3,)}
>>> draw = {2: train.init.he_normal(), 1: train.init.zeros()}
>>> p = {n: draw[len(s)].draw(s, seed=0, name=n) for n, s in shapes.items()}
>>> x, y = np.eye(4, dtype=np.float32), np.array([0, 1, 2, 0])
>>> optimizer = train.optim.adamw(lr=0.05).after(train.optim.ClipNorm(1.0))
>>> state = optimizer.init(p)
>>> before = loss(p, x, y)
>>> for _ in range(20):
...     value, grads = train.value_and_grad(loss, p, x, y)
...     notes = optimizer.step(p, grads, state)
>>> bool(loss(p, x, y) < before / 2)
True

On top is what a script begins with; `help` of each namespace has its table:

- A training: `fit`, `Result`, `Model`, `evaluate`, `predict`, `find_rate`, `History`, `gradual`.
- What is learnt: `Classification`, `Binary`, `Regression`, `LanguageModel`, `Pairs`, `Task`.
- A checkpoint's model, with a head: `model`, `Loaded`, `Classifier`, `Regressor`, `Embedder`, `companions`,
  `tensor_map`.
- Low-rank adapters, as PEFT's files have them: `lora`, `weights_of`, `save_lora`, `load_lora`, `merge_lora`,
  `adapter_of`.
- Text from a language model: `generate`, `write`.
- Looking closer: `value_and_grad`, `signal_report`.

- `ops`: operations on arrays and variables alike.
- `losses`: scalars with normalised weights, and class weights.
- `init`: initialisers.
- `optim`: optimisers, averages, groups of weights.
- `schedules`: of the learning rate.
- `data`: texts, tables, arrays.
- `models`: architectures by their files' names.
- `autograd`: the tape, operations of your own, `recompute`.

Training is in float32 (and exact in float64): read bfloat16 files as float32, or updates below their step vanish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weighttools.train import autograd as autograd
    from weighttools.train import data as data
    from weighttools.train import init as init
    from weighttools.train import losses as losses
    from weighttools.train import models as models
    from weighttools.train import ops as ops
    from weighttools.train import optim as optim
    from weighttools.train import schedules as schedules
    from weighttools.train.adapters.adapting import adapter_of as adapter_of
    from weighttools.train.adapters.adapting import load_lora as load_lora
    from weighttools.train.adapters.adapting import merge_lora as merge_lora
    from weighttools.train.adapters.adapting import save_lora as save_lora
    from weighttools.train.adapters.lora import lora as lora
    from weighttools.train.adapters.lora import weights_of as weights_of
    from weighttools.train.autograd.tape import value_and_grad as value_and_grad
    from weighttools.train.checkpoints.companions import companions as companions
    from weighttools.train.checkpoints.heads import Classifier as Classifier
    from weighttools.train.checkpoints.heads import Embedder as Embedder
    from weighttools.train.checkpoints.heads import Regressor as Regressor
    from weighttools.train.checkpoints.loading import Loaded as Loaded
    from weighttools.train.checkpoints.loading import model as model
    from weighttools.train.fitting.evaluation import evaluate as evaluate
    from weighttools.train.fitting.evaluation import predict as predict
    from weighttools.train.fitting.fit import Result as Result
    from weighttools.train.fitting.fit import fit as fit
    from weighttools.train.fitting.held import gradual as gradual
    from weighttools.train.fitting.history import History as History
    from weighttools.train.fitting.rates import find_rate as find_rate
    from weighttools.train.fitting.saving import tensor_map as tensor_map
    from weighttools.train.generation import generate as generate
    from weighttools.train.signal import signal_report as signal_report
    from weighttools.train.tasks.classification import Binary as Binary
    from weighttools.train.tasks.classification import Classification as Classification
    from weighttools.train.tasks.model import Model as Model
    from weighttools.train.tasks.regression import LanguageModel as LanguageModel
    from weighttools.train.tasks.regression import Pairs as Pairs
    from weighttools.train.tasks.regression import Regression as Regression
    from weighttools.train.tasks.task import Task as Task
    from weighttools.train.writing import write as write

_HOMES = {
    "adapter_of": "weighttools.train.adapters.adapting",
    "load_lora": "weighttools.train.adapters.adapting",
    "merge_lora": "weighttools.train.adapters.adapting",
    "save_lora": "weighttools.train.adapters.adapting",
    "lora": "weighttools.train.adapters.lora",
    "weights_of": "weighttools.train.adapters.lora",
    "value_and_grad": "weighttools.train.autograd.tape",
    "companions": "weighttools.train.checkpoints.companions",
    "Classifier": "weighttools.train.checkpoints.heads",
    "Embedder": "weighttools.train.checkpoints.heads",
    "Regressor": "weighttools.train.checkpoints.heads",
    "Loaded": "weighttools.train.checkpoints.loading",
    "model": "weighttools.train.checkpoints.loading",
    "evaluate": "weighttools.train.fitting.evaluation",
    "predict": "weighttools.train.fitting.evaluation",
    "Result": "weighttools.train.fitting.fit",
    "fit": "weighttools.train.fitting.fit",
    "gradual": "weighttools.train.fitting.held",
    "History": "weighttools.train.fitting.history",
    "Model": "weighttools.train.tasks.model",
    "find_rate": "weighttools.train.fitting.rates",
    "tensor_map": "weighttools.train.fitting.saving",
    "generate": "weighttools.train.generation",
    "signal_report": "weighttools.train.signal",
    "Binary": "weighttools.train.tasks.classification",
    "Classification": "weighttools.train.tasks.classification",
    "LanguageModel": "weighttools.train.tasks.regression",
    "Pairs": "weighttools.train.tasks.regression",
    "Regression": "weighttools.train.tasks.regression",
    "Task": "weighttools.train.tasks.task",
    "write": "weighttools.train.writing",
}
_NAMESPACES = ("ops", "losses", "init", "optim", "schedules", "data", "models", "autograd")
_MOVED = {
    "linear": "ops",
    "relu": "ops",
    "softmax": "ops",
    "mean": "ops",
    "cross_entropy": "losses",
    "mse": "losses",
    "class_weights": "losses",
    "he_normal": "init",
    "xavier_normal": "init",
    "normal": "init",
    "zeros": "init",
    "fans": "init",
    "Initializer": "init",
    "adamw": "optim",
    "sgd": "optim",
    "constant": "schedules",
    "warmup_linear": "schedules",
    "warmup_cosine": "schedules",
    "arrays": "data",
    "text": "data",
    "language": "data",
}
"""Names that README and the examples had on top, and the namespace that each is in now."""

__all__ = [*_HOMES, *_NAMESPACES]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562): a command that trains nothing loads nothing of this."""
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _NAMESPACES:
        return import_module(f"weighttools.train.{name}")
    if name in _MOVED:
        import warnings

        place = f"train.{_MOVED[name]}.{name}"
        warnings.warn(f"train.{name} is now {place}", DeprecationWarning, stacklevel=2)
        return getattr(import_module(f"weighttools.train.{_MOVED[name]}"), name)
    raise AttributeError(f"module 'weighttools.train' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

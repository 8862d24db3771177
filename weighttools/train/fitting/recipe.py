"""How to train: what `fit` was given, told in words that are the same in every process."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from weighttools.errors import SpecError, option
from weighttools.train.autograd.gradients import Array
from weighttools.train.fitting.held import Gradual
from weighttools.train.optim.averages import Average
from weighttools.train.optim.chains import Optimizer
from weighttools.train.optim.schedules import Plateau
from weighttools.train.tasks.task import shown


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """How to train: `fit` documents each option, and `weighttools.train.fitting.options` declares it.

    Raises
    ------
    SpecError
        An object is of another kind than the option takes.
    """

    epochs: int
    steps: int | None
    batch_size: int
    freeze: Sequence[str]
    only: Sequence[str]
    masks: Mapping[str, Any] | None
    prune: Gradual | None
    sampler: str
    clip_norm: float | None
    accumulate: int
    average: Average | None
    seed: int
    patience: int | None = None
    monitor: str | None = None
    keep: str | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        for name, (kind, expected) in _MADE.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise SpecError(f"{option(name)} {shown(value)}", subject="fit", expected=expected)

    def n_steps(self, n_batches: int | None) -> int | None:
        """Return the updates in all, for so many batches an epoch; None if that is not known."""
        if self.steps is not None or n_batches is None:
            return self.steps
        return self.epochs * -(-n_batches // self.accumulate)


_MADE: Mapping[str, tuple[type, str]] = {
    "average": (Average, "train.optim.ema(0.999) or train.optim.swa()"),
    "prune": (Gradual, "train.gradual(0.5)"),
    "freeze": (Iterable, "name patterns, as ['embeddings.*']"),
    "only": (Iterable, "name patterns, as ['head.*']"),
    "masks": (Mapping, "a mapping from names to booleans"),
}
"""Options that are objects, and how they are made."""


def words(value: Any) -> str:
    """Return a text that is the same for equal options in every process."""
    if isinstance(value, np.ndarray):
        return digest({"": value})
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        parts = ", ".join(f"{n}={words(getattr(value, n))}" for n in value.__dataclass_fields__)
        return f"{type(value).__name__}({parts})"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(words, value))}]"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def rate_words(lr: Any) -> str:
    """Tell a rate by its number, and a schedule by what it gives at some steps."""
    if isinstance(lr, Plateau):
        return words({k: v for k, v in asdict(lr).items() if k not in ("best", "n_bad", "n_cool")})
    if not callable(lr):
        return f"{lr:.12g}"
    steps = sorted({0, 1, 2, *(math.ceil(1.5**i) for i in range(1, 30))})
    return ", ".join(f"{float(lr(step)):.9g} at update {step + 1}" for step in steps)


def optimizer_words(optimizer: Optimizer) -> str:
    """Return an optimiser's stages and rates in one line, without its schedule."""
    stages = " > ".join(map(words, (*optimizer.chain, *optimizer.others)))
    return f"{stages}, weight decay {optimizer.weight_decay:g}, proximal L1 {optimizer.proximal_l1:g}"


def digest(arrays: Mapping[str, Any]) -> str:
    """Return a hash of names, dtypes, shapes and values, whatever the order."""
    import xxhash

    state = xxhash.xxh3_128()
    for name, value in sorted(arrays.items()):
        array: Array = np.ascontiguousarray(value)
        state.update(f"{name}\0{array.dtype.str}\0{np.shape(value)}\0".encode("utf-8", "surrogatepass"))
        state.update(array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()

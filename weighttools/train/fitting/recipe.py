"""How to train: the options of `fit`, checked, and told in words that are the same in every process."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.fitting.held import Gradual
from weighttools.train.optim.averages import Average
from weighttools.train.optim.chains import Optimizer
from weighttools.train.optim.schedules import Plateau
from weighttools.train.tasks.task import shown

if TYPE_CHECKING:
    from typing import Unpack


MOST = 2**31
"""All counts are below that."""


class Options(TypedDict, total=False):
    """The options of `fit` that a `Recipe` holds; see there."""

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
    patience: int | None
    monitor: str | None
    keep: str | None
    every: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """How to train.

    Parameters
    ----------
    epochs, steps
        Passes over the data; or updates, instead.
    batch_size, accumulate
        Samples a batch, and batches an update; the last update of an epoch may have fewer.
    freeze, only
        Name patterns of arrays that stay as they are, and of those to train.
    masks
        True where a weight is kept, by name; the others are held at zero. See ``weighttools prune --mask-out``. Those
        of arrays that do not learn are left out.
    prune
        `gradual` magnitude pruning, which must end with the last update or before. Epochs before its end are compared
        neither for `keep` nor for `patience`.
    sampler
        ``"shuffle"``: each sample once an epoch. ``"weighted"``: drawn in proportion to sample weight times class
        weight, which then are left out of the loss.
    clip_norm
        The largest joint 2-norm of the gradients.
    average
        `ema` (each update) or `swa` (each epoch of the last quarter): the weights to measure and to keep, zero where
        weights are held.
    seed
        Decides the split, the order and the dropout; the same seed gives the same bits.
    patience
        Stop after so many epochs without a better `monitor`.
    monitor
        ``"val_loss"``, or another figure of the record, such as ``"val_accuracy"``; ``"loss"`` without validation.
    keep
        ``"best"`` weights by the monitor (the default with validation), or the ``"last"``.
    every
        Updates between checkpoints, beside those after each epoch.

    Raises
    ------
    SpecError
        An option is out of range.
    """

    epochs: int = 1
    steps: int | None = None
    batch_size: int = 32
    freeze: Sequence[str] = ()
    only: Sequence[str] = ()
    masks: Mapping[str, Any] | None = None
    prune: Gradual | None = None
    sampler: str = "shuffle"
    clip_norm: float | None = None
    accumulate: int = 1
    average: Average | None = None
    seed: int = 0
    patience: int | None = None
    monitor: str | None = None
    keep: str | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "fit")
        if not isinstance(self.seed, (int, np.integer)) or self.seed < 0:
            raise SpecError(f"seed {self.seed!r}", subject="fit", expected="a whole number, 0 or more")
        if self.clip_norm is not None and not (isinstance(self.clip_norm, Real) and self.clip_norm > 0):
            raise SpecError(f"clip norm {self.clip_norm!r}", subject="fit", expected="a number above 0")
        for name, (kind, expected) in _MADE.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise SpecError(f"{name} {shown(value)}", subject="fit", expected=expected)
        for name, known in (("sampler", ("shuffle", "weighted")), ("keep", (None, "best", "last"))):
            if getattr(self, name) not in known:
                raise SpecError(f"{name} {getattr(self, name)!r}", subject="fit", expected=f"one of {known}")

    @classmethod
    def of(cls, **options: Unpack[Options]) -> Recipe:
        """Return the recipe with these options.

        Raises
        ------
        SpecError
            There is no such option, or one is out of range.
        """
        own = list(cls.__dataclass_fields__)
        unknown = next((name for name in options if name not in own), None)
        if unknown is not None:
            raise _unknown(unknown, (*own, *_BESIDE))
        return cls(**options)

    def n_steps(self, n_batches: int | None) -> int | None:
        """Return the updates in all, for so many batches an epoch; None if that is not known."""
        if self.steps is not None or n_batches is None:
            return self.steps
        return self.epochs * -(-n_batches // self.accumulate)


def check_counts(options: Any, subject: str | None = None) -> None:
    """Raise SpecError for a count, of a recipe or of what has its names, that no training could reach."""
    for name in ("epochs", "steps", "batch_size", "accumulate", "patience", "every"):
        value = getattr(options, name)
        if value is not None and not (isinstance(value, (int, np.integer)) and 1 <= value < MOST):
            expected = "a whole number, 1 or more, below 2**31"
            raise SpecError(f"{_said(name)} {value!r}", subject=subject, expected=expected)


_MADE: Mapping[str, tuple[type, str]] = {
    "average": (Average, "train.ema(0.999) or train.swa()"),
    "prune": (Gradual, "train.gradual(0.5)"),
    "freeze": (Iterable, "name patterns, as ['embeddings.*']"),
    "only": (Iterable, "name patterns, as ['head.*']"),
    "masks": (Mapping, "a mapping from names to booleans"),
}
"""Options that are objects, and how they are made."""
_BESIDE = ("task", "validation", "optimizer", "checkpoint", "resume", "log")
"""What `fit` takes beside a recipe."""


def _unknown(name: str, known: Sequence[str]) -> SpecError:
    """Return the error for an option that there is not, with near names."""
    import difflib

    near = difflib.get_close_matches(name, known)
    expected = None if near else f"one of {', '.join(known)}"
    remedy = f"near names: {', '.join(near)}" if near else None
    return SpecError(f"there is no option {name!r}", subject="fit", expected=expected, remedy=remedy)


def _said(name: str) -> str:
    """Return an option's name as words, which say the same to who calls `fit` and to who gives --batch-size."""
    return name.replace("_", " ")


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

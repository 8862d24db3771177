"""Heads: what turns a text's states into scores, under the names that Hugging Face's classes have for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.checkpoints.pooling import POOLINGS
from weighttools.train.ops import dropout, gelu, linear, normalize, relu, tanh
from weighttools.transforms.initializer_choice import initializer
from weighttools.transforms.initializers import Initializer


@dataclass(frozen=True, slots=True)
class Classifier:
    """A head that scores classes.

    Parameters
    ----------
    n_classes
        How many there are.
    init
        The initialiser of its weights, or its name; biases begin at 0.
    pooling
        ``"cls"``, ``"last"`` or ``"mean"``; None: what Hugging Face's class for the family does.
    names
        What the classes are called, in order.
    dropout
        The share of the pooled state that is dropped in training.
    seed
        With a tensor's name it determines the first values.
    """

    n_classes: int
    init: str | Initializer = "xavier_normal"
    pooling: str | None = None
    names: tuple[str, ...] = ()
    dropout: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_classes < 2 or (self.names and len(self.names) != self.n_classes):
            raise SpecError(
                f"{self.n_classes} classes with {len(self.names)} names",
                subject="head",
                expected="2 or more, named all",
            )
        _check(self)

    @property
    def n_outputs(self) -> int:
        """Scores a text."""
        return self.n_classes


@dataclass(frozen=True, slots=True)
class Regressor:
    """A head that predicts numbers; parameters as `Classifier`'s."""

    n_targets: int = 1
    init: str | Initializer = "xavier_normal"
    pooling: str | None = None
    dropout: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_targets < 1:
            raise SpecError(f"{self.n_targets} numbers to predict", subject="head", expected="1 or more")
        _check(self)

    @property
    def n_outputs(self) -> int:
        """Numbers a text."""
        return self.n_targets


@dataclass(frozen=True, slots=True)
class Embedder:
    """No weights: the pooled state itself, of length 1 if `normalized`, as sentence encoders give it."""

    pooling: str = "mean"
    normalized: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check(self)


Head = Classifier | Regressor | Embedder


def _check(head: Head) -> None:
    if head.pooling is not None and head.pooling not in POOLINGS:
        raise SpecError(f"pooling {head.pooling!r}", subject="head", expected=f"one of {', '.join(POOLINGS)}")
    if not 0 <= head.dropout < 1:
        raise SpecError(f"dropout {head.dropout:g}", subject="head", expected="0 or more, below 1")
    if not isinstance(head, Embedder) and isinstance(head.init, str):
        initializer(head.init)


@dataclass(frozen=True, slots=True)
class Form:
    """How a family's class for sequences is built: a pooled state, perhaps a dense layer, and the scores.

    Parameters
    ----------
    pooling
        As of `Classifier`.
    out
        The name of the last weighted sum.
    dense
        The name of the one before it, ``{}`` standing for the file's prefix; empty for none.
    activation
        What follows it.
    has_bias
        Whether the last weighted sum has a bias.
    """

    pooling: str
    out: str
    dense: str = ""
    activation: Callable[[Any], Any] = tanh
    has_bias: bool = True


_ROBERTA = Form("cls", "classifier.out_proj", "classifier.dense")
_DECODER = Form("last", "score", has_bias=False)
_POOLED = Form("mean", "classifier")

FORMS: Mapping[str, Form] = {
    "albert": Form("cls", "classifier", "{}pooler"),
    "bert": Form("cls", "classifier", "{}pooler.dense"),
    "camembert": _ROBERTA,
    "distilbert": Form("cls", "classifier", "pre_classifier", relu),
    "electra": Form("cls", "classifier.out_proj", "classifier.dense", gelu),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""By ``model_type``: ``…ForSequenceClassification`` of Hugging Face; decoders have `_DECODER`."""


def form_of(family: str, kind: str, pooling: str | None) -> Form:
    """Return the form of a family's head; with a `pooling` of one's own, the scores follow on it at once."""
    own = _DECODER if kind == "decoder" else FORMS.get(family, _POOLED)
    if pooling is None:
        return own
    return (
        own
        if kind == "decoder" and pooling == own.pooling
        else Form(pooling, own.out.partition(".")[0], "", tanh, own.has_bias)
    )


@dataclass(frozen=True, slots=True)
class HeadLayers:
    """A head fitted to a model.

    Parameters
    ----------
    form
        How it is built.
    prefix
        What the file puts before its names.
    dropout
        As of `Classifier`.
    is_normalized
        Of an `Embedder`: whether the state is brought to length 1.
    """

    form: Form
    prefix: str
    dropout: float = 0.0
    is_scored: bool = True
    is_normalized: bool = False
    dense: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dense", self.form.dense.format(self.prefix) if self.is_scored else "")

    def shapes(self, size: int, n_outputs: int) -> dict[str, tuple[int, ...]]:
        """Return the head's tensors and their shapes, for states of length `size`."""
        found: dict[str, tuple[int, ...]] = {}
        if self.dense:
            found |= {f"{self.dense}.weight": (size, size), f"{self.dense}.bias": (size,)}
        if self.is_scored:
            found[f"{self.form.out}.weight"] = (n_outputs, size)
        if self.is_scored and self.form.has_bias:
            found[f"{self.form.out}.bias"] = (n_outputs,)
        return found

    def __call__(self, p: Mapping[str, Any], x: Any, seed: Any = None) -> Any:
        """Return scores (n, n_outputs), or states (n, size), from pooled states (n, size)."""
        if self.dense:
            x = self.form.activation(linear(x, p[f"{self.dense}.weight"], p[f"{self.dense}.bias"]))
        if self.dropout and seed is not None:
            x = dropout(x, rate=self.dropout, seed=seed)
        if not self.is_scored:
            return normalize(x) if self.is_normalized else x
        return linear(x, p[f"{self.form.out}.weight"], p.get(f"{self.form.out}.bias"))


def drawn(head: Classifier | Regressor, name: str, shape: tuple[int, ...], layout: str = "torch") -> Array:
    """Return a new tensor of a head, float32: biases are 0, weights as its initialiser says, fans by the layout."""
    rule = initializer("zeros") if len(shape) < 2 else head.init
    chosen = initializer(rule) if isinstance(rule, str) else rule
    return chosen.draw(shape, seed=head.seed, name=name, layout=layout)

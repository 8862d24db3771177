"""A part of a model: its arrays by the names that the part gives them, and the layers that most models are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighttools.errors import SpecError, TensorNotFoundError
from weighttools.train.autograd import recomputation
from weighttools.train.ops import embedding, layer_norm, linear, rms_norm, transpose

_CUT = "cut texts to the positions that the model has (max_length), or let fewer tokens follow (max_new_tokens)"
_BEYOND = {
    "position_embeddings": _CUT,
    "wpe": _CUT,
    "token_type_embeddings": "this model tells fewer parts of a text apart",
}
"""What helps where a table has fewer rows than are asked for."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The arrays whose names begin with `prefix`; every one is asked for by the rest of its name."""

    p: Mapping[str, Any]
    prefix: str = ""

    def __getitem__(self, name: str) -> Any:
        try:
            return self.p[self.prefix + name]
        except KeyError:
            raise TensorNotFoundError(
                "the model needs this tensor", subject=self.prefix + name, remedy="compare names with `.report(names)`"
            ) from None

    def __contains__(self, name: object) -> bool:
        return f"{self.prefix}{name}" in self.p

    def get(self, name: str) -> Any:
        """Return an array, or None where there is none."""
        return self.p.get(self.prefix + name)

    def inside(self, name: str) -> Scope:
        """Return the part `name` of this part."""
        return Scope(self.p, f"{self.prefix}{name}.")

    def only(self, name: str) -> dict[str, Any]:
        """Return the arrays of the part `name`, by their full names: what a recomputed layer is given."""
        start = f"{self.prefix}{name}."
        return {key: array for key, array in self.p.items() if key.startswith(start)}

    def dense(self, x: Any, name: str, *, transposed: bool = False) -> Any:
        """Return the weighted sum; the bias is used where there is one. A `transposed` weight is (n_in, n_out)."""
        w = self[f"{name}.weight"]
        return linear(x, transpose(w) if transposed else w, self.get(f"{name}.bias"))

    def table(self, name: str, ids: Any) -> Any:
        """Return the rows of a table that `ids` name."""
        try:
            return embedding(self[f"{name}.weight"], ids=np.atleast_1d(ids))
        except SpecError as error:
            error.remedy = error.remedy or _BEYOND.get(name, "are the tokens of the model's own tokenizer?")
            raise error.about(f"{self.prefix}{name}.weight") from None

    def plus(self, x: Any, y: Any, name: str) -> Any:
        """Return ``x + y``, where the tensor `name` gave `y`; both of one width."""
        self._check_width(x, y, name)
        return x + y

    def times(self, x: Any, y: Any, name: str) -> Any:
        """Return ``x * y``, where the tensor `name` gave `y`; both of one width."""
        self._check_width(x, y, name)
        return x * y

    def _check_width(self, x: Any, y: Any, name: str) -> None:
        """Raise SpecError where the widths differ: one of 1 would be repeated without a word."""
        if x.shape[-1] != y.shape[-1]:
            fact = f"gives states of {y.shape[-1]:,}, which meet states of {x.shape[-1]:,}"
            raise SpecError(fact, subject=f"{self.prefix}{name}.weight", expected="one width")

    def layer_norm(self, x: Any, name: str, eps: float) -> Any:
        """Return `x` normalised, scaled and shifted."""
        return layer_norm(x, self[f"{name}.weight"], self[f"{name}.bias"], eps=eps)

    def rms_norm(self, x: Any, name: str, eps: float, shift: float = 0) -> Any:
        """Return `x` over its root mean square, times the weight, to which Gemma adds a `shift` of 1."""
        w = self[f"{name}.weight"]
        return rms_norm(x, w + shift if shift else w, eps=eps)


def stacked(step: Any, root: Scope, x: Any, places: Iterable[str], recompute: bool) -> Any:
    """Return ``x`` after ``step(layer, x, i)`` for the layers at `places`, as scopes, one after another.

    With `recompute` a layer's activations are dropped and made again on the way back (gradient checkpointing).
    """
    for i, place in enumerate(places):
        if recompute:
            x = recomputation.recompute(_alone(step, f"{root.prefix}{place}.", i), root.only(place), x)
        else:
            x = step(root.inside(place), x, i)
    return x


def _alone(step: Any, prefix: str, i: int) -> Any:
    return lambda p, x: step(Scope(p, prefix), x, i)

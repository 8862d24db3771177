"""Choosing an initialiser by name and options, as commands and configurations give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import SpecError, option
from weighttools.transforms.editing import whole
from weighttools.transforms.initializers import INITIALIZERS, Initializer, gain, initialized

_GAINED = frozenset({"xavier_normal", "xavier_uniform", "he_normal", "he_uniform", "orthogonal"})
_LAID_OUT = _GAINED | {"lecun_normal", "lecun_uniform"}
_SPREAD = {"normal": "std", "truncated_normal": "std", "uniform": "bound"}


def initializer(
    method: str,
    *,
    activation: str | None = None,
    layout: str = "torch",
    std: float | None = None,
    value: float | None = None,
) -> Initializer:
    """Return the initialiser called `method`.

    Raises
    ------
    SpecError
        Nothing has that name, an option is not one that it takes, or one that it needs is missing.
    """
    if method not in INITIALIZERS:
        raise SpecError(f"no initialiser is called {method!r}", expected=f"one of {', '.join(INITIALIZERS)}")
    options: dict[str, Any] = {"layout": layout} if method in _LAID_OUT else {}
    for name, given, takes in (("activation", activation, _GAINED), ("std", std, _SPREAD)):
        if given is not None and method not in takes:
            raise SpecError(f"{method} takes no {option(name)}", expected=f"{', '.join(sorted(takes))}")
    if activation is not None:
        options["gain"] = gain(activation)
    if std is not None:
        options[_SPREAD[method]] = std
    if (value is not None) != (method == "constant") or (method == "uniform" and std is None):
        of_value, of_std = option("value"), option("std")
        raise SpecError(
            f"{method} with {of_value} {value}, {of_std} {std}",
            expected=f"{of_value} for constant, {of_std} for uniform",
        )
    return INITIALIZERS[method](**options, **({"value": value} if method == "constant" else {}))


def draw_anew(names: Sequence[str], method: str, rule: Initializer, seed: int, says: Mapping[str, Any]) -> Transform:
    """Return a transform that draws tensors anew, and says so in the metadata entry ``weighttools.init``.

    Parameters
    ----------
    names
        Tensors to draw.
    method, rule
        An initialiser's name, and itself.
    seed
        An integer of 0 or more; with a tensor's name it determines its values.
    says
        What the report says of the selection.
    """
    seed, chosen = whole(option("seed"), seed), frozenset(names)
    report = {"transform": "init", "method": method, "seed": seed, **says, "names": list(names)}

    def transform(tensor_map: TensorMap) -> TensorMap:
        drawn = initialized(tensor_map, lambda name, spec: rule if name in chosen else None, seed=seed)
        said = {**drawn.metadata, "weighttools.init": f"{method}, seed {seed}, {len(names)} tensors"}
        return drawn.replace(metadata=said).reported(report)

    return transform

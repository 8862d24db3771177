"""Choosing an initialiser by name and options, as commands and configurations give them."""

from __future__ import annotations

from typing import Any

from weighttools.errors import SpecError
from weighttools.transforms.initializers import INITIALIZERS, Initializer, gain

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
    for option, given, takes in (("--activation", activation, _GAINED), ("--std", std, _SPREAD)):
        if given is not None and method not in takes:
            raise SpecError(f"{method} takes no {option}", expected=f"{', '.join(sorted(takes))}")
    if activation is not None:
        options["gain"] = gain(activation)
    if std is not None:
        options[_SPREAD[method]] = std
    if (value is not None) != (method == "constant") or (method == "uniform" and std is None):
        raise SpecError(
            f"{method} with --value {value}, --std {std}", expected="--value for constant, --std for uniform"
        )
    return INITIALIZERS[method](**options, **({"value": value} if method == "constant" else {}))

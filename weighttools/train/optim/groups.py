"""Which parameters decay, and at what rate each learns: rules by name and shape, and a way to print them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from weighttools.errors import counted, few
from weighttools.families import parameters
from weighttools.families.role_types import Role
from weighttools.train.autograd.gradients import Array

Rule = Callable[[str, Array], bool]

_LAYER = re.compile(r"(?:^|[._/])(?:layers?|h|blocks?|blk|transformer)[._/](\d+)[._/]")


def decays(name: str, array: Array) -> bool:
    """Whether weight decay applies: not to norms, biases and embeddings by name, nor to anything with one axis.

    As `weighttools.families` tells them, which ``weighttools decay`` asks too.

    >>> import numpy as np
    >>> [decays(n, np.zeros((2, 2))) for n in ("fc.weight", "h.0.ln_1.weight", "wte.weight", "experts.bias")]
    [True, False, False, False]
    """
    return parameters.decays(name, array.shape)


def is_hidden_matrix(name: str, array: Array) -> bool:
    """Whether a parameter is a matrix between hidden layers: neither an embedding nor an output head."""
    return array.ndim == 2 and parameters.parameter(name, array.shape).role is Role.WEIGHT


def layerwise(names: Iterable[str], decay: float = 0.9) -> dict[str, float]:
    """Return each parameter's share of the learning rate: ``decay ** (layers above it)``.

    Embeddings lie below layer 0; what has no layer number (heads, final norms) gets the full rate.

    >>> layerwise(["embeddings.word.weight", "layer.0.fc.weight", "layer.1.fc.weight", "head.weight"], 0.5)
    {'embeddings.word.weight': 0.125, 'layer.0.fc.weight': 0.25, 'layer.1.fc.weight': 0.5, 'head.weight': 1.0}
    """
    known = list(names)
    numbers = {n: int(m[1]) for n in known if (m := _LAYER.search(n))}
    top = max(numbers.values(), default=-1) + 1
    depths = {n: numbers.get(n, -1 if parameters.BELOW.search(n) else top) for n in known}
    return {n: float(decay ** (top - depth)) for n, depth in depths.items()}


def describe(params: Mapping[str, Array], held_small: str, rule: Rule, rates: Mapping[str, float]) -> str:
    """Return the groups as lines to print before training: decay, learning-rate share, counts, examples.

    Parameters
    ----------
    held_small
        What is done to the parameters that `rule` names, in words: ``"decay 0.01, L1 0.001"``.
    rates
        Each parameter's share of the learning rate; 1 where it is not named.
    """
    groups: dict[tuple[str, float], list[str]] = {}
    for name, array in params.items():
        key = (held_small if rule(name, array) else "decay 0", rates.get(name, 1.0))
        groups.setdefault(key, []).append(name)
    lines = []
    for (words, rate), names in groups.items():
        n = sum(params[name].size for name in names)
        count = f"{counted(len(names), 'tensor')}, {counted(n, 'parameter')}"
        lines.append(f"{words}, rate x {rate:g}: {count} ({few(names, 3)})")
    return "\n".join(lines)

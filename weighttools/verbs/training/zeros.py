"""Zeros of a pruned checkpoint: training fills them in, unless they are held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from weighttools.errors import SpecError, counted, few, option
from weighttools.train.autograd.gradients import Array

_MANY = 0.1
"""A trained matrix with this share of zeros was pruned; what training leaves, or a ReLU's dead unit, has fewer."""


def shares(params: Mapping[str, Array], names: Iterable[str]) -> dict[str, float]:
    """Return the share of zeros of each matrix among `names` that has many."""
    matrices = {name: params[name] for name in names if params[name].ndim > 1 and params[name].size}
    found = {name: 1 - np.count_nonzero(p) / p.size for name, p in matrices.items()}
    return {name: share for name, share in found.items() if share >= _MANY}


def told(params: Mapping[str, Array], names: Iterable[str]) -> list[str]:
    """Return the line that says that zeros will not last, if there are many."""
    found = shares(params, names)
    if not found:
        return []
    named = few([f"{name} {share:.1%}" for name, share in found.items()], 3)
    where = counted(len(found), "tensor")
    holds = f"{option('hold_zeros')} or {option('masks')}"
    return [f"many zeros in {where} ({named}): training fills them in, unless {holds} holds them"]


def masks(params: Mapping[str, Array], names: Iterable[str]) -> dict[str, Array]:
    """Return the masks that hold the zeros of matrices among `names`.

    Raises
    ------
    SpecError
        There are none to hold.
    """
    found = {name: params[name] != 0 for name in shares(params, names)}
    if not found:
        raise SpecError(
            f"no trained matrix has {_MANY:.0%} of zeros or more", subject=option("hold_zeros"), remedy="leave it out"
        )
    return found

"""Derivatives: what a function of arrays does is recorded on a tape, and played back.

- Gradients: `value_and_grad`
- An operation of your own: `operation`, `Variable`
- Less memory, more time: `recompute`
"""

from __future__ import annotations

from weighttools.train.autograd.recomputation import recompute as recompute
from weighttools.train.autograd.tape import value_and_grad as value_and_grad
from weighttools.train.autograd.variable import Variable as Variable
from weighttools.train.autograd.variable import operation as operation

__all__ = [
    "Variable",
    "operation",
    "recompute",
    "value_and_grad",
]


def __dir__() -> list[str]:
    return sorted(__all__)

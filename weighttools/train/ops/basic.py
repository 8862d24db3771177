"""Exponentials, logarithms and joining, beside the operations behind a variable's operators."""

from __future__ import annotations

import numpy as np

from weighttools.train.autograd.arithmetic import Result
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.variable import operation


@operation
def exp(x: Array, /) -> Result:
    """Return e to the power of x."""
    y = np.exp(x)
    return y, lambda dy, need: (dy * y,)


@operation
def log(x: Array, /) -> Result:
    """Return the natural logarithm."""
    return np.log(x), lambda dy, need: (dy / x,)


@operation
def sqrt(x: Array, /) -> Result:
    """Return the square root."""
    y = np.sqrt(x)
    return y, lambda dy, need: (dy / (2 * y),)


@operation
def concat(*arrays: Array, axis: int = 0) -> Result:
    """Return the arrays laid end to end along `axis`."""
    ends = np.cumsum([a.shape[axis] for a in arrays])[:-1]
    return np.concatenate(arrays, axis), lambda dy, need: np.split(dy, ends, axis)

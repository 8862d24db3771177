"""Sums over gradients and parameters: their norm and root mean square, the same on any number of threads."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from weighttools.train.autograd.gradients import Array
from weighttools.train.parallel import BLOCK, blocks, spread, threads_for

PIECES = 32
"""Dot products of a block each that are worth a thread."""


def global_norm(grads: Mapping[str, Array]) -> float:
    """Return the 2-norm of all gradients together."""
    return math.sqrt(_sum_of_squares(*grads.values()))


def _sum_of_squares(*arrays: Array) -> float:
    """Return the sum, in float64 and in order, of BLAS dot products over pieces."""
    pieces = [(flat, i) for flat in (a.reshape(-1) for a in arrays) for i in range(0, flat.size, BLOCK)]
    sums = np.zeros(len(pieces))

    def kernel(first: int, last: int) -> None:
        for k in range(first, last):
            flat, i = pieces[k]
            sums[k] = np.dot(flat[i : i + BLOCK], flat[i : i + BLOCK])

    with threads_for(arrays):
        spread(kernel, blocks(len(pieces), target=PIECES))
    return float(sum(sums.tolist()))


def rms(x: Array) -> float:
    """Return the root of the mean square of an array's elements."""
    return math.sqrt(_sum_of_squares(x) / max(1, x.size))

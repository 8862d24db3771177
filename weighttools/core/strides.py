"""How far apart elements lie along each axis, counted in elements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


def c_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in elements, of an array in C order.

    >>> c_strides((2, 3, 4))
    (12, 4, 1)
    """
    tail = itertools.accumulate(reversed(shape[1:]), lambda a, b: a * b, initial=1)
    return tuple(reversed(list(tail))) if shape else ()


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements `strides` apart lie in C order with no gap; axes of length 1 do not matter."""
    if math.prod(shape) == 0:
        return True
    return all(n == 1 or s == c for n, s, c in zip(shape, strides, c_strides(shape), strict=True))

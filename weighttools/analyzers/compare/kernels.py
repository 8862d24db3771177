"""The state of a block of a pair: in float32 where that is exact enough, else in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from weighttools.analyzers.compare.exact import count_beyond, equal_state, exact_state
from weighttools.analyzers.compare.quick import count_unequal, is_narrow, quick_state
from weighttools.analyzers.compare.state import PairState
from weighttools.analyzers.kernels import careful
from weighttools.core.fold import Blocks
from weighttools.core.scratch import Scratch

if TYPE_CHECKING:
    from weighttools.analyzers.compare.figures import PairStateOf
    from weighttools.core.spec import Array


def state(blocks: Blocks, means: PairStateOf) -> PairState:
    """Return the state of a block; see `PairFigures` for what it tells."""
    (before, after), start, scratch = blocks
    is_large, is_compiled = before.size > careful.SMALL, False
    if is_large and means.kernel == "numba" and {before.dtype.name, after.dtype.name} <= careful.FAST_DTYPES:
        found, is_compiled = _compiled(before, after, start), True
        if found is not None:
            return _with_beyond(found, before, after, means)
    n_bits = count_bits(before, after, scratch) if before.dtype == after.dtype else None
    if is_large and not is_compiled and is_narrow(before.dtype) and is_narrow(after.dtype):
        found = quick_state(before, after, start, n_bits, scratch)
        if found is not None:
            return _with_beyond(found, before, after, means)
    if n_bits == 0:
        return equal_state(after, start)
    return exact_state(before, after, start, means.rtol, means.atol)._replace(n_bits=n_bits)


def _compiled(before: Array, after: Array, start: int) -> PairState | None:
    from weighttools.analyzers.compare.compiled import compiled_state

    return compiled_state(before, after, start)


def _with_beyond(found: PairState, before: Array, after: Array, means: PairStateOf) -> PairState:
    """Count the differences that tolerances do not cover, unless the greatest tells that there are none."""
    if not (means.rtol or means.atol):
        return found
    is_near = found.max_abs is not None and found.max_abs <= means.atol
    return found._replace(n_beyond=0 if is_near else count_beyond(before, after, means.rtol, means.atol))


def count_bits(before: Array, after: Array, scratch: Scratch) -> int:
    """Count the elements whose bits differ, of two arrays of one dtype."""
    a, b = _patterns(before), _patterns(after)
    if a.ndim > 1:
        return int(np.count_nonzero((a != b).any(axis=1)))
    return count_unequal(a, b, scratch)


def _patterns(values: Array) -> Array:
    """Return the elements' bits as unsigned integers; of 16 bytes as rows of two."""
    if values.dtype.itemsize == 16:
        return values.view(np.uint64).reshape(-1, 2)
    return values.view(f"u{values.dtype.itemsize}")

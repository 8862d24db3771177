"""A run's checkpoints, one after the other: norms, the sizes of updates, their directions, zeros, the first NaN.

Each checkpoint is read once, in memory of two blocks for each thread, however many there are.

Of the weights w_t of checkpoint t, in float64: the norm ||w_t||; the update d_t = w_t - w_{t-1} by its relative size
||d_t|| / ||w_{t-1}||; and the cosine <d_t, d_{t-1}> / (||d_t|| ||d_{t-1}||), which is near 1 while updates go one way,
and below 0 where they go back and forth. Elements that are NaN or infinite are counted, and left out of the sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighttools.analyzers.kernels import careful
from weighttools.core.fold import BlocksInTurn, Fold, fold_blocks
from weighttools.core.tensor import Tensor
from weighttools.formats.base import plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from weighttools.core.spec import Array


class TraceState(NamedTuple):
    """Sums over some elements, an entry for each checkpoint.

    Parameters
    ----------
    n_elements
        How many.
    squares, updates, products
        Sums of w_t**2, d_t**2 and d_t * d_{t-1}; the first one or two entries of the latter are 0.
    n_changed
        Elements whose values are not those of the checkpoint before.
    n_zero, n_not_finite
        Zeros; NaN and infinite elements.
    first
        The position of the first element that is not finite, or `NOWHERE`.
    """

    n_elements: int
    squares: Array
    updates: Array
    products: Array
    n_changed: Array
    n_zero: Array
    n_not_finite: Array
    first: Array

    def merge(self, other: TraceState) -> TraceState:
        """Return the sums of both parts."""
        return TraceState(
            self.n_elements + other.n_elements,
            self.squares + other.squares,
            self.updates + other.updates,
            self.products + other.products,
            self.n_changed + other.n_changed,
            self.n_zero + other.n_zero,
            self.n_not_finite + other.n_not_finite,
            np.minimum(self.first, other.first),
        )


NOWHERE = np.iinfo(np.int64).max


def none(n: int) -> TraceState:
    """Return the state of no elements of `n` checkpoints."""
    a, b, c = np.zeros((3, n))
    i, j, k = np.zeros((3, n), np.int64)
    return TraceState(0, a, b, c, i, j, k, np.full(n, NOWHERE))


def state_of(blocks: BlocksInTurn) -> TraceState:
    """Return the state of a block of every checkpoint."""
    columns: list[_Column] = []
    last = _Last()
    n = 0
    for values in blocks.values:
        column, last = _column(values, last, blocks.start)
        columns.append(column)
        n = values.size
    squares, updates, products, n_changed, n_zero, n_bad, first = zip(*columns, strict=True)
    counts = (np.array(one, np.int64) for one in (n_changed, n_zero, n_bad, first))
    return TraceState(n, np.array(squares), np.array(updates), np.array(products), *counts)


_Column = tuple[float, float, float, int, int, int, int]


class _Last(NamedTuple):
    """The block of the checkpoint before: as it is, widened, and its update."""

    values: Array | None = None
    wide: Array | None = None
    update: Array | None = None


def _dot(a: Array, b: Array) -> float:
    return float(np.add.reduce((a * np.conj(b)).real))


def _column(values: Array, last: _Last, start: int) -> tuple[_Column, _Last]:
    """Return the sums of one checkpoint's block, and what the next one needs of it."""
    wide = careful.widened(values)
    finite = np.isfinite(wide)
    is_whole = bool(finite.all())
    kept = wide if is_whole else np.where(finite, wide, 0.0)
    first = NOWHERE if is_whole else start + int(np.argmin(finite))
    n_bad = 0 if is_whole else wide.size - int(np.count_nonzero(finite))
    update, updates, products, n_changed = None, 0.0, 0.0, 0
    if last.values is not None and last.wide is not None:
        n_changed = int(np.count_nonzero((values != last.values) & ~(np.isnan(wide) & np.isnan(last.wide))))
        update = wide - last.wide
        update[~np.isfinite(update)] = 0.0
        updates = _dot(update, update)
        products = _dot(update, last.update) if last.update is not None else 0.0
    n_zero = wide.size - int(np.count_nonzero(wide))
    return (_dot(kept, kept), updates, products, n_changed, n_zero, n_bad, first), _Last(values, wide, update)


def trace_tensors(
    series: Iterable[Sequence[Tensor]],
    executor: Executor | None = None,
    window: int = 4,
    progress: Callable[[int], None] | None = None,
) -> Iterator[TraceState]:
    """Yield the state of each series: one tensor in every checkpoint, in order.

    Parameters
    ----------
    series
        Of tensors of one shape; dtypes may differ.
    executor, window, progress
        As for `weighttools.core.fold.fold_blocks`.
    """
    folds = (Fold(tuple(tensors), state_of, takes_turns=True) for tensors in series)
    return fold_blocks(folds, TraceState.merge, executor=executor, window=window, progress=progress)


def together(states: Sequence[TraceState], n: int) -> TraceState:
    """Return the state of several tensors; positions, which belong to one, are left out."""
    found = reduce(TraceState.merge, states, none(n))
    return found if len(states) == 1 else found._replace(first=np.full(n, NOWHERE))


def figures(state: TraceState, steps: Sequence[int]) -> dict[str, Any]:
    """Return the figures of a row: a list with an entry for each checkpoint, null where there is none.

    Parameters
    ----------
    state
        The sums.
    steps
        The checkpoints' steps.
    """
    norms = [math.sqrt(value) for value in state.squares]
    sizes = [math.sqrt(value) for value in state.updates]
    updates = [None, *(_by(size, norm) for size, norm in zip(sizes[1:], norms, strict=False))]
    pairs = zip(state.products[2:], sizes[2:], sizes[1:], strict=False)
    cosines = [None, None, *(_cosine(float(product), a * b) for product, a, b in pairs)][: len(norms)]
    known = [one for one in cosines if one is not None]
    return {
        "n_elements": state.n_elements,
        "norm": [plain(one) for one in norms],
        "update": [plain(one) for one in updates],
        "cosine": cosines,
        "sparsity": [_by(float(one), state.n_elements) for one in state.n_zero],
        "n_not_finite": [int(one) for one in state.n_not_finite],
        "norm_last": plain(norms[-1]),
        "update_last": plain(updates[-1]),
        "cosine_mean": sum(known) / len(known) if known else None,
        "sparsity_last": _by(float(state.n_zero[-1]), state.n_elements),
        "unchanged_since": _unchanged_since(state, steps),
        "first_not_finite": _first(state, steps),
    }


def figures_of(states: Mapping[str, TraceState], steps: Sequence[int]) -> dict[str, Any]:
    """Return the figures of a row of several tensors, by their names; the first NaN or Inf tells whose it is."""
    joined = together(list(states.values()), len(steps))
    found = ((name, _first(state, steps)) for name, state in states.items())
    firsts = [{"tensor": name, **first} for name, first in found if first]
    first = min(firsts, key=lambda one: one["step"], default=None)
    return {"n_tensors": len(states), **figures(joined, steps), "first_not_finite": first}


COLUMNS = ("n_elements", "norm_last", "update_last", "cosine_mean", "sparsity_last", "unchanged_since")
"""Figures that rows are sorted and chosen by."""


def _by(value: float, whole: float) -> float | None:
    return value / whole if whole else None


def _cosine(product: float, sizes: float) -> float | None:
    return max(-1.0, min(1.0, product / sizes)) if sizes and math.isfinite(sizes) else None


def _unchanged_since(state: TraceState, steps: Sequence[int]) -> int | None:
    """Return the step since which no element changed; None where the last update changed some."""
    changed = np.flatnonzero(state.n_changed)
    last = int(changed[-1]) if changed.size else 0
    return steps[last] if last < len(steps) - 1 else None


def _first(state: TraceState, steps: Sequence[int]) -> dict[str, Any] | None:
    """Return at which step an element first is not finite, and where."""
    bad = np.flatnonzero(state.n_not_finite)
    if not bad.size:
        return None
    at = int(state.first[bad[0]])
    return {"step": steps[int(bad[0])], "at": None if at == NOWHERE else at}

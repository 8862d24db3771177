"""Statistics over tensors: any of them together, in one pass, by the fold of `weighttools.core.fold`.

A statistic is three functions. `of` makes a state of one block; a state's `merge` joins it with the state of the
elements that follow; its `finish` gives the figures. Tensors are cut into pieces, and pieces into blocks, at places
that depend on nothing but the tensor, and states are merged in order, so the figures are the same to the last bit
however many threads or processes compute them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np

from weighttools.analyzers.kernels import blocked, careful
from weighttools.analyzers.kernels.summary import Summary
from weighttools.core.fold import PIECE_ELEMENTS, Blocks, BlockSizes, Fold, fold_blocks
from weighttools.core.scratch import Scratch
from weighttools.core.spec import Spec
from weighttools.core.tensor import BLOCK_ELEMENTS, Tensor
from weighttools.families.axes import TORCH, Axes
from weighttools.io.progress import Progress, silent

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from weighttools.core.spec import Array

Record = dict[str, Any]


class StatisticState(Protocol):
    """What a statistic knows of some elements; it pickles.

    Where a figure holds for one tensor only (a place, a row, a channel), a state has a method ``apart()`` too: it
    returns what of the state can be merged with that of another tensor.
    """

    def merge(self, other: Self) -> Self:
        """Return the state of both parts together."""

    def finish(self, spec: Spec | None = None) -> Record:
        """Return the figures; without a spec, those that make sense of several tensors together."""


Statistic = Callable[["Block"], StatisticState]
"""Makes a state of a block: a function of a module or a frozen object, so that it pickles."""


class FoldOptions(NamedTuple):
    """How blocks are computed.

    Parameters
    ----------
    kernel
        ``"numpy"`` or ``"numba"``.
    eps
        Magnitudes up to this are near zero.
    block_elements, piece_elements
        How tensors are cut.
    """

    kernel: str = "numpy"
    eps: float = 0.0
    block_elements: int = BLOCK_ELEMENTS
    piece_elements: int = PIECE_ELEMENTS


class Block:
    """A run of a tensor's elements, and what several statistics want to know of it, computed once.

    Parameters
    ----------
    values
        Flat, in the tensor's own dtype; never changed, and valid only while the block is at work.
    start
        The position of the first in the tensor.
    spec
        The tensor's.
    recipe, scratch
        How to compute, and memory for it.
    axes
        Where the tensor's outputs and inputs lie.
    """

    def __init__(
        self, values: Array, start: int, spec: Spec, recipe: FoldOptions, scratch: Scratch, axes: Axes = TORCH
    ) -> None:
        self.values, self.start, self.spec, self.axes = values, start, spec, axes
        self._recipe, self._scratch = recipe, scratch

    @cached_property
    def counts(self) -> Array:
        """How often each bit pattern occurs (int64), for elements stored in one or two bytes."""
        from weighttools.analyzers.kernels import patterns

        return patterns.counts(self.values)

    @cached_property
    def summary(self) -> Summary:
        """Moments, extremes and zeros, by the quickest way that is exact enough."""
        if self.values.dtype.itemsize == 1 or "counts" in self.__dict__:
            from weighttools.analyzers.kernels import patterns

            return patterns.summary(self.counts, self.values, self.start, self._recipe.eps)
        kernel = blocked.sums if self._recipe.kernel == "numpy" else _compiled()
        return careful.or_fast(kernel, self.values, self.start, self._recipe.eps, self._scratch)

    def room(self, name: str) -> Array:
        """Return float64 memory for as many elements, by a name: it is the block's, with whatever it holds."""
        return self._scratch.get(f"room {name}", np.float64, self.values.size)

    def chunks(self) -> Iterator[Array]:
        """Yield the values as float64, a few at a time; complex numbers as magnitudes."""
        return careful.chunks(self.values)


class FoldTask(NamedTuple):
    """A tensor, what to compute of it, and where its outputs and inputs lie."""

    tensor: Tensor
    statistics: Sequence[Statistic]
    axes: Axes = TORCH


@dataclass(frozen=True, slots=True)
class _Together:
    """Makes the states of a task's statistics of one block."""

    task: FoldTask
    recipe: FoldOptions

    def __call__(self, blocks: Blocks) -> list[StatisticState]:
        [values], start, scratch = blocks
        block = Block(values, start, self.task.tensor.spec, self.recipe, scratch, self.task.axes)
        return [of(block) for of in self.task.statistics]


def fold(
    tensors: Iterable[Tensor],
    statistics: Sequence[Statistic],
    recipe: FoldOptions | None = None,
    executor: Executor | None = None,
    window: int = 4,
    progress: Progress = silent,
) -> Iterator[list[Any]]:
    """Yield, for each tensor in order, the state of each statistic over all its elements.

    Parameters
    ----------
    tensors
        Taken as they are needed; each is read once, whatever the number of statistics.
    statistics
        Computed together.
    recipe, executor, window, progress
        As for `fold_tasks`.
    """
    return fold_tasks((FoldTask(tensor, statistics) for tensor in tensors), recipe, executor, window, progress)


def fold_tasks(
    tasks: Iterable[FoldTask],
    recipe: FoldOptions | None = None,
    executor: Executor | None = None,
    window: int = 4,
    progress: Progress = silent,
    batch: int = 256,
) -> Iterator[list[Any]]:
    """Yield, for each task in order, the state of each of its statistics over all its tensor's elements.

    Parameters
    ----------
    tasks
        Taken as they are needed.
    recipe
        How; the default is the NumPy kernel.
    executor
        Threads or processes to compute in; None computes here.
    window
        How many jobs may be under way: this bounds memory.
    progress
        Called with the number of stored bytes just done.
    batch
        How many small tensors may go into one job: with `window`, this bounds the states that wait.

    Raises
    ------
    CorruptFileError
        What was read is not what its archive's CRC-32 tells.
    """
    how = recipe or FoldOptions()
    sizes = BlockSizes(how.block_elements, how.piece_elements)
    folds = (Fold((task.tensor,), _Together(task, how)) for task in tasks)
    return fold_blocks(folds, _merged, sizes, executor, window, progress, batch)


def merged(parts: Iterable[Sequence[Any]]) -> list[Any]:
    """Merge, statistic by statistic, the states of parts that follow one another."""
    return reduce(_merged, map(list, parts))


def _merged(a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
    return [left.merge(right) for left, right in zip(a, b, strict=True)]


def _compiled() -> Any:
    from weighttools.analyzers.kernels import compiled

    return compiled.sums

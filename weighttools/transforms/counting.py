"""The smallest of all elements by their keys, to an exact number, and the fold over values that transforms share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from weighttools.core.engine import n_threads, threads
from weighttools.core.fold import Blocks, BlockSizes, Fold, fold_blocks, runs
from weighttools.core.memory import keep_pages
from weighttools.core.radix import N_DIGITS, DigitCounts, DigitPlace, RadixSearch, leading
from weighttools.core.tensor import Tensor
from weighttools.io.progress import Progress, silent

if TYPE_CHECKING:
    from weighttools.core.spec import Array

R = TypeVar("R")

JOB_ELEMENTS = 1 << 19
SIZES = BlockSizes(piece_elements=1 << 20)
"""How elements are cut that are counted: a job's counts take 512 KiB, and a small model has work for two threads."""

Key = Callable[[int, "Array"], "Array"]
"""Takes the position of a block's first element and the block; returns unsigned integers, smallest first to go."""


def over(
    folds: Sequence[Fold[R]],
    merge: Callable[[R, R], R],
    progress: Progress = silent,
    sizes: BlockSizes = SIZES,
) -> Iterator[R]:
    """Yield the state of each fold, in order; in threads where there is work for them.

    `progress` is called with the number of bytes just looked at.
    """
    is_small = sum(tensor.n_elements for fold in folds for tensor in fold.tensors) <= sizes.piece_elements
    with threads(1 if is_small else None) as pool, keep_pages():
        yield from fold_blocks(folds, merge, sizes, pool, progress=progress, batch=1)


def total(of: Callable[[Blocks], R], merge: Callable[[R, R], R], tensor: Tensor, progress: Progress = silent) -> R:
    """Return the state of one tensor, of blocks of `JOB_ELEMENTS` that are added up one after the other."""
    size = max(JOB_ELEMENTS, getattr(tensor.reader, "band", 1))
    return next(over([Fold((tensor,), of)], merge, progress, BlockSizes(size, size)))


def widened(block: Array) -> Array:
    """Return floating elements as float64; signalling NaN raise no warnings."""
    with np.errstate(all="ignore"):
        return block.astype(np.float64)


def is_finite(block: Array) -> Array:
    """Return which floating elements are finite; signalling NaN raise no warnings."""
    with np.errstate(all="ignore"):
        finite: Array = np.isfinite(block)
    return finite


def planning_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the planned memory of looking at tensors: in each thread a run, its keys, digits and temporaries."""
    sizes = (min(t.n_elements, max(JOB_ELEMENTS, t.run_elements)) * (3 * t.dtype.bits // 8 + 16) for t in tensors)
    return n_threads() * max(sizes, default=0) + (2 * n_threads() + 5) * 8 * N_DIGITS


@dataclass(frozen=True, slots=True)
class Ranking:
    """An order of elements.

    Parameters
    ----------
    keys
        A key function for each tensor.
    bits
        The keys' width: 16, 32 or 64.
    finite_below
        Keys whose highest 16 bits are this or more belong to NaN and Inf, which come last and are never chosen.
    """

    keys: tuple[Key, ...]
    bits: int
    finite_below: int


class Threshold(NamedTuple):
    """What comes before the cut: keys less than `pattern`, and those equal to it before position `stop`."""

    pattern: int
    stop: int


class Chosen(NamedTuple):
    """The n smallest elements: a cut for each tensor, how many they are, and how many elements equal the last."""

    cuts: list[Threshold]
    n_chosen: int
    n_ties: int
    pattern: int


def smallest(tensors: Sequence[Tensor], ranking: Ranking, n_wanted: int, progress: Progress = silent) -> Chosen:
    """Choose the `n_wanted` elements of the smallest keys, or all finite ones if they are fewer.

    Equal keys are taken in the order of tensors and positions, so the count is exact.

    Notes
    -----
    A radix selection (`weighttools.core.radix`): one pass for keys of 16 bits and two for 32, and a part of another to
    find the last of equal keys where not all of them are wanted. Memory: 512 KiB of counters, and the blocks under way.
    """
    counts = _counted(tensors, ranking, leading(ranking.bits), progress).counts[0]
    counts[ranking.finite_below :] = 0
    wanted = min(n_wanted, int(counts.sum()))
    if not wanted:
        return Chosen([Threshold(0, 0) for _ in tensors], 0, 0, 0)
    search = RadixSearch([wanted - 1], ranking.bits, counts)
    while place := search.wanted():
        search.take(_counted(tensors, ranking, place, progress))
    pattern, n_before, ties = search.found[wanted - 1]
    is_apart = n_before + 1 < ties
    last = _position(tensors, ranking.keys, pattern, n_before + 1) if is_apart else (len(tensors), 0)
    cuts = [Threshold(pattern, _stop(part, tensor.n_elements, last)) for part, tensor in enumerate(tensors)]
    return Chosen(cuts, wanted, ties, pattern)


def _stop(part: int, n_elements: int, last: tuple[int, int]) -> int:
    if part == last[0]:
        return last[1]
    return n_elements if part < last[0] else 0


@dataclass(frozen=True, slots=True)
class _Counted:
    """Counts the digits of the keys of a block."""

    key: Key
    place: DigitPlace

    def __call__(self, blocks: Blocks) -> DigitCounts:
        return self.place.count(self.key(blocks.start, blocks.values[0]))


def _counted(tensors: Sequence[Tensor], ranking: Ranking, place: DigitPlace, progress: Progress) -> DigitCounts:
    """Count the digits of all keys."""
    folds = [Fold((tensor,), _Counted(key, place)) for tensor, key in zip(tensors, ranking.keys, strict=True)]
    nothing = DigitCounts({prefix: np.zeros(N_DIGITS, np.int64) for prefix in place.prefixes})
    return reduce(DigitCounts.merge, over(folds, DigitCounts.merge, progress), nothing)


def _position(tensors: Sequence[Tensor], keys: Sequence[Key], pattern: int, nth: int) -> tuple[int, int]:
    """Return the tensor and the position just behind the `nth` element whose key is `pattern`."""
    for part, (tensor, key) in enumerate(zip(tensors, keys, strict=True)):
        for start, stop in runs([tensor], max(JOB_ELEMENTS, tensor.run_elements)):
            equal = key(start, tensor.reader(start, stop)) == pattern
            n_equal = int(np.count_nonzero(equal))
            if n_equal >= nth:
                return part, start + int(np.flatnonzero(equal)[nth - 1]) + 1
            nth -= n_equal
    raise AssertionError("the values changed while they were read")

"""The exact k-th smallest of all elements' keys, by counting bit patterns: no sort, memory that does not grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from weighttools.core import plan
from weighttools.core.engine import n_threads, run, threads
from weighttools.core.memory import keep_pages
from weighttools.core.tensor import Tensor, confirm
from weighttools.io.progress import Progress, silent

if TYPE_CHECKING:
    from weighttools.core.spec import Array

R = TypeVar("R")

DIGIT = 16
"""Bits counted in one pass: 65,536 counters stay in the second-level cache."""
JOB_ELEMENTS = 1 << 19
PIECE_ELEMENTS = 1 << 16
"""Elements counted at a time: their temporaries stay in the cache, and cost no fresh pages."""

Key = Callable[[int, "Array"], "Array"]
"""Takes the position of a block's first element and the block; returns unsigned integers, smallest first to go."""


class ElementRun(NamedTuple):
    """A run of elements to look at: of the `part`-th tensor, from `start` to `stop`."""

    part: int
    tensor: Tensor
    start: int
    stop: int

    def read(self) -> Array:
        """Return the elements."""
        return self.tensor.reader(self.start, self.stop)


def jobs(tensors: Iterable[Tensor]) -> Iterator[ElementRun]:
    """Cut tensors into runs of about `JOB_ELEMENTS`, in order."""
    for part, tensor in enumerate(tensors):
        size = max(JOB_ELEMENTS, getattr(tensor.reader, "band", 1))
        for start, stop in plan.blocks(tensor.n_elements, tensor.reader.granularity, size):
            yield ElementRun(part, tensor, start, stop)


def over(fn: Callable[[ElementRun], R], tensors: Sequence[Tensor], progress: Progress = silent) -> Iterator[R]:
    """Yield `fn` of each run of the tensors, in order; in threads where there is work for them.

    `progress` is called with the number of bytes just looked at.
    """
    is_small = sum(tensor.n_elements for tensor in tensors) <= JOB_ELEMENTS
    with threads(1 if is_small else None) as pool, keep_pages():
        for job, found in zip(jobs(tensors), run(fn, jobs(tensors), pool), strict=True):
            progress(job.tensor.dtype.nbytes(job.stop - job.start))
            yield found
            if job.stop == job.tensor.n_elements:
                confirm(job.tensor)


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
    return n_threads() * max(sizes, default=0) + (2 * n_threads() + 5) * (8 << DIGIT)


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
    A radix selection: each pass counts the next 16 bits of the keys that share the bits found so far, from the
    highest on. That is one pass for keys of 16 bits and two for 32, and a part of another to find the last of equal
    keys where not all of them are wanted. Memory: 512 KiB of counters, and the blocks under way.
    """
    prefix, rest, ties, wanted = 0, 0, 0, n_wanted
    for shift in range(ranking.bits - DIGIT, -1, -DIGIT):
        counts = _counted(tensors, ranking.keys, prefix, shift, progress)
        if shift == ranking.bits - DIGIT:
            rest = wanted = min(n_wanted, int(counts[: ranking.finite_below].sum()))
            if not rest:
                return Chosen([Threshold(0, 0) for _ in tensors], 0, 0, 0)
        totals = np.cumsum(counts)
        digit = int(np.searchsorted(totals, rest))
        ties = int(counts[digit])
        rest -= int(totals[digit]) - ties
        prefix = prefix << DIGIT | digit
    last = _position(tensors, ranking.keys, prefix, rest) if rest < ties else (len(tensors), 0)
    cuts = [Threshold(prefix, _stop(part, tensor.n_elements, last)) for part, tensor in enumerate(tensors)]
    return Chosen(cuts, wanted, ties, prefix)


def _stop(part: int, n_elements: int, last: tuple[int, int]) -> int:
    if part == last[0]:
        return last[1]
    return n_elements if part < last[0] else 0


def _counted(tensors: Sequence[Tensor], keys: Sequence[Key], prefix: int, shift: int, progress: Progress) -> Array:
    """Count by the 16 bits from `shift` on the keys whose higher bits are `prefix`."""
    counts = np.zeros(1 << DIGIT, np.int64)
    for found in over(partial(_count, keys, prefix, shift), tensors, progress):
        counts[: found.size] += found
    return counts


def _count(keys: Sequence[Key], prefix: int, shift: int, job: ElementRun) -> Array:
    block = job.read()
    counts = np.zeros(1 << DIGIT, np.int64)
    for at in range(0, block.size, PIECE_ELEMENTS):
        digits = _digits(keys[job.part](job.start + at, block[at : at + PIECE_ELEMENTS]), prefix, shift)
        found = np.bincount(digits)
        counts[: found.size] += found
    return counts


def _digits(keys: Array, prefix: int, shift: int) -> Array:
    """Return the 16 bits from `shift` on of the keys whose higher bits are `prefix`."""
    number = keys.dtype.type
    if shift + DIGIT < keys.itemsize * 8:
        keys = keys[keys >> number(shift + DIGIT) == prefix]
    found: Array = ((keys >> number(shift)) & number(0xFFFF)).astype(np.intp)
    return found


def _position(tensors: Sequence[Tensor], keys: Sequence[Key], pattern: int, nth: int) -> tuple[int, int]:
    """Return the tensor and the position just behind the `nth` element whose key is `pattern`."""
    for job in jobs(tensors):
        equal = keys[job.part](job.start, job.read()) == pattern
        n_equal = int(np.count_nonzero(equal))
        if n_equal >= nth:
            return job.part, job.start + int(np.flatnonzero(equal)[nth - 1]) + 1
        nth -= n_equal
    raise AssertionError("the values changed while they were read")

"""Pure planning: which runs of elements to read, how tensors share out over shards, what memory that takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

Run = tuple[int, int]
Lengths = tuple[int, ...]

PIECE_ELEMENTS = 1 << 19
"""The most of a base that a strided read holds at once."""
_SPARSE = 8
"""Reading a run to use one element in this many costs less than reading the wanted ones one by one."""
_MANY, _PAGE_ELEMENTS = 256, 1024
"""More reads than this, no further apart than a page of the file or so, become one too: the page is read anyway."""


def blocks(n_elements: int, granularity: int, block_elements: int) -> Iterator[Run]:
    """Yield (start, stop) runs that cover `n_elements`, each starting on a granularity boundary.

    >>> list(blocks(10, 4, 5))
    [(0, 8), (8, 10)]
    """
    size = step_of(granularity, block_elements)
    for start in range(0, n_elements, size):
        yield start, min(start + size, n_elements)


def step_of(granularity: int, block_elements: int) -> int:
    """Return the least multiple of a granularity that holds `block_elements`."""
    unit = max(1, granularity)
    return max(1, -(-block_elements // unit)) * unit


def boxes(start: int, stop: int, shape: Sequence[int]) -> Iterator[tuple[Lengths, Lengths]]:
    """Cut a flat run of an array in C order into boxes: yield the first index and the lengths of each, in order.

    >>> list(boxes(2, 9, (4, 3)))
    [((0, 2), (1, 1)), ((1, 0), (2, 3))]
    """
    if start >= stop:
        return
    if not shape:
        yield (), ()
        return
    row = math.prod(shape[1:])
    (first, head), (last, tail) = divmod(start, row), divmod(stop, row)
    if first == last or head:
        end = tail if first == last else row
        yield from (((first, *at), (1, *lengths)) for at, lengths in boxes(head, end, shape[1:]))
        if first == last:
            return
        first += 1
    if first < last:
        yield (first, *(0 for _ in shape[1:])), (last - first, *shape[1:])
    yield from (((last, *at), (1, *lengths)) for at, lengths in boxes(0, tail, shape[1:]))


class Axis(NamedTuple):
    """One axis of a strided copy: its length, and how far apart its elements lie at either end."""

    length: int
    src: int
    dst: int


class Piece(NamedTuple):
    """Base elements `first` to `last`, read in one go, and where those of `axes` lie: from `src` on, to `dst` on."""

    first: int
    last: int
    src: int
    dst: int
    axes: tuple[Axis, ...]


def pieces(axes: Sequence[Axis], src: int, dst: int) -> Iterator[Piece]:
    """Plan a strided copy: which runs of the base to read, and what to take from each.

    A run is read whole where most of it is wanted or what is not is little; else the outermost axis is taken apart.

    Parameters
    ----------
    axes
        Of length over 1, the widest stride of the base first.
    src, dst
        Where the first element lies, in elements.
    """
    reach = [(axis.length - 1) * axis.src for axis in axes]
    first, last = src + sum(min(0, r) for r in reach), src + sum(max(0, r) for r in reach) + 1
    wanted = math.prod(axis.length for axis in axes)
    dense = wanted * _SPARSE >= last - first or _is_near(axes, reach)
    if not axes or (dense and last - first <= PIECE_ELEMENTS):
        yield Piece(first, last, src, dst, tuple(axes))
        return
    outer, inner = axes[0], axes[1:]
    step = max(1, PIECE_ELEMENTS // abs(outer.src)) if outer.src and dense else 1
    for at in range(0, outer.length, step):
        n = min(step, outer.length - at)
        part = [Axis(n, outer.src, outer.dst), *inner] if n > 1 else inner
        if n == outer.length:
            yield Piece(first, last, src, dst, tuple(axes))
            return
        yield from pieces(part, src + at * outer.src, dst + at * outer.dst)


def _is_near(axes: Sequence[Axis], reach: Sequence[int]) -> bool:
    """Whether what lies between the parts of the outermost axis is little enough to be read with them."""
    if not axes:
        return True
    gap = abs(axes[0].src) - 1 - sum(abs(r) for r in reach[1:])
    return gap <= _PAGE_ELEMENTS and axes[0].length > _MANY


def shards(sizes: Sequence[tuple[str, int]], max_bytes: int) -> list[list[str]]:
    """Share names out over shards of at most `max_bytes`, greedily and in order; an oversized one stands alone.

    The rule is that of huggingface_hub's ``split_state_dict_into_shards_factory``: a tensor larger than the
    limit gets a shard of its own and does not close the shard being filled.

    >>> shards([("a", 4), ("b", 9), ("c", 4), ("d", 1)], 8)
    [['b'], ['a', 'c'], ['d']]
    """
    closed: list[list[str]] = []
    current: list[str] = []
    filled = 0
    for name, size in sizes:
        if size > max_bytes:
            closed.append([name])
            continue
        if filled + size > max_bytes:
            closed.append(current)
            current, filled = [], 0
        current.append(name)
        filled += size
    return [*closed, current] if current or not closed else closed


def peak_bytes(block_bytes: Iterable[int], workers: int) -> int:
    """Return the planned peak memory of values in flight: the largest block, held by each worker and the writer."""
    return max(block_bytes, default=0) * (2 * workers + 1)

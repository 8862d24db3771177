"""Pure planning: which runs of elements to read, how tensors share out over shards, what memory that takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

Run = tuple[int, int]


def blocks(n_elements: int, granularity: int, block_elements: int) -> Iterator[Run]:
    """Yield (start, stop) runs that cover `n_elements`, each starting on a granularity boundary.

    >>> list(blocks(10, 4, 5))
    [(0, 8), (8, 10)]
    """
    unit = max(1, granularity)
    step = max(1, -(-block_elements // unit)) * unit
    for start in range(0, n_elements, step):
        yield start, min(start + step, n_elements)


def coalesce(runs: Iterable[Run], gap: int) -> list[Run]:
    """Join ascending runs that lie at most `gap` apart, so that near ones are read in one go.

    >>> coalesce([(0, 4), (5, 9), (100, 101)], gap=2)
    [(0, 9), (100, 101)]
    """
    joined: list[Run] = []
    for start, stop in runs:
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


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

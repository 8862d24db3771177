"""Properties of plans: they cover, they stay within bounds, they agree with huggingface_hub."""

from __future__ import annotations

from itertools import pairwise

from huggingface_hub import split_state_dict_into_shards_factory
from hypothesis import given
from hypothesis import strategies as st

from weighttools.core import plan

SIZES = st.lists(st.integers(0, 30), max_size=30)


@given(st.integers(0, 500), st.integers(0, 9), st.integers(-2, 60))
def test_blocks_cover_everything_once_on_boundaries(n: int, granularity: int, size: int) -> None:
    found = list(plan.blocks(n, granularity, size))
    assert [i for start, stop in found for i in range(start, stop)] == list(range(n))
    unit = max(1, granularity)
    assert all(start % unit == 0 and start < stop for start, stop in found)
    assert all(stop % unit == 0 for _, stop in found[:-1])
    assert all(stop - start < max(1, size) + unit for start, stop in found)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 20)), max_size=20), st.integers(0, 30))
def test_coalesced_runs_hold_the_runs_and_little_else(pieces: list[tuple[int, int]], gap: int) -> None:
    runs = sorted((start, start + length) for start, length in pieces)
    joined = plan.coalesce(runs, gap)
    wanted = {i for start, stop in runs for i in range(start, stop)}
    read = [i for start, stop in joined for i in range(start, stop)]
    assert wanted <= set(read) and len(read) == len(set(read))
    assert all(b[0] - a[1] > gap for a, b in pairwise(joined))
    assert len(read) - len(wanted) <= gap * max(0, len(runs) - len(joined))


@given(SIZES.filter(bool), st.integers(1, 60))
def test_shards_are_those_of_huggingface_hub(sizes: list[int], limit: int) -> None:
    state = {f"t{i}": n for i, n in enumerate(sizes)}
    theirs = split_state_dict_into_shards_factory(
        state, get_storage_size=lambda n: n, filename_pattern="m{suffix}", max_shard_size=limit
    )
    assert plan.shards(list(state.items()), limit) == [list(names) for names in theirs.filename_to_tensors.values()]


def test_nothing_is_one_empty_shard() -> None:
    assert plan.shards([], 10) == [[]]


@given(SIZES, st.integers(1, 8))
def test_peak_is_the_largest_block_for_all_who_hold_one(sizes: list[int], workers: int) -> None:
    assert plan.peak_bytes(sizes, workers) == max([0, *sizes]) * (2 * workers + 1)

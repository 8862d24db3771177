"""Properties of plans: they cover, they stay within bounds, they agree with huggingface_hub."""

from __future__ import annotations

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

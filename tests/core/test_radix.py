"""The radix selection: keys by their ranks, and how many equal ones there are, against a sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighttools.core.radix import RadixSearch, leading, most_passes


@given(
    st.sampled_from([16, 32, 64]),
    st.integers(1, 2000),
    st.integers(1, 1 << 20),
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.integers(0, 9),
)
def test_ranks_are_those_of_a_sort(bits: int, n: int, spread: int, at: list[float], seed: int) -> None:
    keys = np.random.default_rng(seed).integers(0, spread, n).astype(f"u{bits // 8}")
    keys *= keys.dtype.type(max(1, (1 << bits) // (1 << 21)))  # high digits too
    ranks = {int(part * (n - 1)) for part in at}
    search = RadixSearch(ranks, bits, leading(bits).count(keys).counts[0])
    n_passes = 0
    while place := search.wanted():
        search.take(place.count(keys))
        n_passes += 1
    ordered = np.sort(keys)
    assert n_passes <= most_passes(len(ranks), bits)
    for rank in ranks:
        key, n_before, n_equal = search.found[rank]
        assert key == ordered[rank]
        assert n_before == rank - np.searchsorted(ordered, ordered[rank])
        assert n_equal == (keys == ordered[rank]).sum()


@pytest.mark.parametrize(("bits", "passes"), [(16, 0), (32, 1), (64, 3)])
def test_one_rank_takes_a_pass_for_each_digit(bits: int, passes: int) -> None:
    keys = np.arange(1000).astype(f"u{bits // 8}")
    search = RadixSearch([500], bits, leading(bits).count(keys).counts[0])
    for _ in range(passes):
        place = search.wanted()
        assert place is not None
        search.take(place.count(keys))
    assert search.wanted() is None
    assert search.found[500] == (500, 0, 1)


def test_distinct_keys_count_as_often_as_they_occur() -> None:
    keys = np.repeat(np.arange(0, 1 << 20, 1 << 13, dtype=np.uint32), 3)
    kinds, n = np.unique(keys, return_counts=True)
    for place in (leading(32), leading(32).__class__(32, 0, (0, 3, 9))):
        counted, told = place.count(keys).counts, place.count_distinct(kinds, n).counts
        assert {p: c.tolist() for p, c in counted.items()} == {p: c.tolist() for p, c in told.items()}

"""The table of formats: what a suffix means, and what it cannot mean."""

from __future__ import annotations

import pytest

from weighttools.errors import SpecError
from weighttools.formats import ROWS, Row, by_suffix, load, writable


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_each_suffix_names_its_format_in_any_case(row: Row) -> None:
    assert row.suffixes
    for suffix in row.suffixes:
        assert by_suffix(f"dir/MODEL{suffix.upper()}") == row.name


def test_a_target_without_a_known_suffix_needs_a_format() -> None:
    with pytest.raises(SpecError, match=r"model\.xyz: the target's suffix names no format; expected one of \.safetens"):
        writable("model.xyz")
    assert writable("model.xyz", "npz") == "npz"


def test_unknown_format_lists_the_known() -> None:
    with pytest.raises(SpecError, match=r"unknown format 'zarr'; expected one of .*npy.*safetensors"):
        load("zarr")

"""The strategies that ship with weighttools, under the profile of our own tests."""

from __future__ import annotations

from weighttools.core.testing import (
    ODD_NAMES,
    RESERVED,
    arrays,
    assert_same,
    bits_of,
    dtypes,
    names,
    random_array,
    same_bits,
    shapes,
    specials,
    tensor_maps,
)

__all__ = [
    "ODD_NAMES",
    "RESERVED",
    "arrays",
    "assert_same",
    "bits_of",
    "dtypes",
    "names",
    "random_array",
    "same_bits",
    "shapes",
    "specials",
    "tensor_maps",
]

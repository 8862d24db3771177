"""What the tests of the transforms of values share: maps drawn for them, and oracles' views of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.strategies import random_array
from weighttools import TensorMap
from weighttools.core.dtypes import DTYPES

FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz")
TORCH_FLOATS = ("float64", "float32", "float16", "bfloat16")
Arrays = dict[str, np.ndarray[Any, Any]]


def bits(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array's elements as unsigned integers of their width."""
    return np.ascontiguousarray(array).view(f"u{array.itemsize}").reshape(array.shape)


def wide(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The elements as float64."""
    with np.errstate(all="ignore"):
        return array.astype(np.float64)


def normal(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray[Any, Any]:
    """Normal numbers in a dtype."""
    return np.random.default_rng(seed).standard_normal(shape).astype(DTYPES[dtype].numpy)


@st.composite
def matrices(
    draw: st.DrawFn, names: tuple[str, ...] = FLOATS, specials: bool = True, one_dtype: bool = False
) -> Arrays:
    """Draw up to four tensors of two to four axes, some of random bits: NaN, Inf, -0.0 and subnormals among them."""
    n, found = draw(st.integers(1, 4)), {}
    common = draw(st.sampled_from(names))
    for i in range(n):
        shape = draw(st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple))
        dtype = common if one_dtype else draw(st.sampled_from(names))
        seed = draw(st.integers(0, 2**32 - 1))
        random = specials and draw(st.booleans())
        found[f"layers.{i}.weight"] = random_array(DTYPES[dtype], shape, seed) if random else normal(shape, dtype, seed)
    return found


def read(tensor_map: TensorMap, block: int) -> Arrays:
    """Read every tensor in blocks of about `block` elements, as a writer does."""
    found = {}
    for name, tensor in tensor_map.items():
        parts = list(tensor.blocks(block)) or [tensor.reader(0, 0)]
        found[name] = np.concatenate(parts).reshape(tensor.shape)
    return found

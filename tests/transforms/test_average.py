"""Averages: against torch, numbers worked by hand, and the recursion itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.formats.torch_arrays import to_torch
from tests.transforms.edits import FLOATS, TORCH_FLOATS, normal, read, wide


@given(
    st.sampled_from(TORCH_FLOATS),
    st.integers(0, 2**32 - 9),
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=2, max_size=4),
    st.integers(1, 20),
)
def test_weighted_mean_is_torch_s(dtype, seed, weights, block):
    if not sum(weights):
        weights = [w + 1 for w in weights]
    arrays = [normal((3, 4), dtype, seed + i) for i in range(len(weights))]
    found = wt.average([wt.TensorMap.from_arrays({"bias": a}) for a in arrays], weights=weights)
    double = sum(w * to_torch(a).to(torch.float64) for w, a in zip(weights, arrays, strict=True)) / sum(weights)
    np.testing.assert_array_equal(
        wide(read(found, block)["bias"]), double.to(getattr(torch, dtype)).to(torch.float64).numpy()
    )


@given(st.integers(0, 2**32 - 9), st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.integers(2, 6))
def test_ema_is_the_recursion(seed, decay, n):
    arrays = [normal((3, 4), "float64", seed + i) for i in range(n)]
    found = wt.average([wt.TensorMap.from_arrays({"w": a}) for a in arrays], ema=decay)["w"].read()
    moving = arrays[0]
    for array in arrays[1:]:
        moving = decay * moving + (1 - decay) * array
    np.testing.assert_allclose(found, moving, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_mean_of_one_thing_is_itself(dtype):
    array = normal((7, 9), dtype, 4)
    found = wt.average([wt.TensorMap.from_arrays({"w": array})] * 3)["w"].read()
    if dtype == "float64":  # a third of three times x may be its neighbour
        np.testing.assert_allclose(found, array, rtol=2**-52)
    else:
        assert found.tobytes() == array.tobytes()


def test_integers_are_copied_and_said():
    first, second = ({"n": np.array([k]), "m": np.array([k > 1]), "w": np.array([float(k)])} for k in (1, 3))
    found = wt.average([wt.TensorMap.from_arrays(a) for a in (first, second)])
    assert {name: tensor.read().tolist() for name, tensor in found.items()} == {"n": [1], "m": [False], "w": [2.0]}
    assert found.report["copied"] == ["n", "m"] and found.report["weights"] == [0.5, 0.5]


def test_patterns_choose_what_is_averaged():
    first, second = ({"a": np.array([float(k)]), "b": np.array([float(k)])} for k in (1, 3))
    found = wt.average([wt.TensorMap.from_arrays(a) for a in (first, second)], include=["b"])
    assert (found["a"].read()[0], found["b"].read()[0]) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("second", "options", "message"),
    [
        ({"w": np.zeros((2, 3))}, {}, r"'w' is float64 \(2, 3\), not a float \(2, 2\)"),
        ({"w": np.zeros((2, 2), int)}, {}, "not a float"),
        ({"v": np.zeros((2, 2))}, {}, "no tensor 'w' to average"),
        ({"w": np.zeros((2, 2))}, {"weights": [1.0]}, "1 weights for 2 checkpoints"),
        ({"w": np.zeros((2, 2))}, {"weights": [1.0, -1.0]}, "sum is not 0"),
        ({"w": np.zeros((2, 2))}, {"weights": [1.0, float("nan")]}, "finite"),
        ({"w": np.zeros((2, 2))}, {"ema": 1.5}, "--ema 1.5"),
        ({"w": np.zeros((2, 2))}, {"ema": 0.5, "weights": [1.0, 1.0]}, "exclude each other"),
        ({"w": np.zeros((2, 2))}, {"include": ["x"]}, "matches no tensor"),
        (None, {}, "two or more"),
    ],
)
def test_refused(second, options, message):
    maps = [wt.TensorMap.from_arrays(a) for a in ({"w": np.zeros((2, 2))}, second) if a is not None]
    with pytest.raises(wt.WeighttoolsError, match=message):
        wt.average(maps, **options)

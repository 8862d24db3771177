"""Drawing tensors of a file anew: the laws and bounds are torch's, the seed decides, and the rest stays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weighttools as wt
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, WeighttoolsError

SHAPES = {"conv.weight": (16, 8, 3, 3), "fc.weight": (40, 60)}


@pytest.fixture
def before() -> TensorMap:
    arrays = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    others = {"fc.bias": np.ones(40, np.float32), "norm.weight": np.ones(40, np.float32), "step": np.array(7)}
    return TensorMap.from_arrays({**arrays, **others}, {"format": "pt"})


@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
@pytest.mark.parametrize("method", ["xavier_uniform", "xavier_normal", "he_uniform", "he_normal"])
def test_spread_is_that_of_torch(before: TensorMap, method: str, activation: str | None) -> None:
    torchs = {"xavier": "xavier", "he": "kaiming"}[method.partition("_")[0]]
    law = method.partition("_")[2]
    after = wt.init(before, method=method, activation=activation, seed=3).read()
    for name, shape in SHAPES.items():
        theirs = torch.empty(shape, dtype=torch.float64)
        gain = torch.nn.init.calculate_gain(activation) if activation else None
        if torchs == "xavier":
            getattr(torch.nn.init, f"xavier_{law}_")(theirs, gain=gain or 1.0)
        else:
            getattr(torch.nn.init, f"kaiming_{law}_")(theirs, nonlinearity=activation or "relu")
        n = math.prod(shape)
        assert after[name].std() == pytest.approx(float(theirs.std()), rel=5 / math.sqrt(n))
        if law == "uniform":
            assert np.abs(after[name]).max() == pytest.approx(float(theirs.abs().max()), rel=0.02)


def test_the_rest_stays_and_the_seed_is_recorded(before: TensorMap, tmp_path: Path) -> None:
    after = wt.init(before, method="he_normal", seed=5)
    for name in ("fc.bias", "norm.weight", "step"):
        assert np.array_equal(after[name].read(), before[name].read())
    wt.save(tmp_path / "a.safetensors", after)
    found = wt.open(tmp_path / "a.safetensors")
    assert found.metadata["weighttools.init"] == "he_normal, seed 5, 2 tensors"
    assert found.metadata["format"] == "pt"
    again = wt.init(before, method="he_normal", seed=5).read()
    other = wt.init(before, method="he_normal", seed=6).read()
    assert all(np.array_equal(found[name].read(), again[name]) for name in SHAPES)
    assert not any(np.array_equal(other[name], again[name]) for name in SHAPES)


def test_keras_kernels_have_their_fans_at_the_end() -> None:
    kernel = TensorMap.from_arrays({"dense/kernel": np.ones((500, 20), np.float32)})
    drawn = wt.init(kernel, method="he_normal", layout="keras")["dense/kernel"].read()
    assert drawn.std() == pytest.approx(math.sqrt(2 / 500), rel=0.05)


@pytest.mark.parametrize(("options", "message"), [
    ({"method": "melt"}, "no initialiser is called 'melt'"),
    ({"method": "zeros", "std": 1.0}, "zeros takes no --std"),
    ({"method": "normal", "activation": "relu"}, "normal takes no --activation"),
    ({"method": "uniform"}, "--std for uniform"),
    ({"method": "constant"}, "--value for constant"),
    ({"seed": -1}, "--seed"),
    ({"include": ["nothing.*"]}, "matches no tensor"),
])  # fmt: skip
def test_options_that_do_not_fit(before: TensorMap, options: dict[str, Any], message: str) -> None:
    with pytest.raises(WeighttoolsError, match=message):
        wt.init(before, **options)


def test_vectors_have_no_fan(before: TensorMap) -> None:
    with pytest.raises(SpecError, match="has no fan"):
        wt.init(before, include_all=True)

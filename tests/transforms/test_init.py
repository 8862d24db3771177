"""Drawing tensors of a file anew: the laws and bounds are torch's, the seed decides, and the rest stays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

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
    ({"method": "zeros", "std": 1.0}, "zeros takes no std"),
    ({"method": "normal", "activation": "relu"}, "normal takes no activation"),
    ({"method": "uniform"}, "std for uniform"),
    ({"method": "constant"}, "value for constant"),
    ({"seed": -1}, "seed -1 is out of range"),
    ({"include": ["nothing.*"]}, "matches no tensor"),
])  # fmt: skip
def test_options_that_do_not_fit(before: TensorMap, options: dict[str, Any], message: str) -> None:
    with pytest.raises(WeighttoolsError, match=message):
        wt.init(before, **options)


def test_vectors_have_no_fan(before: TensorMap) -> None:
    with pytest.raises(SpecError, match="has no fan"):
        wt.init(before, include_all=True)


SCHEMES = {
    "xavier_normal": ({}, "normal"),
    "xavier_uniform": ({}, "uniform"),
    "he_normal": ({}, "normal"),
    "he_uniform": ({}, "uniform"),
    "lecun_normal": ({}, "normal"),
    "lecun_uniform": ({}, "uniform"),
    "normal": ({"std": 0.02}, "normal"),
    "truncated_normal": ({"std": 0.02}, "truncated normal"),
    "uniform": ({"std": 0.1}, "uniform"),
}


@pytest.mark.parametrize("method", SCHEMES)
def test_the_analyzers_recognise_what_is_drawn(method: str) -> None:
    """Over seeds: untouched, of the right law, and of the measured spread that the scheme gives."""
    options, law = SCHEMES[method]
    arrays = {f"{i}.weight": np.zeros((40, 60) if i % 2 else (24, 12, 3, 3), np.float32) for i in range(100)}
    rows = wt.init_check(wt.init(TensorMap.from_arrays(arrays), method=method, seed=8, **options))["layers"]
    assert sum(bool(row["untouched"]) and row["law"] == law for row in rows) >= 98
    if method.startswith(("xavier", "he")):
        assert sum(row["scheme"] == method for row in rows) >= 93


@pytest.mark.parametrize("method", SCHEMES)
def test_laws_hold_over_seeds(method: str) -> None:
    """Kolmogorov and Smirnov's p-values of many seeds are themselves uniform; neighbouring seeds are independent."""
    options, law = SCHEMES[method]
    blank = TensorMap.from_arrays({"fc.weight": np.zeros((50, 80))})
    draws = [wt.init(blank, method=method, seed=seed, **options)["fc.weight"].read().ravel() for seed in range(60)]
    spread = {"xavier": math.sqrt(2 / 130), "he": math.sqrt(2 / 80), "lecun": math.sqrt(1 / 80)}
    std = spread.get(method.partition("_")[0], options.get("std", 0.0))
    bound = std if method == "uniform" else math.sqrt(3) * std
    cdf = {
        "normal": stats.norm(0, std).cdf,
        "uniform": stats.uniform(-bound, 2 * bound).cdf,
        "truncated normal": stats.truncnorm(-2, 2, 0, std).cdf,
    }[law]
    p_values = [stats.kstest(draw, cdf).pvalue for draw in draws]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3 and min(p_values) > 1e-5
    assert np.abs(np.corrcoef(draws)[np.triu_indices(60, 1)]).max() < 5 / math.sqrt(4000)

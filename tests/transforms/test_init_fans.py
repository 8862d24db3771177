"""Fans, deviations and bounds of initialisers in each layout: exactly keras.initializers' and torch.nn.init's."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from keras.src.initializers import random_initializers

import weighttools as wt
from weighttools.core.tensormap import TensorMap
from weighttools.transforms import initializers as init

KERAS_SHAPES = {
    "dense": (500, 20),
    "embedding": (1000, 64),
    "conv1d": (5, 8, 16),
    "conv2d": (3, 3, 8, 16),
    "conv3d": (2, 3, 4, 5, 6),
    "depthwise": (3, 3, 32, 1),
}
TORCH_SHAPES = {
    "linear": (20, 500),
    "embedding": (1000, 64),
    "conv1d": (16, 8, 5),
    "conv2d": (16, 8, 3, 3),
    "conv3d": (6, 5, 2, 3, 4),
    "depthwise": (32, 1, 3, 3),
}
KERAS = {
    "xavier_uniform": keras.initializers.GlorotUniform,
    "xavier_normal": keras.initializers.GlorotNormal,
    "he_uniform": keras.initializers.HeUniform,
    "he_normal": keras.initializers.HeNormal,
    "lecun_uniform": keras.initializers.LecunUniform,
    "lecun_normal": keras.initializers.LecunNormal,
}
CUT = 0.87962566103423978
"""The deviation of a standard normal cut at 2: keras cuts its normals, and widens them so that they have theirs."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What keras asks of its random numbers."""
    calls: list[tuple[str, dict[str, Any]]] = []
    for law in ("uniform", "truncated_normal", "normal"):
        real = getattr(random_initializers.random, law)

        def watched(*args: Any, law: str = law, real: Any = real, **options: Any) -> Any:
            calls.append((law, options))
            return real(*args, **options)

        monkeypatch.setattr(random_initializers.random, law, watched)
    return calls


@pytest.mark.parametrize("kind", KERAS_SHAPES)
@pytest.mark.parametrize("method", KERAS)
def test_spread_is_exactly_that_of_keras(method: str, kind: str, asked: list[tuple[str, dict[str, Any]]]) -> None:
    shape = KERAS_SHAPES[kind]
    KERAS[method](seed=1)(shape)
    law, options = asked[0]  # a cut normal asks for normals in its turn
    std = init.INITIALIZERS[method](layout="keras").std(shape)
    if law == "uniform":
        assert options["maxval"] == -options["minval"] == pytest.approx(math.sqrt(3) * std, rel=1e-12)
    else:
        assert options["mean"] == 0 and options["stddev"] * CUT == pytest.approx(std, rel=1e-12)


@pytest.mark.parametrize("kind", KERAS_SHAPES)
def test_fans_are_those_of_keras(kind: str) -> None:
    assert init.fans(KERAS_SHAPES[kind], "keras") == random_initializers.compute_fans(KERAS_SHAPES[kind])


@pytest.mark.parametrize("kind", TORCH_SHAPES)
def test_fans_are_those_of_torch(kind: str) -> None:
    shape = TORCH_SHAPES[kind]
    assert init.fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


@pytest.mark.parametrize("kind", TORCH_SHAPES)
def test_both_layouts_of_a_kernel_have_the_same_fans(kind: str) -> None:
    out, into, *window = TORCH_SHAPES[kind]
    assert init.fans((out, into, *window)) == init.fans((*window, into, out), "keras")


@pytest.mark.parametrize("layout", ["torch", "keras"])
@pytest.mark.parametrize("method", [name for name in KERAS if name.endswith("uniform")])
def test_bounds_hold_in_a_file(method: str, layout: str) -> None:
    """No element beyond the bound, and the largest of so many next to it, whatever kernels the file has."""
    shapes = {f"{kind}.weight": shape for kind, shape in (KERAS_SHAPES if layout == "keras" else TORCH_SHAPES).items()}
    before = TensorMap.from_arrays({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    after = wt.init(before, method=method, layout=layout, seed=2, include_all=True)
    for name, shape in shapes.items():
        bound = np.float32(math.sqrt(3) * init.INITIALIZERS[method](layout=layout).std(shape))
        largest = np.abs(after[name].read()).max()
        assert bound * (1 - 20 / math.prod(shape)) < largest <= bound

"""Optimisers, 200 steps with one sequence of gradients, against torch.optim."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from weighttools.train import optim

UNIT = 2.0**-23
SHAPES = {"fc.weight": (7, 5), "conv.weight": (4, 3, 2), "out.weight": (250, 140)}
Pair = tuple[Callable[[], optim.Optimizer], Callable[[list[torch.Tensor]], torch.optim.Optimizer]]
PAIRS: dict[str, Pair] = {
    "sgd": (lambda: optim.sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (lambda: optim.sgd(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "nesterov": (
        lambda: optim.sgd(0.1, momentum=0.9, nesterov=True, l2=0.001),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.001),
    ),
    "adam": (lambda: optim.adam(1e-2, l2=0.001), lambda p: torch.optim.Adam(p, 1e-2, weight_decay=0.001)),
    "adamw": (lambda: optim.adamw(1e-2), lambda p: torch.optim.AdamW(p, 1e-2)),
    "adamw_betas": (
        lambda: optim.adamw(1e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 1e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
    ),
    "adagrad": (lambda: optim.adagrad(0.05), lambda p: torch.optim.Adagrad(p, 0.05)),
    "rmsprop": (lambda: optim.rmsprop(1e-2), lambda p: torch.optim.RMSprop(p, 1e-2)),
    "rmsprop_momentum": (
        lambda: optim.rmsprop(1e-3, momentum=0.9, l2=0.001),
        lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9, weight_decay=0.001),
    ),
    "adafactor": (lambda: optim.adafactor(1e-2), lambda p: torch.optim.Adafactor(p, 1e-2)),
}


@functools.cache
def gradients() -> list[dict[str, np.ndarray]]:
    """200 sets in float32, none near zero: there, dividing by a root of squares amplifies every rounding."""
    rng = np.random.default_rng(7)
    draw = lambda shape: (rng.choice((-1, 1.5), shape) * rng.uniform(0.05, 0.3, shape)).astype(np.float32)  # noqa: E731
    return [{name: draw(shape) for name, shape in SHAPES.items()} for _ in range(200)]


def start(dtype: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32).astype(dtype) for name, shape in SHAPES.items()}


def ours(optimizer: optim.Optimizer, dtype: Any) -> dict[str, np.ndarray]:
    params = start(dtype)
    state = optimizer.init(params)
    for grads in gradients():
        optimizer.step(params, {name: g.astype(dtype) for name, g in grads.items()}, state)
    return params


def theirs(make: Callable[[list[torch.Tensor]], torch.optim.Optimizer], dtype: Any) -> dict[str, np.ndarray]:
    tensors = {name: torch.tensor(p, requires_grad=True) for name, p in start(dtype).items()}
    optimizer = make(list(tensors.values()))
    for grads in gradients():
        for name, g in grads.items():
            tensors[name].grad = torch.tensor(g.astype(dtype))
        optimizer.step()
    return {name: p.detach().numpy() for name, p in tensors.items()}


def distance(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """The largest difference, relative to the largest parameter of its tensor."""
    return max(float(np.abs(a[n].astype(float) - b[n]).max() / np.abs(b[n]).max()) for n in a)


@pytest.mark.parametrize("name", PAIRS)
def test_float64_is_torch_to_1e_14(name: str) -> None:
    make, reference = PAIRS[name]
    assert distance(ours(make(), np.float64), theirs(reference, np.float64)) <= 1e-14


@pytest.mark.parametrize("name", PAIRS)
def test_float32_is_within_two_units_in_the_last_place_of_torch(name: str) -> None:
    """A unit is that of the tensor's largest parameter; 200 steps round 200 times, so torch's own error is granted."""
    make, reference = PAIRS[name]
    found, torch32, torch64 = ours(make(), np.float32), theirs(reference, np.float32), theirs(reference, np.float64)
    assert all(p.dtype == np.float32 for p in found.values())
    print(name, distance(found, torch32) / UNIT, distance(found, torch64) / UNIT, distance(torch32, torch64) / UNIT)
    assert distance(found, torch64) <= distance(torch32, torch64) + 2 * UNIT

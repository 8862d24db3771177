"""A small task that several tests train on: an MLP on scikit-learn's digits."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from weighttools import train

SHAPES = {"fc1.weight": (16, 64), "fc1.bias": (16,), "fc2.weight": (10, 16), "fc2.bias": (10,)}


@functools.cache
def digits(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Return `n` images as rows of 0 to 1, and their labels."""
    x, y = load_digits(return_X_y=True)
    return (x[:n] / 16).astype(np.float32), y[:n]


def start(dtype: Any = np.float32, seed: int = 0) -> dict[str, np.ndarray]:
    """Return fresh weights."""
    rng = np.random.default_rng(seed)
    drawn = {name: rng.standard_normal(shape) / 8 for name, shape in SHAPES.items()}
    return {name: array.astype(np.float32).astype(dtype) for name, array in drawn.items()}


def run(p: Mapping[str, Any], batch: train.data.Batch) -> Any:
    """Return the logits."""
    hidden = train.ops.relu(train.ops.linear(batch["inputs"], p["fc1.weight"], p["fc1.bias"]))
    return train.ops.linear(hidden, p["fc2.weight"], p["fc2.bias"])


def dropped(p: Mapping[str, Any], batch: train.data.Batch) -> Any:
    """Return the logits, with dropout while training."""
    hidden = train.ops.relu(train.ops.linear(batch["inputs"], p["fc1.weight"], p["fc1.bias"]))
    seed = (*batch["seed"], 1) if "seed" in batch else None
    return train.ops.linear(train.ops.dropout(hidden, rate=0.2, seed=seed), p["fc2.weight"], p["fc2.bias"])


def model(dtype: Any = np.float32, seed: int = 0) -> train.Model:
    """Return the MLP with fresh weights."""
    return train.Model(run, start(dtype, seed))

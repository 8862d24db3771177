"""A weight, a weighted sum, and two ways to find the weights: the closed form, and gradient descent.

Run: python examples/01_linear_regression.py
"""

from __future__ import annotations

import numpy as np

from weighttools import train

# Rents of 200 flats: what a square metre, a room and a balcony are worth is what shall be learnt.
rng = np.random.default_rng(0)
flats = np.stack([rng.uniform(20, 120, 200), rng.integers(1, 6, 200), rng.integers(0, 2, 200)], axis=1)
rents = flats @ [9.0, 35.0, 60.0] + 150 + rng.normal(0, 20, 200)

# Gradient descent wants features of one scale; the mean and deviation are undone at the end.
mean, scale = flats.mean(0), flats.std(0)
x, y = ((flats - mean) / scale), rents[:, None]


def model(p: dict, batch: dict) -> np.ndarray:
    """The weighted sum of the features, plus a bias."""
    return train.ops.linear(batch["inputs"], p["fc.weight"], p["fc.bias"])


weights = {"fc.weight": np.zeros((1, 3)), "fc.bias": np.zeros(1)}  # float64 weights: everything is float64
result = train.fit(
    train.Model(model, weights),
    train.data.arrays(x, y),
    task=train.Regression(),
    optimizer=train.optim.sgd(lr=train.schedules.constant(0.1)),
    batch_size=200,  # all samples at once: plain gradient descent
    epochs=200,
    log=None,
)
losses = [record["loss"] for record in result.history.epochs]
print("loss at epoch 1, 10, 50, 200:", ", ".join(f"{losses[i - 1]:,.1f}" for i in (1, 10, 50, 200)))

found = weights["fc.weight"][0] / scale
closed, *_ = np.linalg.lstsq(np.column_stack([flats, np.ones(200)]), rents, rcond=None)
bias = float(weights["fc.bias"][0] - found @ mean)
print(f"\n{'':14}{'true':>9}{'closed form':>14}{'gradient descent':>19}")
for name, true, exact, descended in zip(
    ("square metre", "room", "balcony", "bias"), (9, 35, 60, 150), closed, [*found, bias], strict=True
):
    print(f"{name:14}{true:>9.2f}{exact:>14.4f}{descended:>19.4f}")

flat = np.array([64.0, 2, 1])
print(f"\nrent of 64 m², 2 rooms, balcony: {' + '.join(f'{w:.2f} * {v:g}' for w, v in zip(found, flat, strict=True))}"
      f" + {bias:.2f} = {found @ flat + bias:.2f}")  # fmt: skip

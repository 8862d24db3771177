"""An MLP of eight layers on handwritten digits, from scratch: how its first weights are drawn decides what it learns.

Run: python examples/02_digits.py    (needs scikit-learn, for its digits)
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from weighttools import train
from weighttools.errors import WeighttoolsError

images, labels = load_digits(return_X_y=True)
x = (images / 16 - 0.5).astype(np.float32) * 2
x_train, x_test, y_train, y_test = x[:1400], x[1400:], labels[:1400], labels[1400:]
layers = [f"layers.{i}" for i in range(8)]
sizes = [64, *[128] * 7, 10]


def run(p: dict, batch: dict) -> np.ndarray:
    """Weighted sums with ReLU between them."""
    return train.models.mlp(p, batch["inputs"], layers=layers)


def first_weights(rule: train.init.Initializer) -> dict[str, np.ndarray]:
    p = {}
    for name, n_in, n_out in zip(layers, sizes, sizes[1:], strict=False):
        p[f"{name}.weight"] = rule.draw((n_out, n_in), seed=0, name=name)
        p[f"{name}.bias"] = np.zeros(n_out, np.float32)
    return p


def loss(p: dict, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return train.losses.cross_entropy(run(p, {"inputs": x}), target=y)


def accuracies(weights: dict[str, np.ndarray]) -> list[float]:
    result = train.fit(
        train.Model(run, weights),
        train.data.arrays(x_train, y_train),
        task=train.Classification(n_classes=10),
        validation=train.data.arrays(x_test, y_test),
        optimizer=train.optim.sgd(lr=train.schedules.constant(0.02), momentum=0.9),
        epochs=8,
        batch_size=32,
        log=None,
    )
    return [record["val_accuracy"] for record in result.history.epochs]


print(f"{'first weights':16}{'gain a layer':>14}{'signal':>12}   accuracy after 1, 3, 8 epochs")
for name, rule in {
    "He": train.init.he_normal(),
    "Xavier": train.init.xavier_normal(),
    "N(0, 0.01)": train.init.normal(0.01),
    "N(0, 0.3)": train.init.normal(0.3),
}.items():
    weights = first_weights(rule)
    signal = train.signal_report(loss, weights, x_train[:200], y_train[:200])
    try:
        found = accuracies(weights)
        told = ", ".join(f"{found[epoch - 1]:.1%}" for epoch in (1, 3, 8))
    except WeighttoolsError as error:
        told = f"none: at {error.subject}, {error.fact.partition(':')[0]}"
    print(f"{name:16}{signal.mean_gain:>14.3f}{signal.verdict:>12}   {told}")

"""Prune nine weights of ten, see what that costs, and train the rest further with the pruned ones held at zero.

Run: python examples/05_prune_and_finetune.py    (needs scikit-learn, for its digits)
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

import weighttools as wt
from weighttools import train

images, labels = load_digits(return_X_y=True)
x = (images / 8 - 1).astype(np.float32)
learn, test = train.data.arrays(x[:1400], labels[:1400]), train.data.arrays(x[1400:], labels[1400:])
task = train.Classification(n_classes=10)
layers, sizes = ["fc1", "fc2", "fc3"], [64, 128, 128, 10]


def run(p: dict, batch: dict) -> np.ndarray:
    """Weighted sums with ReLU between them."""
    return train.models.mlp(p, batch["inputs"], layers=layers)


def fit(weights: dict, origin: wt.TensorMap | None = None, **options: object) -> wt.TensorMap:
    model = train.Model(run, weights, origin)
    return train.fit(
        model, learn, task=task, epochs=15, optimizer=train.optim.adamw(3e-3), log=None, **options
    ).tensor_map


def report(name: str, tensor_map: wt.TensorMap) -> None:
    weights = tensor_map.read()
    accuracy = train.evaluate(train.Model(run, weights), test, task)["accuracy"]
    matrices = [w for w in weights.values() if w.ndim == 2]
    n_zero, n = sum(int((w == 0).sum()) for w in matrices), sum(w.size for w in matrices)
    print(f"{name:40}{accuracy:>9.1%}{n_zero:>9,} of {n:,} weights are 0")


drawn = {
    f"{n}.weight": train.init.he_normal().draw((o, i), seed=0, name=n)
    for n, i, o in zip(layers, sizes, sizes[1:], strict=False)
}
drawn |= {f"{n}.bias": np.zeros(o, np.float32) for n, o in zip(layers, sizes[1:], strict=True)}

dense = fit(drawn)
report("dense", dense)

pruned = wt.prune(dense, sparsity=0.9)  # by magnitude, over all matrices
report("nine of ten pruned", pruned)

masks = wt.masks(pruned).read()
report("trained further, the masks held", fit(pruned.read(), pruned, masks=masks))

grown = {name: array.copy() for name, array in dense.read().items()}
report("pruned little by little while training", fit(grown, dense, prune=train.gradual(0.9)))

"""A moving average or soup: new weights that are one weighted mean of the old ones and of other checkpoints.

It reads the changed tensors and those of the other checkpoints once more, side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weighttools.analyzers.compare.explain.context import ChangedPair, Findings
from weighttools.analyzers.compare.explain.rounding import rounding_energy
from weighttools.analyzers.compare.explain.wording import counted, enumerated, percent
from weighttools.analyzers.compare.pair import Explanation
from weighttools.core.fold import Blocks, Fold, fold_blocks

if TYPE_CHECKING:
    from weighttools.core.spec import Array
    from weighttools.core.tensor import Tensor
    from weighttools.core.tensormap import TensorMap

ROUNDINGS = 6
"""How many roundings of each value a mean may have taken."""
AVERAGE = 0.1005
"""The weight of the lesser part with which a mean is a moving average rather than a soup."""
EXACT = 1e-4
"""How near to a whole number a weight counts as one."""


class Products(NamedTuple):
    """Of a changed pair, the products of its change and of the others' distances from the old, and what rounds."""

    change: ChangedPair
    gram: Array
    noise: float

    def left_over(self, weights: Array) -> float:
        """Return the energy of the change that these weights of the others leave over."""
        full = np.array([1.0, *(-weights)])
        return max(0.0, float(full @ self.gram @ full))

    def fits(self, weights: Array) -> bool:
        """Whether what is left over is rounding."""
        return self.left_over(weights) <= ROUNDINGS * self.noise + 1e-10 * float(self.gram[0, 0])


def explain_blend(findings: Findings) -> list[Explanation]:
    """Say with which weights the new tensors are a mean of the old and the others, if all of them are."""
    context = findings.context
    if not context.others:
        return []
    triples = [(change, parts) for change in findings.changes if (parts := _counterparts(change, context.others))]
    folds = [Fold((change.pair.before, change.pair.after, *others), gram) for change, others in triples]
    states = fold_blocks(folds, add, executor=context.executor, progress=context.progress)
    found = [_products(change, state) for (change, _), state in zip(triples, states, strict=True)]
    weights = _weights(found)
    if weights is None or not all(one.fits(weights) for one in found):
        return []
    return [_explanation(weights, found, findings)]


def _counterparts(change: ChangedPair, others: Sequence[TensorMap]) -> tuple[Tensor, ...] | None:
    """Return the tensors of the others that a changed one may be made of; None where one of them has none such."""
    if not change.is_plain:
        return None
    names = [change.pair.new, *([change.pair.old] if change.pair.how in ("map", "renamed") else [])]
    found = [next((other[name] for name in names if name in other), None) for other in others]
    tensors = tuple(tensor for tensor in found if tensor is not None)
    is_alike = all(tensor.shape == change.pair.after.shape and tensor.dtype.is_float for tensor in tensors)
    return tensors if len(tensors) == len(others) and is_alike else None


def gram(blocks: Blocks) -> Array:
    """Return the products with each other of the change, and of the others' distances from the old."""
    before, *rest = (values.astype(np.float64) for values in blocks.values)
    away = np.stack([values - before for values in rest])
    products: Array = away @ away.T
    return products


def _products(change: ChangedPair, found: Array) -> Products:
    figures = change.figures
    return Products(change, found, rounding_energy(figures.l2_after, figures.n_elements, change.pair.after.dtype))


def _weights(found: Sequence[Products]) -> Array | None:
    """Return the others' weights by least squares over all tensors, each by its rounding; None where they are open."""
    tell = [one for one in found if one.gram[0, 0] >= 20 * one.noise > 0 and np.isfinite(one.gram).all()]
    n_others = len(found[0].gram) - 1 if found else 0
    if sum(one.change.figures.n_elements for one in tell) < 16 * (n_others + 1):
        return None
    total = sum((one.gram / one.noise for one in tell), np.zeros((n_others + 1, n_others + 1)))
    products, target = total[1:, 1:], total[1:, 0]
    scale = np.sqrt(np.diag(products))
    if not scale.all() or np.linalg.cond(products / np.outer(scale, scale)) > 1e8:
        return None
    weights: Array = np.linalg.solve(products, target)
    return weights


def _explanation(weights: Array, found: Sequence[Products], findings: Findings) -> Explanation:
    context = findings.context
    names = list(context.other_names) or [f"the other ({n})" for n in range(1, len(weights) + 1)]
    own = 1 - float(weights.sum())
    all_weights = [own, *map(float, weights)]
    left = sum(one.left_over(weights) for one in found) / sum(float(one.gram[0, 0]) for one in found)
    code, what = _said(all_weights, names)
    text = f"{what}: {percent(1 - left)} of the energy of the change of {counted(len(found))}."
    evidence: dict[str, object] = {
        "weight_before": own, "weights": dict(zip(names, all_weights[1:], strict=True)), "explained": 1 - left,
        "n_tensors": len(found), "n_changed_tensors": len(findings.changes),
    }  # fmt: skip
    return Explanation(code, text, tuple(one.change.name for one in found), evidence)


def _said(weights: Sequence[float], names: Sequence[str]) -> tuple[str, str]:
    """Return the code and the sentence for weights of the old and of the others."""
    if len(weights) == 2 and abs(weights[1] - 1) < EXACT:
        return "same-as", f"The new weights are those of {names[0]}"
    parts = [f"{weight:.6g} of {name}" for weight, name in zip(weights, ["the old", *names], strict=True)]
    mean = enumerated(parts, len(parts))
    if min(weights) <= 0:
        return "combination", f"The new weights are a combination, {mean}"
    if len(weights) == 2 and min(weights) <= AVERAGE:
        return "moving-average", f"The new weights are a moving average with decay {max(weights):.6g}, {mean}"
    return "soup", f"The new weights are a soup, {mean}"

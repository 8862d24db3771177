"""Upweighting: class weights, sample weights, weighted sampling, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array


def class_weights(
    spec: str | Mapping[int, float] | Sequence[float] | Array | None, labels: Any, n_classes: int
) -> Array:
    """Return one float32 weight a class.

    Parameters
    ----------
    spec
        None: all 1. ``"balanced"``: ``n / (n_classes_present * count)``, as scikit-learn has it; a class without
        samples gets 0. A mapping gives some classes' weights, by number; the others have 1. A sequence or an array
        gives all classes', in order.
    labels
        The training labels, integers; negative ones are ignored.
    n_classes
        How many classes the model tells apart.

    Examples
    --------
    >>> class_weights("balanced", [0, 0, 0, 1], 2).round(3).tolist()
    [0.6669999957084656, 2.0]
    >>> class_weights({1: 5.0}, [0, 1], 2).tolist()
    [1.0, 5.0]
    >>> class_weights([0.5, 2.0], [0, 1], 2).tolist()
    [0.5, 2.0]
    """
    counts = class_counts(labels, n_classes)
    if spec is None:
        return np.ones(n_classes, np.float32)
    if isinstance(spec, str):
        if spec != "balanced":
            raise SpecError(f"class weights {spec!r}", expected="'balanced', or a weight for each class")
        present = np.maximum(counts, 1) * max(1, np.count_nonzero(counts))
        return np.where(counts, counts.sum() / present, 0).astype(np.float32)
    weights = np.ones(n_classes, np.float32)
    for label, weight in _by_label(spec, n_classes).items():
        if not isinstance(label, (int, np.integer)) or not 0 <= label < n_classes:
            raise SpecError(f"a weight for class {label!r}", expected=f"classes as integers, 0 to {n_classes - 1}")
        if not isinstance(weight, (int, float, np.integer, np.floating)) or not 0 <= weight < math.inf:
            raise SpecError(f"weight {weight!r} for class {label}", expected="a number >= 0")
        if weight > float(np.finfo(np.float32).max):
            raise SpecError(f"weight {weight:g} for class {label} is beyond float32", expected="3.4e38 at most")
        weights[label] = weight
    return weights


def _by_label(spec: Any, n_classes: int) -> Mapping[Any, Any]:
    """Return weights by class, as they are or from one number a class."""
    if isinstance(spec, Mapping):
        return spec
    given = spec.tolist() if isinstance(spec, np.ndarray) else spec
    if not isinstance(given, Sequence) or len(given) != n_classes:
        what = f"{len(given)} class weights" if isinstance(given, Sequence) else f"class weights {given!r}"
        raise SpecError(what, expected=f"a number for each of {n_classes} classes, or {{class: weight}}")
    return dict(enumerate(given))


def class_counts(labels: Any, n_classes: int) -> Array:
    """Return how many samples each class has; negative labels are ignored.

    Raises
    ------
    SpecError
        A label is no integer, or beyond the classes.
    """
    flat = np.asarray(labels).reshape(-1)
    if flat.size and (flat.dtype.kind not in "iu" or flat.max() >= n_classes):
        raise SpecError(f"labels of {flat.dtype} up to {flat.max()}", expected=f"integers below {n_classes}")
    return np.bincount(flat[flat >= 0].astype(np.int64), minlength=n_classes)


def sampled(weights: Any, n: int, *, seed: int | tuple[int, ...], replace: bool = True) -> Array:
    """Return `n` sample indices, each drawn with a probability in proportion to its weight.

    Without replacement a sample of large weight comes early, not often. Determined by `seed`, such as (run, epoch).
    """
    w = np.asarray(weights, np.float64).reshape(-1)
    if not w.size or not np.isfinite(w).all() or w.min() < 0 or w.sum() == 0:
        raise SpecError(f"{w.size} sampling weights", expected="finite numbers >= 0, not all of them 0")
    if not replace and n > np.count_nonzero(w):
        raise SpecError(f"{n} samples without replacement from {np.count_nonzero(w)} of a weight above 0")
    rng = np.random.Generator(np.random.Philox(seed))
    if replace:
        edges = np.cumsum(w)
        found: Array = np.searchsorted(edges, rng.random(n) * edges[-1], side="right")
        return found.clip(0, np.flatnonzero(w)[-1])
    keys = rng.standard_exponential(w.size) / np.where(w > 0, w, 1)  # Efraimidis and Spirakis (2006)
    return np.argsort(np.where(w > 0, keys, np.inf), kind="stable")[:n]


@dataclass(frozen=True, slots=True)
class EffectiveWeights:
    """What class and sample weights come to.

    Parameters
    ----------
    counts
        Samples a class.
    weights
        The class weights.
    shares
        Each class's share of the loss's total weight.
    effective_samples
        Kish's effective sample size, ``sum(w)**2 / sum(w**2)``: how many equal samples have the same variance.
    """

    counts: tuple[int, ...]
    weights: tuple[float, ...]
    shares: tuple[float, ...]
    effective_samples: float

    def __str__(self) -> str:
        rows = [
            f"class {i}: {count:,} samples x {weight:.4g} = {100 * share:.1f} % of the loss"
            for i, (count, weight, share) in enumerate(zip(self.counts, self.weights, self.shares, strict=True))
        ]
        return "\n".join([*rows, f"worth {self.effective_samples:,.0f} of {sum(self.counts):,} equal samples"])


def effective_weights(labels: Any, class_weight: Array, sample_weight: Any = None) -> EffectiveWeights:
    """Return the report of `class_weight` (n_classes,) and `sample_weight` (a number a label; 1) over `labels`."""
    flat = np.asarray(labels).reshape(-1)
    counts = class_counts(flat, len(class_weight))
    given = np.ones(flat.size) if sample_weight is None else np.asarray(sample_weight, np.float64).reshape(-1)
    if given.size != flat.size:
        raise SpecError(f"{given.size} sample weights for {flat.size} labels")
    kept = flat >= 0
    w = given[kept] * np.asarray(class_weight, np.float64)[flat[kept]]
    totals = np.bincount(flat[kept], weights=w, minlength=len(class_weight))
    shares = totals / max(float(totals.sum()), 1e-300)
    size = float(w.sum()) ** 2 / max(float(np.square(w).sum()), 1e-300)
    return EffectiveWeights(tuple(counts.tolist()), tuple(map(float, class_weight)), tuple(shares.tolist()), size)

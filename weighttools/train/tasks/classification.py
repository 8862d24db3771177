"""Learning labels: one of several classes, or yes or no for one or more labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train import losses, weights
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.batches import Batch
from weighttools.train.tasks.task import (
    check_numbers,
    check_outputs,
    label_counts,
    loss_tally,
    mean_loss,
    ratio,
    row_weights,
    wanted,
    weight_sum,
)
from weighttools.transforms import initializer_ranges as ranges

IGNORED = -100
"""A label that does not count, as torch has it."""
_CONFUSION = 256
"""Up to this many classes, which was taken for which is counted too."""


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """One of `n_classes` for each sample, or for each position of each sample; labels of -100 do not count.

    Outputs are logits (batch, ..., n_classes), targets integers (batch, ...).

    Parameters
    ----------
    n_classes
        How many there are.
    class_weight
        None; a weight for some classes (the others have 1); `n_classes` weights, as a sequence or an array; or
        ``"balanced"``, from the training labels' counts.
    label_smoothing
        The share of the target that is spread evenly over the classes.
    focal_gamma
        Use the focal loss with this exponent.
    names
        What the classes are called, in order.
    """

    n_classes: int
    class_weight: Mapping[int, float] | Sequence[float] | Array | str | None = None
    label_smoothing: float = 0.0
    focal_gamma: float | None = None
    names: tuple[str, ...] = ()
    _weights: Array | None = None

    def __post_init__(self) -> None:
        if (
            not isinstance(self.n_classes, Integral)
            or self.n_classes < 1
            or not isinstance(self.names, (tuple, list))
            or (self.names and len(self.names) != self.n_classes)
        ):
            n_names = len(self.names) if isinstance(self.names, (tuple, list)) else repr(self.names)
            raise SpecError(
                f"{self.n_classes!r} classes with {n_names} names",
                expected="a whole number, 1 or more, and all named",
            )
        ranges.shares(self.name, label_smoothing=self.label_smoothing)
        if self.label_smoothing and self.focal_gamma is not None:
            raise SpecError(f"label smoothing {self.label_smoothing:g}", expected="none with the focal loss")
        ranges.amounts("the focal loss", gamma=self.focal_gamma or 0.0)
        if self._weights is None and self.class_weight is not None and not isinstance(self.class_weight, str):
            found = weights.class_weights(self.class_weight, [], self.n_classes)
            object.__setattr__(self, "_weights", found)

    @property
    def name(self) -> str:
        """``"classification"``."""
        return "classification"

    @property
    def is_weighted(self) -> bool:
        """Whether classes have weights."""
        return self.class_weight is not None

    def prepared(self, labels: Any) -> Classification:
        """Return the task with its class weights worked out.

        Raises
        ------
        SpecError
            A label is out of range, or no class that is there has a weight above 0.
        """
        flat = checked_labels(labels, self.n_classes)
        if self.class_weight is None:
            return self
        found = weights.class_weights(self.class_weight, flat, self.n_classes)
        if not found[flat[flat != IGNORED]].any():
            raise SpecError("every training sample has class weight 0", subject=self.name)
        return replace(self, _weights=found)

    def unweighted(self) -> Classification:
        """Return the task without class weights."""
        return replace(self, class_weight=None, _weights=None)

    def label_weights(self, labels: Any) -> Array:
        """Return each label's class weight; 0 for an ignored one."""
        flat = np.asarray(labels).reshape(-1)
        per_class = np.ones(self.n_classes) if self._weights is None else self._weights.astype(np.float64)
        return np.where(flat == IGNORED, 0.0, per_class[np.where(flat == IGNORED, 0, flat)])

    def report(self, labels: Any, sample_weight: Any = None) -> str:
        """Return what class and sample weights come to, a line a class."""
        per_class = np.ones(self.n_classes, np.float32) if self._weights is None else self._weights
        return str(weights.effective_weights(labels, per_class, sample_weight))

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Return the weighted mean cross-entropy, or focal loss."""
        self._check(outputs)
        options: dict[str, Any] = {"target": wanted(batch, self.name), "weight": self._class_weights()}
        options["sample_weight"] = batch.get("sample_weight")
        if self.focal_gamma is not None:
            return losses.focal(outputs, gamma=self.focal_gamma, **options)
        return losses.cross_entropy(outputs, label_smoothing=self.label_smoothing, **options)

    def weight(self, batch: Batch) -> float:
        """Return the sum of ``class_weight[label] * sample_weight`` over the labels that count."""
        labels = np.asarray(wanted(batch, self.name)).reshape(-1)
        if labels.dtype.kind not in "iu" or (labels >= self.n_classes).any():
            return float(labels.size)  # the loss says what is wrong
        return float(row_weights(batch, labels.size) @ self.label_weights(labels))

    def tally(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Return the loss's sums and counts a class: how often it was right, given, and true.

        A sample counts its ``sample_weight``; `seen` counts each once, for a class of weight 0 is there all the same.
        """
        sums = loss_tally(self, outputs, batch)
        labels = np.asarray(batch["target"]).reshape(-1)
        kept, n = labels != IGNORED, self.n_classes
        weight = None if batch.get("sample_weight") is None else row_weights(batch, labels.size)[kept]
        labels, given = labels[kept].astype(np.int64), np.asarray(outputs).reshape(-1, n).argmax(-1)[kept]
        same = labels == given
        sums |= {"right": label_counts(labels[same], n, None if weight is None else weight[same])}
        sums |= {"given": label_counts(given, n, weight), "true": label_counts(labels, n, weight)}
        sums["seen"] = label_counts(given, n, None) + label_counts(labels, n, None)
        if n <= _CONFUSION:
            sums["confusion"] = label_counts(labels * n + given, n * n, weight).reshape(n, n)
        return sums

    def metrics(self, tally: Mapping[str, Any]) -> dict[str, float]:
        """Return ``loss``, ``accuracy`` and ``f1_macro``, the mean F1 of the classes that are true or given at all."""
        right, given, true = tally["right"], tally["given"], tally["true"]
        f1, seen = ratio(2 * right, given + true), tally["seen"] > 0
        return {
            "loss": mean_loss(tally),
            "accuracy": float(ratio(right.sum(), true.sum())),
            "f1_macro": float(f1[seen].mean()) if seen.any() else 0.0,
        }

    def _class_weights(self) -> Array | None:
        if self.class_weight is not None and self._weights is None:
            raise SpecError(f"class weights {self.class_weight!r} need labels", remedy="task.prepared(training labels)")
        return self._weights

    def _check(self, outputs: Any) -> None:
        check_outputs(outputs, self.name)
        if outputs.ndim < 2 or outputs.shape[-1] != self.n_classes:
            raise SpecError(f"outputs of shape {outputs.shape}", expected=f"(batch, ..., {self.n_classes}) logits")


def checked_labels(labels: Any, n_classes: int) -> Array:
    """Return labels as one flat array of integers.

    Raises
    ------
    SpecError
        They are no integers, or one is out of range; its row is named.
    """
    array = np.asarray(labels)
    flat = array.reshape(-1)
    if flat.dtype.kind not in "iu":
        raise SpecError(
            f"labels are {array.dtype}",
            expected=f"integers from 0 to {n_classes - 1}",
            remedy="number them: names, labels = numpy.unique(labels, return_inverse=True)",
        )
    bad = np.flatnonzero((flat != IGNORED) & ((flat < 0) | (flat >= n_classes)))
    if bad.size:
        row = int(bad[0]) // max(1, flat.size // max(1, len(array)))
        fact = f"label {flat[bad[0]]} of sample {row} is out of range ({bad.size:,} such labels)"
        raise SpecError(fact, expected=f"0 to {n_classes - 1}, or {IGNORED} to ignore")
    return flat


@dataclass(frozen=True, slots=True, eq=False)
class Binary:
    """Yes or no: for each sample, or for each of several labels of each sample (multi-label).

    Outputs are logits (batch,), (batch, 1) or (batch, n_labels), targets 0 to 1 of as many elements.

    Parameters
    ----------
    pos_weight
        What a yes counts for, against 1 for a no: a number, one a label, or ``"balanced"``, the training labels' number
        of no a yes. The mean is not divided by it, as in torch.nn.BCEWithLogitsLoss.
    focal_gamma, focal_alpha
        Use the binary focal loss, with this exponent and this share for yes.
    threshold
        The probability from which on the answer is yes, in the metrics.
    names
        What the labels are called.
    """

    pos_weight: float | Sequence[float] | Array | str = 1.0
    focal_gamma: float | None = None
    focal_alpha: float | None = None
    threshold: float = 0.5
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ranges.amounts("the focal loss", gamma=self.focal_gamma or 0.0)
        if not isinstance(self.pos_weight, str):
            _check_weights(self.pos_weight)
        elif self.pos_weight != "balanced":
            raise SpecError(f"pos_weight {self.pos_weight!r}", subject=self.name, expected="numbers, or 'balanced'")
        alpha = 0.0 if self.focal_alpha is None else self.focal_alpha
        check_numbers("the focal loss", lambda x: 0 <= x <= 1, "a share, from 0 to 1", alpha=alpha)
        check_numbers(self.name, lambda x: 0 < x < 1, "a share above 0, below 1", threshold=self.threshold)

    @property
    def name(self) -> str:
        """``"binary"``."""
        return "binary"

    @property
    def is_weighted(self) -> bool:
        """Whether a yes counts otherwise than a no."""
        return isinstance(self.pos_weight, str) or not np.array_equal(self.pos_weight, 1.0)

    def prepared(self, labels: Any) -> Binary:
        """Return the task with its weights worked out.

        Raises
        ------
        SpecError
            A label is not from 0 to 1, or a balance has no yes.
        """
        true = self._target({"target": labels}).reshape(len(labels), -1) > 0.5
        if not isinstance(self.pos_weight, str):
            return self
        n_yes = true.sum(0)
        if not n_yes.all():
            raise SpecError("balanced, with 0 yes in a column of labels", subject=self.name, expected="one yes or more")
        return replace(self, pos_weight=tuple(((len(true) - n_yes) / n_yes).tolist()))

    def unweighted(self) -> Binary:
        """Return the task without weights."""
        return replace(self, pos_weight=1.0)

    def label_weights(self, labels: Any) -> Array:
        """Return each sample's weight for a sampler, of one label a sample."""
        weight = np.asarray(self._weights()).reshape(-1)
        if np.size(labels) != len(labels) or weight.size != 1:
            raise SpecError(f"labels of shape {np.shape(labels)}", subject="sampler", expected="one a sample")
        return np.where(np.asarray(labels).reshape(-1) > 0.5, weight[0], 1.0)

    def report(self, labels: Any, sample_weight: Any = None) -> str:
        """Return how often each label is yes, and what a yes counts for."""
        true = np.asarray(labels).reshape(len(labels), -1) > 0.5
        weight = np.broadcast_to(self._weights(), true.shape[1])
        names = self.names or [f"label {i}" for i in range(true.shape[1])]
        rows = zip(names, true.sum(0), weight, strict=False)
        return "\n".join(f"{name}: yes {n:,} of {len(true):,} x {w:.4g}" for name, n, w in rows)

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Return the mean binary cross-entropy, or focal loss, over samples and labels."""
        check_outputs(outputs, self.name)
        target = self._target(batch)
        x = outputs if outputs.shape == target.shape or np.size(target) != _size(outputs) else None
        x = outputs.reshape(*target.shape) if x is None else x
        options = {"target": target, "sample_weight": batch.get("sample_weight")}
        if self.focal_gamma is not None:
            return losses.binary_focal(x, gamma=self.focal_gamma, alpha=self.focal_alpha, **options)
        return losses.binary_cross_entropy(x, pos_weight=self._weights(), **options)

    def weight(self, batch: Batch) -> float:
        """Return the sum of the sample weights times the labels a sample has."""
        target = np.asarray(wanted(batch, self.name))
        return weight_sum(batch, len(target)) * target.size / max(1, len(target))

    def tally(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Return the loss's sums and counts a label: yes rightly, given and truly, and all that is right."""
        sums = loss_tally(self, outputs, batch)
        target = self._target(batch)
        true = target.reshape(len(target), -1) > 0.5
        edge = np.log(self.threshold / (1 - self.threshold))
        given = np.asarray(outputs).reshape(true.shape) >= edge
        weight = row_weights(batch, len(true))
        counts = {"right": weight @ (true & given), "given": weight @ given, "true": weight @ true}
        return sums | counts | {"same": float((weight @ (true == given)).sum()), "n": weight.sum() * true.shape[1]}

    def metrics(self, tally: Mapping[str, Any]) -> dict[str, float]:
        """Return ``loss``, ``accuracy`` (of single answers), and of yes ``precision``, ``recall``, ``f1``.

        With several labels the last three are their means.
        """
        right, given, true = tally["right"], tally["given"], tally["true"]
        return {
            "loss": mean_loss(tally),
            "accuracy": float(ratio(tally["same"], tally["n"])),
            "precision": float(ratio(right, given).mean()),
            "recall": float(ratio(right, true).mean()),
            "f1": float(ratio(2 * right, given + true).mean()),
        }

    def _weights(self) -> Array:
        if isinstance(self.pos_weight, str):
            raise SpecError(f"pos_weight {self.pos_weight!r} needs labels", remedy="task.prepared(training labels)")
        return np.asarray(self.pos_weight, np.float64)

    def _target(self, batch: Batch) -> Array:
        target = np.asarray(wanted(batch, self.name))
        if target.size and not (np.all(target >= 0) and np.all(target <= 1)):
            raise SpecError(f"targets from {target.min()} to {target.max()}", subject=self.name, expected="0 to 1")
        return target


def _check_weights(given: Any) -> None:
    weight = np.asarray(given)
    if weight.dtype.kind not in "fiu" or weight.ndim > 1 or not (np.isfinite(weight) & (weight >= 0)).all():
        raise SpecError(f"pos_weight {given!r}", subject="binary", expected="a number of 0 or more, or one a label")


def _size(x: Any) -> int:
    return int(np.prod(x.shape))

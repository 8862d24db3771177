"""Learning values, the next token, and which texts belong together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train import losses
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.batches import Batch
from weighttools.train.tasks.classification import IGNORED
from weighttools.train.tasks.task import (
    check_numbers,
    check_outputs,
    loss_tally,
    mean_loss,
    ratio,
    row_weights,
    wanted,
    weight_sum,
)
from weighttools.transforms import initializer_ranges as ranges

LOSSES: Mapping[str, Callable[..., Any]] = {"mse": losses.mse, "mae": losses.mae, "huber": losses.huber}


@dataclass(frozen=True, slots=True)
class Regression:
    """Values: outputs and targets (batch, ...) of as many elements.

    Parameters
    ----------
    error
        ``"mse"``, ``"mae"`` or ``"huber"``.
    delta
        Where Huber's loss turns linear.
    """

    error: str = "mse"
    delta: float = 1.0

    def __post_init__(self) -> None:
        if self.error not in list(LOSSES):
            raise SpecError(f"regression by {self.error!r}", expected=f"one of {', '.join(LOSSES)}")
        check_numbers("Huber's loss", lambda x: 0 < x < math.inf, "a number above 0", delta=self.delta)

    @property
    def name(self) -> str:
        """``"regression"``."""
        return "regression"

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Return the weighted mean error."""
        check_outputs(outputs, self.name)
        target = np.asarray(wanted(batch, self.name))
        same = outputs.shape == target.shape or int(np.prod(outputs.shape)) != target.size
        options: dict[str, Any] = {"delta": self.delta} if self.error == "huber" else {}
        x = outputs if same else outputs.reshape(*target.shape)
        return LOSSES[self.error](x, target=target, sample_weight=batch.get("sample_weight"), **options)

    def weight(self, batch: Batch) -> float:
        """Return the sum of the sample weights times the values a sample has."""
        target = np.asarray(wanted(batch, self.name))
        return weight_sum(batch, len(target)) * target.size / max(1, len(target))

    def tally(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Return the loss's sums and those of the errors and targets by weight, in float64, a column a value."""
        sums = loss_tally(self, outputs, batch)
        target = np.asarray(batch["target"], np.float64)
        target = target.reshape(len(target), -1)
        error = np.asarray(outputs, np.float64).reshape(target.shape) - target
        weight = row_weights(batch, len(target))
        return sums | {
            "absolute": weight @ np.abs(error),
            "squared": weight @ np.square(error),
            "target": weight @ target,
            "target_squared": weight @ np.square(target),
            "n": weight.sum(),
        }

    def metrics(self, tally: Mapping[str, Any]) -> dict[str, float]:
        """Return ``loss``, ``mse``, ``mae`` and ``r2``, the mean of the columns that vary."""
        loss, n = mean_loss(tally), tally["n"]
        around = tally["target_squared"] - np.square(tally["target"]) / n
        varies = around > 1e-12 * tally["target_squared"]
        r2 = 1 - ratio(tally["squared"], around)
        return {
            "loss": loss,
            "mse": float(np.mean(tally["squared"] / n)),
            "mae": float(np.mean(tally["absolute"] / n)),
            "r2": float(r2[varies].mean()) if varies.any() else 0.0,
        }


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """The next token: outputs logits (batch, positions, vocabulary), targets (batch, positions), -100 where none.

    Parameters
    ----------
    label_smoothing
        As of `Classification`.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        ranges.shares("the language model's loss", label_smoothing=self.label_smoothing)

    @property
    def name(self) -> str:
        """``"language model"``."""
        return "language model"

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Return the mean cross-entropy a token, in nats."""
        check_outputs(outputs, self.name)
        return losses.cross_entropy(
            outputs,
            target=wanted(batch, self.name),
            sample_weight=batch.get("sample_weight"),
            label_smoothing=self.label_smoothing,
        )

    def weight(self, batch: Batch) -> float:
        """Return the number of tokens that count, each times its sample's weight."""
        labels = np.asarray(wanted(batch, self.name)).reshape(-1)
        return float(row_weights(batch, labels.size) @ (labels != IGNORED))

    def tally(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Return the loss's sums, the tokens that count, and those that were the likeliest."""
        sums = loss_tally(self, outputs, batch)
        labels, given = np.asarray(batch["target"]).reshape(-1), np.asarray(outputs).argmax(-1).reshape(-1)
        weight = row_weights(batch, labels.size)
        return sums | {"n": float(weight @ (labels != IGNORED)), "right": float(weight @ (labels == given))}

    def metrics(self, tally: Mapping[str, Any]) -> dict[str, float]:
        """Return ``loss``, ``perplexity`` and ``accuracy``."""
        loss = mean_loss(tally)
        accuracy = float(ratio(tally["right"], tally["n"]))
        return {"loss": loss, "perplexity": losses.perplexity(loss), "accuracy": accuracy}


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two sides that belong together, or do not.

    Outputs are two arrays (batch, size), or one (2 batch, size): all left sides, then all right sides.

    Parameters
    ----------
    error
        ``"contrastive"``: each left side must find its right side among those of the batch (no targets, no sample
        weights; larger batches are harder, and small ones do not add up to a large one). ``"cosine"``: targets (batch,)
        are 1 for pairs that belong together and -1 for others.
    temperature, symmetric
        Of the contrastive loss.
    margin
        Of the cosine loss.
    """

    error: str = "contrastive"
    temperature: float = 0.05
    symmetric: bool = False
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.error not in ("contrastive", "cosine"):
            raise SpecError(f"pairs by {self.error!r}", expected="contrastive or cosine")
        check_numbers(self.name, lambda x: 0 < x < math.inf, "a number above 0", temperature=self.temperature)
        check_numbers(self.name, lambda x: -1 <= x <= 1, "a cosine, from -1 to 1", margin=self.margin)

    @property
    def name(self) -> str:
        """``"pairs"``."""
        return "pairs"

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Return the mean over the pairs."""
        a, b = _sides(outputs)
        if self.error == "cosine":
            target, weight = wanted(batch, self.name), batch.get("sample_weight")
            return losses.cosine_embedding(a, b, target=target, margin=self.margin, sample_weight=weight)
        if batch.get("sample_weight") is not None:
            raise SpecError("the contrastive loss takes no sample weights", remedy='Pairs("cosine"), or leave them out')
        return losses.contrastive(a, b, temperature=self.temperature, symmetric=self.symmetric)

    def weight(self, batch: Batch) -> float:
        """Return the number of pairs, or the sum of their weights."""
        if self.error == "cosine":
            return weight_sum(batch, len(wanted(batch, self.name)))
        first = next(v for k, v in batch.items() if k != "seed")
        return float(len(first))

    def tally(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Return the loss's sums, and how many pairs were told right."""
        a, b = (np.asarray(side) for side in _sides(outputs))
        if self.error == "cosine":
            sign = np.where(losses.cosine_similarity(a, b) > self.margin, 1, -1)
            same = sign == np.asarray(wanted(batch, self.name))
        else:
            scores = _unit(a) @ _unit(b).T
            same = scores.argmax(1) == np.arange(len(a))
        weight = row_weights(batch, len(a))
        return loss_tally(self, outputs, batch) | {"right": float(weight @ same), "n": float(weight.sum())}

    def metrics(self, tally: Mapping[str, Any]) -> dict[str, float]:
        """Return ``loss`` and ``accuracy``: pairs found within their batch, or told by the sign of the cosine."""
        return {"loss": mean_loss(tally), "accuracy": float(ratio(tally["right"], tally["n"]))}


def _unit(x: Array) -> Any:
    return x / np.maximum(np.sqrt(np.square(x).sum(-1, keepdims=True)), 1e-12)


def _sides(outputs: Any) -> tuple[Any, Any]:
    if isinstance(outputs, (tuple, list)) and len(outputs) == 2:
        for side in outputs:
            check_outputs(side, "pairs")
        return outputs[0], outputs[1]
    check_outputs(outputs, "pairs")
    if outputs.ndim != 2 or outputs.shape[0] % 2:
        raise SpecError(f"outputs of shape {outputs.shape}", subject="pairs", expected="two sides, or (2 batch, size)")
    n = outputs.shape[0] // 2
    return outputs[:n], outputs[n:]

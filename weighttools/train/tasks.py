"""What a model is trained for: the loss of a batch, and figures that add up over batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from weighttools.train.batches import Batch


class Task(Protocol):
    """A loss and metrics over a model's outputs."""

    @property
    def name(self) -> str:
        """Say what is learnt, as ``"classification"``."""

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Return the scalar to minimise: the weighted mean over the batch; `outputs` may be a variable."""

    def weight(self, batch: Batch) -> float:
        """Return the sum of the weights that the mean was taken over, so that means of batches combine rightly."""

    def tally(self, outputs: Any, batch: Batch) -> dict[str, float]:
        """Return sums over the batch, plain numbers, from which `metrics` makes figures."""

    def metrics(self, tally: Mapping[str, float]) -> dict[str, float]:
        """Return figures by their usual names from the sums of all batches, ``loss`` first."""

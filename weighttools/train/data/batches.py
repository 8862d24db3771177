"""What training data is: something with a length that gives a batch for any choice of its samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from weighttools.train.autograd.gradients import Array

Batch = Mapping[str, Any]
"""Arrays by their meaning, all with the batch's samples along the first axis unless said otherwise.

``inputs``
    Features (batch, ...) of a model of arrays.
``ids``, ``mask``, ``segments``
    Tokens (batch, positions), True at real ones, and token types, of a model of text.
``target``
    Labels (batch,), values (batch, ...), or the tokens to predict (batch, positions) with -100 where none is.
``sample_weight``
    (batch,), finite and not negative; 1 where it is absent.
``seed``
    Put there by `fit`, and absent when a model is measured: a tuple of integers (run, step, batch of the step) for
    ``dropout(x, rate=0.1, seed=(*batch["seed"], layer) if "seed" in batch else None)``.
"""


@runtime_checkable
class Data(Protocol):
    """Samples that can be asked for in any order, so that shuffling and resuming need no replay.

    It may also have ``column(name)``, which returns what all batches hold under a name, or None, without making the
    batches; where it is missing, labels and weights are gathered batch by batch if they are needed beforehand.
    """

    def __len__(self) -> int:
        """Return the number of samples."""

    def batch(self, indices: Array) -> Batch:
        """Return the samples at `indices` (integers) as one batch."""

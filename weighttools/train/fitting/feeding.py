"""Which samples come when: batches by (seed, epoch) alone, held-out samples by the seed, columns gathered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.arrays import ArrayColumns, arrays
from weighttools.train.data.batches import Batch, Data
from weighttools.train.weights import sampled

SHUFFLE, SPLIT = 0, 1
"""Second words of the seeds, so that no two uses of a seed draw the same numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class Subset:
    """Some samples of `data`."""

    data: Data
    indices: Array

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Array) -> Batch:
        """Return the samples at `indices` of the subset."""
        return self.data.batch(self.indices[indices])

    def column(self, name: str) -> Array | None:
        """Return the subset of a column."""
        found = column(self.data, name)
        return None if found is None else found[self.indices]


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """Batches of an epoch, in an order that only the seed and the epoch decide.

    Parameters
    ----------
    data
        The samples.
    batch_size
        Samples a batch; the last of an epoch may have fewer.
    seed
        Of the order; None for the data's own order.
    weights
        Draw samples in proportion to these, with replacement, as many as there are; None to take each once.
    """

    data: Data
    batch_size: int
    seed: int | None = None
    weights: Array | None = None

    @property
    def n_batches(self) -> int | None:
        """Batches an epoch."""
        return -(-len(self.data) // self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from number `start` on."""
        order = self._order(epoch)
        for at in range(start * self.batch_size, len(order), self.batch_size):
            batch = self.data.batch(order[at : at + self.batch_size])
            yield batch if self.weights is None else {k: v for k, v in batch.items() if k != "sample_weight"}

    def _order(self, epoch: int) -> Array:
        n = len(self.data)
        if self.seed is None:
            return np.arange(n)
        if self.weights is not None:
            return sampled(self.weights, n, seed=(self.seed, SHUFFLE, epoch))
        return np.random.Generator(np.random.Philox([self.seed, SHUFFLE, epoch])).permutation(n)


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Batches made elsewhere, taken as they come: mappings, or (inputs, target) or (inputs, target, weight)."""

    source: Iterable[Any]

    @property
    def n_batches(self) -> int | None:
        """Batches an epoch, if they can be counted."""
        return len(self.source) if isinstance(self.source, Sized) else None

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches from number `start` on.

        Raises
        ------
        SpecError
            There is none, as of an iterator that was gone through before; or one is empty.
        """
        i = -1
        for i, batch in enumerate(self.source):
            if i >= start:
                yield _as_batch(batch, i)
        if i < 0:
            raise SpecError(
                "it gave no batches", subject="data", expected="one or more each time",
                remedy="a generator ends after one epoch: give a list, or an object whose __iter__ begins anew",
            )  # fmt: skip


def _as_batch(batch: Any, i: int) -> Batch:
    if not isinstance(batch, Mapping):
        if not isinstance(batch, Sequence) or not 1 <= len(batch) <= 3:
            raise SpecError(f"batch {i} is a {type(batch).__name__}", expected="a mapping, or (inputs, target, weight)")
        batch = dict(zip(("inputs", "target", "sample_weight"), batch, strict=False))
    found = {name: value if name == "seed" else np.asarray(value) for name, value in batch.items()}
    if not found or any(value.ndim == 0 or not len(value) for name, value in found.items() if name != "seed"):
        raise SpecError(f"batch {i} is empty", subject="data", expected="one sample or more")
    return found


def as_data(data: Any) -> Data | Given:
    """Return what `fit` and `evaluate` take, as data or as batches made elsewhere; an array alone is inputs.

    Raises
    ------
    SpecError
        It is nothing of the kind, or there are no samples.
    """
    if isinstance(data, np.ndarray):
        return arrays(data)
    if isinstance(data, Sized) and not isinstance(data, (str, bytes)) and not len(data):
        raise SpecError("there are no samples", subject="data", expected="one or more")
    if isinstance(data, Data):
        return data
    if isinstance(data, Mapping):
        known = {"inputs": "x", "target": "y"}
        return arrays(**{known.get(name, str(name)): value for name, value in data.items()})
    if isinstance(data, tuple) and 1 <= len(data) <= 3 and all(isinstance(part, np.ndarray) for part in data):
        return arrays(*data)
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        return Given(data)
    raise SpecError(
        f"a {type(data).__name__}", subject="data", expected="train.data.arrays(x, y), data with batch(), or batches"
    )


def feed(data: Data | Given, batch_size: int, seed: int | None = None, weights: Array | None = None) -> Feed | Given:
    """Return the batches of `data`: in its own order, or by `seed`."""
    return data if isinstance(data, Given) else Feed(data, batch_size, seed, weights)


def column(data: Any, name: str) -> Array | None:
    """Return what all samples hold under `name`: (n, ...), flat if their lengths differ; None if they have none."""
    if hasattr(data, "column"):
        found = data.column(name)
        return None if found is None else np.asarray(found)
    parts = []
    for batch in Feed(data, 256).batches(0):
        if batch.get(name) is None:
            return None
        parts.append(np.asarray(batch[name]))
    if len({part.shape[1:] for part in parts}) > 1:
        parts = [part.reshape(-1) for part in parts]
    return np.concatenate(parts) if parts else None


def split(data: Data, share: float, seed: int, labels: Array | None = None) -> tuple[Subset, Subset]:
    """Return training and validation samples.

    Parameters
    ----------
    data
        All samples.
    share
        Of the validation samples, above 0 and below 1.
    seed
        Decides which.
    labels
        (n,) integers: take the share of each label as nearly as whole samples allow, but never all of one.

    Raises
    ------
    SpecError
        The share leaves nothing on one side.
    """
    n = len(data)
    n_held = round(n * share) if 0 < share < 1 else 0
    if not 0 < n_held < n:
        raise SpecError(
            f"a share of {share:g} of {n:,} samples", subject="validation", expected="samples on both sides"
        )
    rng = np.random.Generator(np.random.Philox([seed, SPLIT]))
    order = rng.permutation(n)
    held = order[:n_held] if labels is None else _stratified(order, labels, n_held)
    is_held = np.zeros(n, bool)
    is_held[held] = True
    return Subset(data, np.flatnonzero(~is_held)), Subset(data, np.flatnonzero(is_held))


def _stratified(order: Array, labels: Array, n_held: int) -> Array:
    """Return the first samples in `order` of each label, as many as its share by largest remainders."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    exact = counts * (n_held / counts.sum())
    take = np.minimum(np.floor(exact).astype(np.int64), counts - 1)
    by_remainder = np.argsort(-(exact - take), kind="stable")
    for i in by_remainder:
        if take.sum() < n_held and take[i] < counts[i] - 1:
            take[i] += 1
    shuffled = codes.reshape(-1)[order]
    return np.concatenate([order[shuffled == code][:k] for code, k in enumerate(take)])


def cast(batch: Batch, dtype: Any) -> Batch:
    """Return the batch with its floating arrays in the model's dtype: float64 beside float32 would spread."""
    kinds = {name: getattr(value, "dtype", None) for name, value in batch.items()}
    wrong = {name for name, kind in kinds.items() if kind is not None and kind.kind == "f" and kind != dtype}
    return {name: value.astype(dtype) if name in wrong else value for name, value in batch.items()} if wrong else batch


def n_samples(batch: Batch) -> int:
    """Return the number of samples of a batch."""
    for name in ("target", "inputs", "ids"):
        if batch.get(name) is not None:
            return len(batch[name])
    return len(next(value for name, value in batch.items() if name != "seed"))


def n_units(batch: Batch) -> tuple[int, str]:
    """Return what a batch's speed is told by: its real tokens, or its samples."""
    if batch.get("mask") is not None:
        return int(np.count_nonzero(batch["mask"])), "tokens"
    if batch.get("ids") is not None:
        return int(np.size(batch["ids"])), "tokens"
    return n_samples(batch), "samples"


__all__ = [
    "ArrayColumns",
    "Feed",
    "Given",
    "Subset",
    "as_data",
    "cast",
    "column",
    "feed",
    "n_samples",
    "n_units",
    "split",
]

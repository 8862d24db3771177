"""Sums of gradients over several batches, and averages of weights over many steps, in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.parallel import blocks, scratch, spread


def _move(old: Array, new: Array, share: float) -> None:
    """Move `old` towards `new` by `share`, in place, piece by piece."""
    flat_old, flat_new = old.reshape(-1), new.reshape(-1)

    def kernel(start: int, stop: int) -> None:
        (t,) = scratch((stop - start,), 1, old.dtype)
        np.subtract(flat_new[start:stop], flat_old[start:stop], out=t)
        t *= share
        flat_old[start:stop] += t

    spread(kernel, blocks(old.size))


@dataclass(slots=True)
class Accumulation:
    """The mean of gradients over several small batches, weighted by what each batch counts for.

    With cross-entropy, give each batch the sum of its weights (its tokens), or the mean is not that of one large batch.
    """

    total: float = 0.0
    mean: dict[str, Array] = field(default_factory=dict)

    def add(self, grads: Mapping[str, Array], weight: float = 1.0) -> None:
        """Take a batch's gradients in; they are copied the first time."""
        if not weight > 0:
            raise SpecError(f"a batch of weight {weight}", expected="a number above 0")
        self.total += weight
        for name, grad in grads.items():
            if name not in self.mean:
                self.mean[name] = np.zeros(grad.shape, grad.dtype)
            _move(self.mean[name], grad, weight / self.total)
        for name in self.mean.keys() - grads.keys():
            self.mean[name] *= 1 - weight / self.total

    def take(self) -> dict[str, Array]:
        """Return the mean and begin again."""
        mean, self.mean, self.total = self.mean, {}, 0.0
        return mean


@dataclass(slots=True)
class Average:
    """An average of the weights, kept beside them: exponential (EMA), or equal over all that it sees (SWA).

    Parameters
    ----------
    decay
        The share of the old average that an update keeps; None for the equal mean.
    arrays
        The average, by name; empty before the first update, which copies the weights.
    n_updates
        How many there were.

    References
    ----------
    Polyak and Juditsky (1992); Izmailov et al., Averaging Weights Leads to Wider Optima, arXiv:1803.05407.
    """

    decay: float | None = 0.999
    arrays: dict[str, Array] = field(default_factory=dict)
    n_updates: int = 0

    def __post_init__(self) -> None:
        if self.decay is not None and not (isinstance(self.decay, Real) and 0 <= self.decay < 1):
            raise SpecError(f"decay {self.decay!r}", subject="a moving average", expected="0 or more, below 1")

    def update(self, params: Mapping[str, Array]) -> None:
        """Take the weights in as they are now."""
        self.n_updates += 1
        share = 1 / self.n_updates if self.decay is None else 1 - self.decay
        for name, p in params.items():
            if name in self.arrays:
                _move(self.arrays[name], p, share)
            else:
                self.arrays[name] = np.array(p, order="C")


def ema(decay: float = 0.999) -> Average:
    """Return an exponential moving average of weights."""
    return Average(decay)


def swa() -> Average:
    """Return an equal average of weights; update it once an epoch, late in training."""
    return Average(None)

"""Stages of an optimiser that need a parameter whole, in its shape: rows and columns, or the matrix itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.optim.sums import rms
from weighttools.train.optim.transforms import ParameterRun, Shapes, Stateless, Step
from weighttools.transforms import initializer_ranges as ranges


@dataclass(frozen=True, slots=True)
class Adafactor(Stateless):
    """Adafactor with relative step sizes: a row and a column of second moments instead of a matrix.

    Parameters
    ----------
    beta2_decay
        Step t replaces the share ``t ** beta2_decay`` of the mean squares by its own.
    eps
        The least root mean square of a parameter that its steps are scaled by.
    clip
        The largest root mean square of an update before it is scaled (the paper's d).

    References
    ----------
    Shazeer and Stern, Adafactor, arXiv:1804.04235, algorithms 4 and 5, as torch.optim.Adafactor has them.
    """

    beta2_decay: float = -0.8
    eps: float = 1e-3
    clip: float = 1.0
    whole = True

    def __post_init__(self) -> None:
        ranges.amounts("Adafactor", eps=self.eps)
        ranges.limits("Adafactor", clip=self.clip)
        ranges.plain(self)
        if not self.beta2_decay <= 0:
            raise SpecError(f"beta2 decay {self.beta2_decay:g}", subject="Adafactor", expected="0 or less")

    def slots(self, p: Array) -> Shapes:
        """Keep a mean square for each row and column, or for each element of a vector."""
        if p.ndim < 2:
            return {"squares": p.shape}
        return {"row_squares": (*p.shape[:-1], 1), "column_squares": (*p.shape[:-2], 1, p.shape[-1])}

    def begin(self, step: Step) -> tuple[float, float]:
        """Return the share of the new squares, and the largest rate."""
        return step.number**self.beta2_decay, step.number**-0.5

    def kernel(self, u: Array, out: Array, piece: ParameterRun, common: tuple[float, float], gain: float) -> Array:
        """Divide by the estimated root mean squares; clip and scale by the parameter's own size."""
        tiny = float(np.finfo(u.dtype).eps)
        np.multiply(u, u, out=piece.scratch)
        if u.ndim < 2:
            estimate = _lerp(piece.slots["squares"], piece.scratch, common[0]).copy()
        else:
            rows = _lerp(piece.slots["row_squares"], piece.scratch.mean(-1, keepdims=True), common[0])
            columns = _lerp(piece.slots["column_squares"], piece.scratch.mean(-2, keepdims=True), common[0])
            estimate = np.matmul(rows, columns)
            estimate /= np.maximum(rows.mean(-2, keepdims=True), tiny)
        np.divide(u, np.sqrt(np.maximum(estimate, tiny * tiny, out=estimate), out=estimate), out=out)
        alpha = max(self.eps, rms(piece.p)) * min(gain, common[1])
        out *= alpha / max(1.0, rms(out) / self.clip)
        return out


@dataclass(frozen=True, slots=True)
class Muon(Stateless):
    """Momentum made near-orthogonal by Newton-Schulz iterations, for matrices.

    The rate is scaled by ``sqrt(max(1, rows / columns))``, or, with `match_adam`, by ``0.2 sqrt(max(rows, columns))``
    so that a rate found for AdamW serves. Computed in the parameter's dtype (torch.optim.Muon: bfloat16).

    References
    ----------
    Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024); Liu et al., arXiv:2502.16982.
    """

    momentum: float = 0.95
    nesterov: bool = True
    n_iterations: int = 5
    match_adam: bool = False
    whole = True

    def __post_init__(self) -> None:
        ranges.shares("Muon", momentum=self.momentum)
        ranges.counts("Muon", n_iterations=self.n_iterations)
        ranges.plain(self)

    def slots(self, p: Array) -> Shapes:
        """Keep the momentum."""
        if p.ndim != 2:
            raise SpecError(f"a parameter of shape {p.shape}", subject="Muon", expected="a matrix")
        return {"momentum": p.shape}

    def kernel(self, u: Array, out: Array, piece: ParameterRun, common: Any, gain: float) -> Array:
        """Update the momentum and make it near-orthogonal."""
        m = _lerp(piece.slots["momentum"], u, 1 - self.momentum)
        update = u + (m - u) * self.momentum if self.nesterov else m
        rows, columns = u.shape
        factor = 0.2 * math.sqrt(max(rows, columns)) if self.match_adam else math.sqrt(max(1, rows / columns))
        return np.multiply(near_orthogonal(update, self.n_iterations), factor * gain, out=out)


def near_orthogonal(x: Array, n_iterations: int = 5) -> Array:
    """Return a matrix with the singular vectors of `x` and singular values of about 0.7 to 1.2.

    The quintic Newton-Schulz iteration of Muon, on the side with fewer rows.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    y = x if x.shape[0] <= x.shape[1] else x.T
    y = y / max(float(np.sqrt(np.vdot(y, y))), 1e-7)
    for _ in range(n_iterations):
        gram = y @ y.T
        y = a * y + (b * gram + c * (gram @ gram)) @ y
    return y if x.shape[0] <= x.shape[1] else y.T


def _lerp(old: Array, new: Array, share: float) -> Array:
    """Move `old` towards `new` by `share`, in place."""
    old += (new - old) * share
    return old

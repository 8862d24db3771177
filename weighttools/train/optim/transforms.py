"""The stages of an optimiser: each turns an update into another, piece by piece, in place.

A stage is a frozen dataclass with

- ``slots(p)``: the shapes of the state it keeps beside a parameter, by slot name; the arrays start at zero, in the
  parameter's dtype unless ``dtypes`` has another, and with an element a parameter unless ``strides`` says for how many;
- ``begin(step)``: what is the same for all parameters in one step (any value; None by default);
- ``kernel(u, out, piece, common, gain)``: return the new update, times `gain`. It may write to `out` (which may be
  `u`) and to the piece's slots and scratch; it must not write to `u` otherwise, which may be the gradient;
- ``whole``: True if the kernel needs the whole tensor in its shape; else pieces are flat and fit the cache.

Constants are Python floats, which never promote float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.optim.sums import global_norm
from weighttools.transforms import initializer_ranges as ranges

Shapes = dict[str, tuple[int, ...]]


class Step(NamedTuple):
    """What all parameters share in one step: its number from 1, the gradients, and their joint norm if it is known."""

    number: int
    grads: Mapping[str, Array]
    norm: float | None = None


class ParameterRun(NamedTuple):
    """A run of one parameter: its values, its state by slot, scratch of the same shape, and whether it decays."""

    p: Array
    slots: Mapping[str, Array]
    scratch: Array
    decays: bool


class Transform(Protocol):
    """See the module."""

    @property
    def whole(self) -> bool: ...
    @property
    def dtypes(self) -> Mapping[str, Any]: ...
    @property
    def strides(self) -> Mapping[str, int]: ...
    def slots(self, p: Array) -> Shapes: ...
    def begin(self, step: Step) -> Any: ...
    def kernel(self, u: Array, out: Array, piece: ParameterRun, common: Any, gain: float) -> Array: ...


class Stateless:
    """A stage that keeps nothing and works on pieces."""

    __slots__ = ()
    whole = False
    dtypes: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    strides: ClassVar[Mapping[str, int]] = MappingProxyType({})

    def slots(self, p: Array) -> Shapes:
        """Return no slots."""
        return {}

    def begin(self, step: Step) -> Any:
        """Return nothing."""
        return None


@dataclass(frozen=True, slots=True)
class Scale(Stateless):
    """The update times a number."""

    factor: float = 1.0

    def kernel(self, u: Array, out: Array, piece: ParameterRun, common: Any, gain: float) -> Array:
        """Multiply."""
        return np.multiply(u, self.factor * gain, out=out)


@dataclass(frozen=True, slots=True)
class ClipNorm(Stateless):
    """All gradients scaled together so that their joint 2-norm is at most `limit`, as torch's clip_grad_norm_.

    References
    ----------
    Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, arXiv:1211.5063, algorithm 1.
    """

    limit: float

    def __post_init__(self) -> None:
        ranges.limits("clipping by norm", limit=self.limit)
        ranges.plain(self)

    def begin(self, step: Step) -> float:
        """Return the norm."""
        return global_norm(step.grads) if step.norm is None else step.norm

    def factor(self, norm: float) -> float:
        """Return what gradients of this joint norm are multiplied by."""
        return min(1.0, self.limit / (norm + 1e-6))

    def kernel(self, u: Array, out: Array, piece: ParameterRun, common: float, gain: float) -> Array:
        """Multiply, if there is anything to do."""
        factor = gain * self.factor(common)
        return u if factor == 1 else np.multiply(u, factor, out=out)


@dataclass(frozen=True, slots=True)
class ClipValue(Stateless):
    """Each element held between -limit and limit, as torch's clip_grad_value_."""

    limit: float

    def __post_init__(self) -> None:
        ranges.limits("clipping by value", limit=self.limit)
        ranges.plain(self)

    def kernel(self, u: Array, out: Array, piece: ParameterRun, common: Any, gain: float) -> Array:
        """Clip."""
        np.clip(u, -self.limit, self.limit, out=out)
        return out if gain == 1 else np.multiply(out, gain, out=out)


@dataclass(frozen=True, slots=True)
class Penalty(Stateless):
    """The gradient of an L2 penalty ``l2 / 2 * sum(p**2)`` and of an L1 penalty, for parameters that decay."""

    l2: float = 0.0
    l1: float = 0.0

    def __post_init__(self) -> None:
        ranges.amounts("a penalty", l1=self.l1, l2=self.l2)
        ranges.plain(self)

    def kernel(self, u: Array, out: Array, piece: ParameterRun, common: Any, gain: float) -> Array:
        """Add the penalties' gradients."""
        if piece.decays and self.l2:
            u = np.add(u, np.multiply(piece.p, self.l2, out=piece.scratch), out=out)
        if piece.decays and self.l1:
            sign = np.sign(piece.p, out=piece.scratch)
            sign *= self.l1
            u = np.add(u, sign, out=out)
        return u if gain == 1 else np.multiply(u, gain, out=out)


@dataclass(frozen=True, slots=True)
class Momentum(Stateless):
    """``m = momentum m + u``; the update is m, or with Nesterov's look-ahead ``u + momentum m``.

    References
    ----------
    Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013, in the form of
    torch.optim.SGD: the rate multiplies m and is not in it.
    """

    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        ranges.shares("momentum", momentum=self.momentum)
        ranges.plain(self)
        if self.nesterov and not self.momentum:
            raise SpecError("Nesterov's look-ahead without momentum", subject="momentum", expected="a momentum above 0")

    def slots(self, p: Array) -> Shapes:
        """Keep the running sum."""
        return {"momentum": p.shape}

    def kernel(self, u: Array, out: Array, piece: ParameterRun, common: Any, gain: float) -> Array:
        """Update the sum."""
        m = piece.slots["momentum"]
        m *= self.momentum
        m += u
        if not self.nesterov:
            return np.multiply(m, gain, out=out)
        np.add(u, np.multiply(m, self.momentum, out=piece.scratch), out=out)
        return out if gain == 1 else np.multiply(out, gain, out=out)


@dataclass(frozen=True, slots=True)
class Adam(Stateless):
    """Adam's update.

    Notes
    -----
    The moments are kept as plain sums, ``m = beta1 m + g`` and ``v = beta2 v + g**2``: those of the paper divided by
    ``1 - beta``. That and the bias corrections go into two numbers, which saves two sweeps.

    References
    ----------
    Kingma and Ba, Adam, arXiv:1412.6980, algorithm 1.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", _shares("Adam", self.betas))
        ranges.amounts("Adam", eps=self.eps)
        ranges.plain(self)

    def slots(self, p: Array) -> Shapes:
        """Keep the sums of the gradients and of their squares."""
        return {"first_moment_sum": p.shape, "second_moment_sum": p.shape}

    def begin(self, step: Step) -> tuple[float, float]:
        """Return the factor of the update and eps, both divided by the factor of the root."""
        (b1, b2), t = self.betas, step.number
        root = math.sqrt((1 - b2) / (1 - b2**t))
        return (1 - b1) / (1 - b1**t) / root, self.eps / root

    def kernel(self, u: Array, out: Array, piece: ParameterRun, common: tuple[float, float], gain: float) -> Array:
        """Update both sums and divide."""
        m, v = piece.slots["first_moment_sum"], piece.slots["second_moment_sum"]
        m *= self.betas[0]
        m += u
        v *= self.betas[1]
        v += np.multiply(u, u, out=piece.scratch)
        np.sqrt(v, out=out)
        out += common[1]
        np.divide(m, out, out=out)
        out *= common[0] * gain
        return out


@dataclass(frozen=True, slots=True)
class RootMeanSquare(Stateless):
    """The update divided by the root of its decaying mean square (RMSprop), or of its sum of squares (Adagrad).

    `alpha` is what the mean keeps of its past in a step; None makes it the sum. `eps` is added to the root.

    References
    ----------
    Tieleman and Hinton, Coursera lecture 6.5, 2012; Duchi, Hazan and Singer, JMLR 12, 2011; as torch has them.
    """

    alpha: float | None = 0.99
    eps: float = 1e-8

    def __post_init__(self) -> None:
        subject = "Adagrad" if self.alpha is None else "RMSprop"
        ranges.shares(subject, alpha=0.0 if self.alpha is None else self.alpha)
        ranges.amounts(subject, eps=self.eps)
        ranges.plain(self)

    def slots(self, p: Array) -> Shapes:
        """Keep the squares."""
        return {"squares": p.shape}

    def kernel(self, u: Array, out: Array, piece: ParameterRun, common: Any, gain: float) -> Array:
        """Update the squares and divide."""
        s, t = piece.slots["squares"], np.multiply(u, u, out=piece.scratch)
        if self.alpha is not None:
            s *= self.alpha
            t *= 1 - self.alpha
        s += t
        np.sqrt(s, out=t)
        t += self.eps
        np.divide(u, t, out=out)
        return out if gain == 1 else np.multiply(out, gain, out=out)


@dataclass(frozen=True, slots=True)
class Lion(Stateless):
    """The sign of an interpolated momentum.

    References
    ----------
    Chen et al., Symbolic Discovery of Optimization Algorithms, arXiv:2302.06675, algorithm 2.
    """

    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", _shares("Lion", self.betas))
        ranges.plain(self)

    def slots(self, p: Array) -> Shapes:
        """Keep the momentum."""
        return {"momentum": p.shape}

    def kernel(self, u: Array, out: Array, piece: ParameterRun, common: Any, gain: float) -> Array:
        """Take the sign, then update the momentum."""
        m, t = piece.slots["momentum"], np.subtract(u, piece.slots["momentum"], out=piece.scratch)
        np.multiply(t, 1 - self.betas[0], out=out)
        out += m
        np.sign(out, out=out)
        t *= 1 - self.betas[1]
        m += t
        return out if gain == 1 else np.multiply(out, gain, out=out)


def _shares(subject: str, betas: Any) -> tuple[float, float]:
    """Return two shares of the past, checked, as a tuple, which stages must be to be told apart."""
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise SpecError(f"betas {betas!r}", subject=subject, expected="two numbers, as (0.9, 0.999)")
    ranges.shares(subject, beta1=betas[0], beta2=betas[1])
    return betas[0], betas[1]

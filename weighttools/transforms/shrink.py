"""Weight decay after the fact, and its kin: scaling, clipping, noise. All work in float64 and round once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from weighttools.core.fold import Blocks
from weighttools.core.random_numbers import SEGMENT, Numbers
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import SpecError, option
from weighttools.io.progress import Progress, silent
from weighttools.transforms.counting import planning_bytes, total, widened
from weighttools.transforms.editing import edited, finite, whole

if TYPE_CHECKING:
    from weighttools.core.spec import Array

Says = Mapping[str, Any]


_SPLIT = np.int64(~((1 << 26) - 1))
"""Keeps the high 27 bits of a float64's significand: times a float32 that is exact, and so is what is cut off."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """``sign(x) max(factor |x| - threshold, 0)``; `careful` gives the results of which rounding again may go wrong."""

    factor: float
    threshold: float = 0.0
    placeless: ClassVar[bool] = True

    def __call__(self, start: int, wide: Array) -> Array:
        found = wide * self.factor
        if self.threshold:
            found -= np.clip(found, -self.threshold, self.threshold)
        return found

    @property
    def is_rounded(self) -> bool:
        """Whether float64 may round; 24 bits of x times 29 bits of a factor fit into 53."""
        significand, _ = math.frexp(self.factor)
        return self.threshold > 0 or not (significand * 2**29).is_integer()

    def careful(self, wide: Array) -> Array:
        """Return results one unit in the last place of float64 towards the exact ones, for x of float32 or less."""
        found = self(0, wide)
        magnitude = np.abs(found)
        towards = np.sign(self._error(magnitude, np.abs(wide))) * (magnitude != 0)
        moved: Array = (found.view(np.int64) + towards.astype(np.int64)).view(np.float64)
        return moved

    def _error(self, found: Array, wide: Array) -> Array:
        """Return exact less found magnitudes, its sign exact: errors of the product and of the difference."""
        factor = np.array([abs(self.factor)])
        high = (factor.view(np.int64) & _SPLIT).view(np.float64)
        product = wide * factor
        of_product: Array = (wide * high - product) + wide * (factor - high)
        if not self.threshold:
            return of_product
        back = found - product
        of_difference = (product - (found - back)) + (-self.threshold - back)
        error: Array = of_product + of_difference
        return error


def decay(names: Sequence[str], rate: float, l1: float, lr: float, steps: int, says: Says) -> Transform:
    """Return a transform that shrinks weights as `steps` of decoupled weight decay would.

    Parameters
    ----------
    names
        Tensors to change.
    rate, l1
        The coefficients of the L2 and of the L1 penalty; both of them are the elastic net.
    lr
        The learning rate: a step multiplies by ``1 - lr rate`` and then moves ``lr l1`` towards zero, at most to it.
    steps
        How many steps at once.
    says
        What the report says of the selection.

    Raises
    ------
    SpecError
        A number is negative or not finite, both coefficients are 0, or ``lr rate`` exceeds 1.

    Notes
    -----
    With f = 1 - lr rate and t = lr l1, n steps of x <- sign(x) max(f |x| - t, 0) are one of factor f^n and threshold
    t (1 + f + … + f^(n-1)): what has reached zero stays there.

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019, equation 12. N. Parikh and
    S. Boyd, "Proximal algorithms", 2014, section 6.5.2 (soft thresholding).
    """
    rate, l1, lr = finite(option("rate"), rate), finite(option("l1"), l1), finite(option("lr"), lr)
    steps = whole(option("steps"), steps, 1)
    if rate == l1 == 0:
        raise SpecError("nothing decays at a rate of 0", expected=f"{option('rate')}, {option('l1')} or both")
    if lr * rate > 1:
        raise SpecError(
            f"{option('lr')} times {option('rate')} is {lr * rate:g}: weights would change sign", expected="at most 1"
        )
    factor, n_thresholds = _powers(lr * rate, steps)
    threshold = lr * l1 * n_thresholds
    shrunk = Shrunk(factor, finite(f"{option('lr')} times {option('l1')}", threshold))
    report = {
        "transform": "decay", "rate": rate, "l1": l1, "lr": lr, "steps": steps, "factor": factor,
        "threshold": threshold, **says, "names": list(names),
    }  # fmt: skip
    return lambda tensor_map: edited(tensor_map, names, lambda name, tensor: shrunk, report)


def _powers(loss: float, n: int) -> tuple[float, float]:
    """Return f^n and 1 + f + … + f^(n-1) for f = 1 - loss, without the rounding of 1 - loss and of 1 - f."""
    if loss == 0 or loss == 1:
        return (1.0, float(n)) if loss == 0 else (0.0, 1.0)
    exponent = n * math.log1p(-loss)
    return math.exp(exponent), -math.expm1(exponent) / loss


def scale(names: Sequence[str], by: float, says: Says) -> Transform:
    """Return a transform that multiplies weights by `by`.

    Raises
    ------
    SpecError
        `by` is not finite.
    """
    factor = finite(option("by"), by, -math.inf)
    report = {"transform": "scale", "by": by, **says, "names": list(names)}
    return lambda tensor_map: edited(tensor_map, names, lambda name, tensor: Shrunk(factor), report)


@dataclass(frozen=True, slots=True)
class Bounded:
    """``min(max(x, -most), most)``."""

    most: float
    placeless: ClassVar[bool] = True

    def __call__(self, start: int, wide: Array) -> Array:
        return np.clip(wide, -self.most, self.most)


def clip(
    names: Sequence[str], value: float | None, norm: float | None, says: Says, progress: Progress = silent
) -> Transform:
    """Return a transform that clips each weight to ``-value`` to `value`, or each tensor to an L2 norm.

    With `norm` the transform reads the tensors once, to add up squares; NaN and Inf are left out of the sum. A
    tensor whose norm is larger is multiplied by ``norm`` over its own; others stay as they are. `progress` is called
    with the number of bytes just looked at.

    Raises
    ------
    SpecError
        Not one of `value` and `norm` is given, or it is negative or not finite.
    """
    if (value is None) == (norm is None):
        raise SpecError("clipping is by value or by norm", expected=f"one of {option('value')} and {option('norm')}")
    report = {"transform": "clip", "value": value, "norm": norm, **says, "names": list(names)}
    if value is not None:
        bounded = Bounded(finite(option("value"), value))
        return lambda tensor_map: edited(tensor_map, names, lambda name, tensor: bounded, report)
    assert norm is not None
    most = finite(option("norm"), norm)

    def transform(tensor_map: TensorMap) -> TensorMap:
        norms = {name: norm_of(tensor_map[name], progress) for name in names}
        over = [name for name in names if norms[name] > most]
        planning = planning_bytes(tensor_map[name] for name in names)
        said = {**report, "n_changed": len(over), "norms": norms, "planning_bytes": planning}
        return edited(tensor_map, over, lambda name, tensor: Shrunk(most / norms[name]), said)

    return transform


def norm_of(tensor: Tensor, progress: Progress = silent) -> float:
    """Return the L2 norm of a tensor's finite elements, added up in float64."""
    return math.sqrt(math.fsum(total(_squares, add, tensor, progress)))


def _squares(blocks: Blocks) -> list[float]:
    wide = widened(blocks.values[0])
    wide[~np.isfinite(wide)] = 0
    return [float(np.dot(wide, wide))]


@dataclass(frozen=True, slots=True)
class Noisy:
    """``x + std z``, where z is standard normal by seed, name and position."""

    std: float
    numbers: Numbers
    piece_elements: ClassVar[int] = SEGMENT

    def __call__(self, start: int, wide: Array) -> Array:
        noise = self.numbers.normals(start, start + wide.size)
        noise *= self.std
        noise += wide
        return noise


def noise(names: Sequence[str], std: float, seed: int, says: Says) -> Transform:
    """Return a transform that adds normal noise, by (seed, name, position): the blocks do not matter.

    Raises
    ------
    SpecError
        `std` is negative or not finite, or the seed no integer of 0 or more.
    """
    std, seed = finite(option("std"), std), whole(option("seed"), seed)
    report = {"transform": "noise", "std": std, "seed": seed, **says, "names": list(names)}

    def noisy(name: str, tensor: Tensor) -> Noisy:
        return Noisy(std, Numbers(seed, name, "noise"))

    return lambda tensor_map: edited(tensor_map, names, noisy, report)

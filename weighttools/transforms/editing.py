"""What the transforms of values share: float64 arithmetic rounded once, what is not finite left as it is, a report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.core.dtypes import DType
from weighttools.core.readers import Positioned
from weighttools.core.tensor import Spec, Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.transforms.cast import cast_block
from weighttools.transforms.counting import widened

if TYPE_CHECKING:
    from weighttools.core.tensor import Array

BlockFn = Callable[[int, "Array"], "Array"]
"""Takes the position of a block's first element and the block; returns a new block of the same length."""


PIECE_ELEMENTS = 1 << 14
"""Elements computed at a time: float64 temporaries of 128 KiB stay in the cache, and cost no fresh pages."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """A function of float64 elements, its results rounded once to `dtype`; NaN and Inf keep their very bits."""

    fn: BlockFn
    dtype: DType

    def __call__(self, start: int, block: Array) -> Array:
        out = np.empty_like(block)
        for at in range(0, block.size, PIECE_ELEMENTS):
            piece = slice(at, at + PIECE_ELEMENTS)
            out[piece] = self._piece(start + at, block[piece])
        return out

    def _piece(self, start: int, block: Array) -> Array:
        wide = widened(block)
        finite = np.isfinite(wide)
        with np.errstate(all="ignore"):
            found = cast_block(self.fn(start, wide), self.dtype)
        if not finite.all():
            np.copyto(found, block, where=~finite)
        return found


def edited(
    tensor_map: TensorMap, names: Iterable[str], fn: Callable[[str, Tensor], BlockFn], report: Mapping[str, Any]
) -> TensorMap:
    """Return the map with float64 functions of some tensors' elements; nothing is read yet.

    Parameters
    ----------
    names
        Raw floating tensors.
    fn
        Gives the function for a tensor.
    report
        What to say of it; see `TensorMap.report`.
    """
    changed = {name: rounded(tensor_map[name], fn(name, tensor_map[name])) for name in names}
    return replaced(tensor_map, changed, report)


def rounded(tensor: Tensor, fn: BlockFn) -> Tensor:
    """Return a tensor whose elements are a float64 function of another's, in its dtype."""
    return Tensor(Spec(tensor.dtype, tensor.shape), Positioned(tensor.reader, Rounded(fn, tensor.dtype)))


def replaced(tensor_map: TensorMap, changed: Mapping[str, Tensor], report: Mapping[str, Any]) -> TensorMap:
    """Return the map with some tensors exchanged, and a report of it."""
    return tensor_map.map(lambda name, tensor: changed.get(name, tensor)).reported(report)


def finite(option: str, value: float, least: float = 0.0, most: float = float("inf")) -> float:
    """Return a number that an option may have.

    Raises
    ------
    SpecError
        It is NaN, Inf, or outside `least` to `most`.
    """
    if not (least <= value <= most) or value in (float("inf"), float("-inf")):
        limits = f"a number from {least:g} to {most:g}" if most < float("inf") else f"a number of {least:g} or more"
        raise SpecError(f"{option} {value:g} is out of range", expected=limits if least > float("-inf") else "a number")
    return value


def whole(option: str, value: object, least: int = 0) -> int:
    """Return an integer that an option may have.

    Raises
    ------
    SpecError
        It is none, or less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise SpecError(f"{option} {value!r} is out of range", expected=f"an integer of {least} or more")
    return int(value)


@dataclass(frozen=True, slots=True)
class Hashed:
    """Random numbers by position: they depend on the seed, the tensor's name and the element, not on blocks.

    The generator is SplitMix64 read at any place: the state after n steps is a sum.

    References
    ----------
    G. L. Steele, D. Lea and C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, section 4.
    """

    first: int

    @classmethod
    def of(cls, seed: int, name: str) -> Hashed:
        """Return the numbers that belong to a seed and a name."""
        text = f"{seed}\0{name}".encode("utf-8", "surrogatepass")
        return cls(int.from_bytes(hashlib.sha256(text).digest()[:8], "little"))

    def __call__(self, start: int, n: int, stream: int = 0) -> Array:
        """Return uint64 for elements `start` to ``start + n``; streams are independent of each other."""
        base = (self.first + stream * 0xD1B54A32D192ED03 + (start + 1) * _GOLDEN) % 2**64
        state = np.arange(n, dtype=np.uint64)
        state *= np.uint64(_GOLDEN)
        state += np.uint64(base)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            state ^= state >> np.uint64(shift)
            state *= np.uint64(factor)
        state ^= state >> np.uint64(31)
        return state


_GOLDEN = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio, the step of SplitMix64."""

"""What the transforms of values share: float64 arithmetic rounded once, what is not finite left as it is, a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.core.dtypes import DType
from weighttools.core.readers import Positioned
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.transforms.cast import cast_block
from weighttools.transforms.counting import is_finite, widened

if TYPE_CHECKING:
    from weighttools.core.spec import Array

BlockFn = Callable[[int, "Array"], "Array"]
"""Takes the position of a block's first element and the block; returns a new block of the same length."""


PIECE_ELEMENTS = 1 << 15
"""Elements computed at a time: float64 temporaries of 256 KiB stay in the second-level cache."""


TABLE_BITS = 16
"""Of so few bits, all results are tabled: looking up is several times faster than computing and rounding."""
MOST_TABLES = 16


@dataclass(frozen=True, slots=True)
class Tabled:
    """A function of elements of 8 or 16 bits: the result of each bit pattern."""

    table: Array

    def __call__(self, start: int, block: Array) -> Array:
        return self.table.take(block.view(f"u{block.itemsize}"))


@dataclass(frozen=True, slots=True)
class Rounded:
    """A function of float64 elements, its results rounded once to `dtype`; NaN and Inf keep their very bits.

    Results of less than float64 that are just the midpoint of two numbers of `dtype` may be rounded already, and are
    then rounded twice, to the wrong side. They have their low 28 bits 0 (float32 has 29 bits fewer). If `fn` has a
    method ``careful``, these are computed again by it: it returns float64 on the right side of the midpoint. They are
    not rare: 0.9 times every tenth odd number is next to a midpoint.
    """

    fn: BlockFn
    dtype: DType

    def __call__(self, start: int, block: Array) -> Array:
        out = np.empty_like(block)
        careful = (
            getattr(self.fn, "careful", None)
            if self.dtype.bits < 64 and getattr(self.fn, "is_rounded", False)
            else None
        )
        doubtful = np.empty(block.size if careful else 0, bool)
        with np.errstate(all="ignore"):
            step = getattr(self.fn, "piece_elements", PIECE_ELEMENTS)
            for at in range(0, block.size, step):
                piece = slice(at, at + step)
                found = self.fn(start + at, widened(block[piece]))
                out[piece] = found if out.dtype == np.float32 else cast_block(found, self.dtype)
                if careful:
                    np.equal(found.view(np.int64) & _LOW, 0, out=doubtful[piece])
            where = np.flatnonzero(doubtful)
            where = where[block.view(f"u{block.itemsize}")[where] != 0]  # zeros, of a pruned tensor most, are exact
            if careful and where.size:
                out[where] = cast_block(careful(widened(block[where])), self.dtype)
        finite = is_finite(block)
        if not finite.all():
            np.copyto(out, block, where=~finite)
        return out


_LOW = np.int64((1 << 28) - 1)


def edited(
    tensor_map: TensorMap, names: Iterable[str], fn: Callable[[str, Tensor], BlockFn], report: Mapping[str, Any]
) -> TensorMap:
    """Return the map with float64 functions of some tensors' elements; nothing is read yet.

    Parameters
    ----------
    names
        Raw floating tensors.
    fn
        Gives the function for a tensor; one that has a true ``placeless`` does not look at positions.
    report
        What to say of it; see `TensorMap.report`.
    """
    tables: dict[tuple[BlockFn, DType], Tabled] = {}
    changed = {name: _rounded(tensor_map[name], fn(name, tensor_map[name]), tables) for name in names}
    return replaced(tensor_map, changed, report)


def _rounded(tensor: Tensor, fn: BlockFn, tables: dict[tuple[BlockFn, DType], Tabled]) -> Tensor:
    """Return a tensor whose elements are a float64 function of another's, in its dtype."""
    block_fn: BlockFn = Rounded(fn, tensor.dtype)
    if getattr(fn, "placeless", False) and tensor.dtype.bits <= TABLE_BITS and tensor.n_elements > 1 << TABLE_BITS:
        block_fn = _tabled(block_fn, (fn, tensor.dtype), tables)
    return Tensor(Spec(tensor.dtype, tensor.shape), Positioned(tensor.reader, block_fn))


def _tabled(rounded: BlockFn, key: tuple[BlockFn, DType], tables: dict[tuple[BlockFn, DType], Tabled]) -> BlockFn:
    """Return the table of a function; beyond a few functions, as of thousands of norms, the function itself."""
    if key not in tables and len(tables) < MOST_TABLES:
        bits = np.arange(1 << key[1].bits, dtype=f"u{key[1].bits // 8}")
        tables[key] = Tabled(rounded(0, bits.view(key[1].numpy)))
    return tables.get(key, rounded)


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

"""Exact quantiles of tensors of any size: order statistics are found digit by digit, in bounded memory.

Finite values become unsigned integers that sort as they do. One pass over the tensors counts the leading 16 bits,
which tells those of each order statistic that is wanted; the next pass counts the following 16 bits of the elements
that agree in the leading ones; and so on: two passes for values that float32 holds, four for others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighttools.core.dtypes import DType
from weighttools.core.tensor import Spec

if TYPE_CHECKING:
    from weighttools.analyzers.run import Block, Record
    from weighttools.core.tensor import Array

DIGIT_BITS = 16
MAX_PREFIXES = 16
"""Order statistics refined in one pass: each takes 512 KiB of counts for every job under way."""


class Key(NamedTuple):
    """How values become integers that sort as they do: by way of the dtype `name`, to `bits` bits."""

    name: str
    bits: int

    def of(self, values: Array) -> Array:
        """Return the keys of the finite values (uint32 or uint64); -0.0 has the key of 0.0."""
        if values.dtype.kind == "c":
            values = np.abs(values.astype(np.complex128))
        x = values.astype(self.name)
        unsigned, top = f"u{self.bits // 8}", 1 << (self.bits - 1)
        if x.dtype.kind != "f":
            whole: Array = x.view(unsigned) ^ np.array(top if x.dtype.kind == "i" else 0, unsigned)
            return whole
        finite: Array = x[np.isfinite(x)] + x.dtype.type(0)
        signs = finite.view(f"i{self.bits // 8}") >> (self.bits - 1)
        keys: Array = finite.view(unsigned) ^ (signs.view(unsigned) | np.array(top, unsigned))
        return keys

    def value(self, key: int) -> float:
        """Return the value of a key; an int where the dtype is of integers."""
        top = 1 << (self.bits - 1)
        if self.name.startswith("uint"):
            return key
        if self.name.startswith("int"):
            return key - top
        bits = key ^ top if key & top else key ^ ((1 << self.bits) - 1)
        return float(np.array([bits], f"u{self.bits // 8}").view(self.name)[0])


def key_for(dtypes: Iterable[DType]) -> Key:
    """Return the narrowest key that holds all values of some dtypes.

    64-bit integers beside other dtypes go by float64, which rounds those beyond 2**53.
    """
    found = set(dtypes)
    if len(found) == 1 and (only := next(iter(found))).name in ("int64", "uint64"):
        return Key(only.name, 64)
    narrow = all(d.kind != "complex" and (d.bits <= 16 or d.name == "float32") for d in found)
    return Key("float32", 32) if narrow else Key("float64", 64)


@dataclass(frozen=True, slots=True, eq=False)
class DigitCounts:
    """For each prefix, how often each next digit occurs (int64)."""

    counts: Mapping[int, Array]

    def merge(self, other: DigitCounts) -> DigitCounts:
        """Add up."""
        return DigitCounts({prefix: n + other.counts[prefix] for prefix, n in self.counts.items()})

    def finish(self, spec: Spec | None = None) -> Record:
        """Return nothing: this is a step on the way."""
        return {}


@dataclass(frozen=True, slots=True)
class Digits:
    """The statistic that counts the digit at `shift` of the keys that begin with one of `prefixes`."""

    key: Key
    shift: int
    prefixes: tuple[int, ...]

    def __call__(self, block: Block) -> DigitCounts:
        keys = self.key.of(block.values)
        above = None if self.shift + DIGIT_BITS == self.key.bits else keys >> (self.shift + DIGIT_BITS)
        return DigitCounts({p: self._count(keys if above is None else keys[above == p]) for p in self.prefixes})

    def _count(self, keys: Array) -> Array:
        digits = (keys >> self.shift).astype(np.uint16)
        return np.bincount(digits, minlength=1 << DIGIT_BITS)


Fold = Callable[[Sequence[Any]], list[Any]]
"""Folds all tensors in question by some statistics, and returns a merged state for each."""


def n_passes(n_quantiles: int, key: Key) -> int:
    """Return the most passes that `order_statistics` takes for a number of quantiles."""
    return -(-2 * n_quantiles // MAX_PREFIXES) * (key.bits // DIGIT_BITS)


def order_statistics(ranks: Collection[int], key: Key, fold: Fold) -> dict[int, float]:
    """Return the values that have the given ranks (from 0) among the finite values."""
    found: dict[int, float] = {}
    wanted = sorted(set(ranks))
    for first in range(0, len(wanted), MAX_PREFIXES):
        found |= _some(wanted[first : first + MAX_PREFIXES], key, fold)
    return found


def _some(ranks: Sequence[int], key: Key, fold: Fold) -> dict[int, float]:
    at = {rank: (0, rank) for rank in ranks}  # rank -> leading bits, and its rank among the values that share them
    for shift in range(key.bits - DIGIT_BITS, -1, -DIGIT_BITS):
        prefixes = tuple(sorted({prefix for prefix, _ in at.values()}))
        [state] = fold([Digits(key, shift, prefixes)])
        sums = {prefix: np.cumsum(n) for prefix, n in state.counts.items()}
        at = {rank: _next(prefix, left, sums[prefix]) for rank, (prefix, left) in at.items()}
    return {rank: key.value(prefix) for rank, (prefix, _) in at.items()}


def _next(prefix: int, left: int, sums: Array) -> tuple[int, int]:
    digit = int(np.searchsorted(sums, left, side="right"))
    return prefix << DIGIT_BITS | digit, left - (int(sums[digit - 1]) if digit else 0)


def from_distinct(ranks: Collection[int], values: Array, n: Array) -> dict[int, float]:
    """Return the values of given ranks, from distinct values in ascending order and how often each occurs."""
    sums = np.cumsum(n)
    return {rank: float(values[np.searchsorted(sums, rank, side="right")]) for rank in ranks}


def ranks_of(probabilities: Iterable[float], n: int) -> set[int]:
    """Return the ranks among `n` values that the quantiles lie between."""
    return {rank for p in probabilities for rank in _between(p, n)[:2]} if n else set()


def interpolated(p: float, n: int, at: Mapping[int, float]) -> float:
    """Return the quantile `p` of `n` values from its neighbours, as `numpy.quantile` does by its method ``linear``."""
    low, high, part = _between(p, n)
    a, b = at[low], at[high]
    if not part:
        return a
    return a + (b - a) * part if part < 0.5 else b - (b - a) * (1 - part)


def _between(p: float, n: int) -> tuple[int, int, float]:
    virtual = p * (n - 1)
    low = min(math.floor(virtual), n - 1)
    return low, min(low + 1, n - 1), virtual - low

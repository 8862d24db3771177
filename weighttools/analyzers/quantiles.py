"""Exact quantiles of tensors of any size: order statistics are found digit by digit, in bounded memory.

One pass over the tensors, the same that finds everything else, counts the leading 16 bits of the values, which tells
those of each order statistic that is wanted; the next pass counts the following 16 bits of the elements that agree in
the leading ones; and so on: one more pass for values that float32 holds, three for others.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighttools.core.dtypes import DType
from weighttools.core.spec import Spec

if TYPE_CHECKING:
    from weighttools.analyzers.run import Block, Record
    from weighttools.core.spec import Array

DIGIT_BITS = 16
MAX_PREFIXES = 8
"""Prefixes refined in one pass for one group: each takes 512 KiB of counts for every job under way."""

_DIGITS = 1 << DIGIT_BITS
_HALF = _DIGITS >> 1


class Key(NamedTuple):
    """How values become bits that are sorted digit by digit: by way of the dtype `name`, of `bits` bits."""

    name: str
    bits: int

    def of(self, values: Array) -> Array:
        """Return the bits of the values (uint32 or uint64)."""
        if values.dtype.kind == "c":
            values = np.abs(values.astype(np.complex128))
        found: Array = values.astype(self.name, copy=False).view(f"u{self.bits // 8}")
        return found

    @property
    def first_shift(self) -> int:
        """The place of the leading digit."""
        return self.bits - DIGIT_BITS

    def value(self, bits: int) -> float:
        """Return the value of bits, with -0.0 as 0.0; an int where the dtype is of integers."""
        found = np.array([bits], f"u{self.bits // 8}").view(self.name)[0]
        return float(found) + 0.0 if found.dtype.kind == "f" else int(found)

    def finite(self, leading: Array) -> Array:
        """Return counts of leading digits without those that only NaN and Inf have: their exponent is all ones."""
        if not self.name.startswith("float"):
            return leading
        exponents = (np.arange(_DIGITS) & (_HALF - 1)) >> {32: 7, 64: 4}[self.bits]
        return np.where(exponents == exponents[-1], 0, leading)

    def ascending(self, prefix: int, shift: int) -> Array:
        """Return the digits that may follow `prefix`, ordered as their values are.

        Negative floats fall as their bits rise; negative integers and floats have their leading bit set.
        """
        digits, n_bits = np.arange(_DIGITS), self.first_shift - shift
        is_float = self.name.startswith("float")
        if n_bits:
            return digits[::-1] if is_float and prefix >> (n_bits - 1) else digits
        if self.name.startswith("uint"):
            return digits
        negative = digits[_HALF:]
        return np.concatenate([negative[::-1] if is_float else negative, digits[:_HALF]])


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
    prefixes: tuple[int, ...] = (0,)

    def __call__(self, block: Block) -> DigitCounts:
        digits, places = self._split(self.key.of(block.values))
        return DigitCounts({p: np.bincount(digits[at], minlength=_DIGITS) for p, at in places})

    def of_distinct(self, values: Array, n: Array) -> DigitCounts:
        """Count the digits of distinct values that occur `n` times each."""
        digits, places = self._split(self.key.of(values))
        found = {p: np.zeros(_DIGITS, np.int64) for p in self.prefixes}
        for p, at in places:
            np.add.at(found[p], digits[at], n[at])
        return DigitCounts(found)

    def _split(self, bits: Array) -> tuple[Array, Iterator[tuple[int, Any]]]:
        """Return the digits (uint16), and for each prefix which of them follow it."""
        digits = _digit(bits, self.shift)
        if self.shift == self.key.first_shift:
            return digits, ((p, slice(None)) for p in self.prefixes)
        is_second = self.shift + DIGIT_BITS == self.key.first_shift
        above = _digit(bits, self.key.first_shift) if is_second else bits >> (self.shift + DIGIT_BITS)
        return digits, ((p, above == p) for p in self.prefixes)


def _digit(bits: Array, shift: int) -> Array:
    """Return a view of the digits at a place."""
    n, at = bits.itemsize // 2, shift // DIGIT_BITS
    return bits.view(np.uint16)[at if sys.byteorder == "little" else n - 1 - at :: n]


class _Step(NamedTuple):
    """Ranks whose next digit is that at `shift`: rank to the bits before, and the rank among values with those."""

    shift: int
    at: Mapping[int, tuple[int, int]]


class Search:
    """The values that have given ranks among finite ones, digit by digit.

    Parameters
    ----------
    ranks
        From 0.
    key
        How values become digits.
    leading
        How often each leading digit occurs.
    """

    def __init__(self, ranks: Collection[int], key: Key, leading: DigitCounts) -> None:
        self.found: dict[int, float] = {}
        self._key = key
        self._steps = [_Step(key.first_shift, {rank: (0, rank) for rank in ranks})] if ranks else []
        if ranks:
            self.take(DigitCounts({0: key.finite(leading.counts[0])}))

    def wanted(self) -> Digits | None:
        """Return the counts that the next pass is to make; None where all is found."""
        if not self._steps:
            return None
        shift, at = self._steps[-1]
        return Digits(self._key, shift, tuple(sorted({prefix for prefix, _ in at.values()})[:MAX_PREFIXES]))

    def take(self, state: DigitCounts) -> None:
        """Go on with the counts that were wanted."""
        shift, at = self._steps.pop()
        rest = {rank: place for rank, place in at.items() if place[0] not in state.counts}
        if rest:
            self._steps.append(_Step(shift, rest))
        order = {prefix: self._key.ascending(prefix, shift) for prefix in state.counts}
        sums = {prefix: np.cumsum(n[order[prefix]]) for prefix, n in state.counts.items()}
        further = {
            rank: _next(prefix, left, order[prefix], sums[prefix])
            for rank, (prefix, left) in at.items()
            if rank not in rest
        }
        if shift:
            self._steps.append(_Step(shift - DIGIT_BITS, further))
        else:
            self.found |= {rank: self._key.value(bits) for rank, (bits, _) in further.items()}


def _next(prefix: int, left: int, order: Array, sums: Array) -> tuple[int, int]:
    at = int(np.searchsorted(sums, left, side="right"))
    return prefix << DIGIT_BITS | int(order[at]), left - (int(sums[at - 1]) if at else 0)


def n_passes(n_quantiles: int, key: Key) -> int:
    """Return the most passes that a search takes for a number of quantiles, after the one for the leading digits."""
    total, groups = 0, 0
    for _ in range(key.first_shift // DIGIT_BITS):
        groups = max(1, groups) + 2 * n_quantiles // MAX_PREFIXES  # each group of prefixes leaves a part of one
        total += groups
    return total if n_quantiles else 0


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

"""Exact quantiles of tensors of any size: order statistics by radix selection (`weighttools.core.radix`).

Its first pass is the one that finds everything else too; one more follows for values that float32 holds, three for
others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weighttools.core.dtypes import DType
from weighttools.core.radix import N_DIGITS, DigitCounts, DigitPlace, RadixSearch, first_shift, most_passes

if TYPE_CHECKING:
    from weighttools.analyzers.run import Block
    from weighttools.core.spec import Array

_HALF = N_DIGITS >> 1


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
        return first_shift(self.bits)

    def value(self, bits: int) -> float:
        """Return the value of bits, with -0.0 as 0.0; an int where the dtype is of integers."""
        found = np.array([bits], f"u{self.bits // 8}").view(self.name)[0]
        return float(found) + 0.0 if found.dtype.kind == "f" else int(found)

    def finite(self, leading: Array) -> Array:
        """Return counts of leading digits without those that only NaN and Inf have: their exponent is all ones."""
        if not self.name.startswith("float"):
            return leading
        exponents = (np.arange(N_DIGITS) & (_HALF - 1)) >> {32: 7, 64: 4}[self.bits]
        return np.where(exponents == exponents[-1], 0, leading)

    def ascending(self, prefix: int, shift: int) -> Array:
        """Return the digits that may follow `prefix`, ordered as their values are.

        Negative floats fall as their bits rise; negative integers and floats have their leading bit set.
        """
        digits, n_bits = np.arange(N_DIGITS), self.first_shift - shift
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


@dataclass(frozen=True, slots=True)
class Digits:
    """The statistic that counts the digit at `shift` of the keys that begin with one of `prefixes`."""

    key: Key
    shift: int
    prefixes: tuple[int, ...] = (0,)

    def __call__(self, block: Block) -> DigitCounts:
        return self._place.count(self.key.of(block.values))

    def of_distinct(self, values: Array, n: Array) -> DigitCounts:
        """Count the digits of distinct values that occur `n` times each."""
        return self._place.count_distinct(self.key.of(values), n)

    @property
    def _place(self) -> DigitPlace:
        return DigitPlace(self.key.bits, self.shift, self.prefixes)


class Search:
    """The values that have given ranks among finite ones.

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
        self._key = key
        self._search = RadixSearch(ranks, key.bits, key.finite(leading.counts[0]), key.ascending)
        self.take = self._search.take

    def wanted(self) -> Digits | None:
        """Return the counts that the next pass is to make; None where all is found."""
        place = self._search.wanted()
        return Digits(self._key, place.shift, place.prefixes) if place else None

    @property
    def found(self) -> dict[int, float]:
        """The values, by their ranks."""
        return {rank: self._key.value(at.key) for rank, at in self._search.found.items()}


def n_passes(n_quantiles: int, key: Key) -> int:
    """Return the most passes that a search takes for a number of quantiles, after the one for the leading digits."""
    return most_passes(2 * n_quantiles, key.bits)


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

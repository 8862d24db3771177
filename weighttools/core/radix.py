"""The one radix selection: which keys have given ranks among all, found digit by digit, in bounded memory.

Keys are unsigned integers. The first pass over them counts their leading 16 bits, which tells those of each rank that
is wanted; the next pass counts the following 16 bits of the keys that agree in the leading ones; and so on: no sort,
and one pass for each 16 bits of a key.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighttools.core.spec import Spec

if TYPE_CHECKING:
    from weighttools.core.spec import Array

DIGIT_BITS = 16
"""Bits counted in one pass: 65,536 counters stay in the second-level cache."""
N_DIGITS = 1 << DIGIT_BITS
MAX_PREFIXES = 8
"""Prefixes refined in one pass: each takes 512 KiB of counts for every job under way."""

Ascending = Callable[[int, int], "Array"]
"""Takes a prefix and the shift of the next digit; returns the digits in the order of the values they stand for."""


@dataclass(frozen=True, slots=True, eq=False)
class DigitCounts:
    """For each prefix, how often each next digit occurs (int64)."""

    counts: Mapping[int, Array]

    def merge(self, other: DigitCounts) -> DigitCounts:
        """Add up."""
        return DigitCounts({prefix: n + other.counts[prefix] for prefix, n in self.counts.items()})

    def finish(self, spec: Spec | None = None) -> dict[str, Any]:
        """Return nothing: this is a step on the way."""
        return {}


@dataclass(frozen=True, slots=True)
class DigitPlace:
    """What one pass counts: the digit at `shift` of the keys, of `bits` bits, that begin with one of `prefixes`."""

    bits: int
    shift: int
    prefixes: tuple[int, ...] = (0,)

    def count(self, keys: Array) -> DigitCounts:
        """Count the digits of keys (uint16, uint32 or uint64)."""
        digits, places = self._split(keys)
        return DigitCounts({p: np.bincount(digits[at], minlength=N_DIGITS) for p, at in places})

    def count_distinct(self, keys: Array, n: Array) -> DigitCounts:
        """Count the digits of keys that occur `n` times each."""
        digits, places = self._split(keys)
        found = {p: np.zeros(N_DIGITS, np.int64) for p in self.prefixes}
        for p, at in places:
            np.add.at(found[p], digits[at], n[at])
        return DigitCounts(found)

    def _split(self, keys: Array) -> tuple[Array, Iterator[tuple[int, Any]]]:
        """Return the digits (uint16), and for each prefix which of them follow it."""
        digits, first = _digit(keys, self.shift), first_shift(self.bits)
        if self.shift == first:
            return digits, ((p, slice(None)) for p in self.prefixes)
        is_second = self.shift + DIGIT_BITS == first
        above = _digit(keys, first) if is_second else keys >> keys.dtype.type(self.shift + DIGIT_BITS)
        return digits, ((p, above == p) for p in self.prefixes)


def _digit(keys: Array, shift: int) -> Array:
    """Return a view of the digits at a place."""
    n, at = keys.itemsize // 2, shift // DIGIT_BITS
    return keys.view(np.uint16)[at if sys.byteorder == "little" else n - 1 - at :: n]


def first_shift(bits: int) -> int:
    """Return the place of the leading digit of keys of `bits` bits."""
    return bits - DIGIT_BITS


def leading(bits: int) -> DigitPlace:
    """Return what the first pass counts."""
    return DigitPlace(bits, first_shift(bits))


def as_numbers(prefix: int, shift: int) -> Array:
    """Return the digits in the order of the keys themselves."""
    return np.arange(N_DIGITS)


class KeyOfRank(NamedTuple):
    """The key that has a rank, how many equal keys come before that rank, and how many equal keys there are."""

    key: int
    n_before: int
    n_equal: int


class _Step(NamedTuple):
    """Ranks whose next digit is that at `shift`: rank to the bits before, and the rank among keys with those."""

    shift: int
    at: Mapping[int, tuple[int, int]]


class RadixSearch:
    """The keys that have given ranks, digit by digit.

    Parameters
    ----------
    ranks
        From 0.
    bits
        The keys' width: 16, 32 or 64.
    counts
        How often each leading digit occurs among the keys that are ranked, others left out.
    ascending
        The order of the values that keys stand for.
    """

    def __init__(self, ranks: Collection[int], bits: int, counts: Array, ascending: Ascending = as_numbers) -> None:
        self.found: dict[int, KeyOfRank] = {}
        self._bits, self._ascending = bits, ascending
        self._steps = [_Step(first_shift(bits), {rank: (0, rank) for rank in ranks})] if ranks else []
        if ranks:
            self.take(DigitCounts({0: counts}))

    def wanted(self) -> DigitPlace | None:
        """Return what the next pass is to count; None where all is found."""
        if not self._steps:
            return None
        shift, at = self._steps[-1]
        return DigitPlace(self._bits, shift, tuple(sorted({prefix for prefix, _ in at.values()})[:MAX_PREFIXES]))

    def take(self, state: DigitCounts) -> None:
        """Go on with the counts that were wanted."""
        shift, at = self._steps.pop()
        rest = {rank: place for rank, place in at.items() if place[0] not in state.counts}
        if rest:
            self._steps.append(_Step(shift, rest))
        order = {prefix: self._ascending(prefix, shift) for prefix in state.counts}
        sums = {prefix: np.cumsum(n[order[prefix]]) for prefix, n in state.counts.items()}
        further = {
            rank: _next(prefix, left, order[prefix], sums[prefix])
            for rank, (prefix, left) in at.items()
            if rank not in rest
        }
        if shift:
            places = {rank: (found.key, found.n_before) for rank, found in further.items()}
            self._steps.append(_Step(shift - DIGIT_BITS, places))
        else:
            self.found |= further


def _next(prefix: int, left: int, order: Array, sums: Array) -> KeyOfRank:
    at = int(np.searchsorted(sums, left, side="right"))
    below = int(sums[at - 1]) if at else 0
    return KeyOfRank(prefix << DIGIT_BITS | int(order[at]), left - below, int(sums[at]) - below)


def most_passes(n_ranks: int, bits: int) -> int:
    """Return the most passes that a search takes for a number of ranks, after the one for the leading digits."""
    total, groups = 0, 0
    for _ in range(first_shift(bits) // DIGIT_BITS):
        groups = max(1, groups) + n_ranks // MAX_PREFIXES  # each group of prefixes leaves a part of one
        total += groups
    return total if n_ranks else 0

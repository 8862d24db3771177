"""Quantiles, histogram, entropy and distinct values of some tensors, in as few passes over them as can be.

Of dtypes of at most two bytes the first pass counts bit patterns, which tells everything. Of wider ones it counts the
leading digits of the values, and each further pass serves all groups and their total: it counts the next digits that
quantiles need, and the histogram, whose range is known by then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.analyzers import histogram, quantiles
from weighttools.analyzers.histogram import BinCounts, Patterns
from weighttools.analyzers.quantiles import Digits, Key
from weighttools.core.radix import DigitCounts

if TYPE_CHECKING:
    from weighttools.analyzers.run import Record, Statistic, StatisticState
    from weighttools.core.spec import Array


@dataclass(frozen=True, slots=True)
class Asked:
    """What to find of a distribution.

    Parameters
    ----------
    quantiles
        Probabilities from 0 to 1.
    bins
        Bins of a histogram; None for none.
    entropy
        Entropy and distinct values.
    """

    quantiles: tuple[float, ...] = ()
    bins: int | None = None
    entropy: bool = False

    def __bool__(self) -> bool:
        return bool(self.quantiles or self.bins or self.entropy)

    def n_passes(self, key: Key) -> int:
        """Return the most passes that wide dtypes need after the first."""
        return max(quantiles.n_passes(len(self.quantiles), key), bool(self.bins))


class Distribution:
    """A distribution on the way to its figures; the passes that it wants, if any, are to follow one another.

    Parameters
    ----------
    asked
        What to find.
    row
        The figures of the first pass: ``count``, ``n_nan``, ``n_inf``, ``min`` and ``max``.
    patterns
        Counts of the tensors whose bit patterns were counted, one a dtype.
    leading
        Counts of the leading digits of all others, with the key; None without others, or without quantiles.
    is_wide
        Whether there are others.
    """

    def __init__(
        self,
        asked: Asked,
        row: Mapping[str, Any],
        patterns: Sequence[Patterns],
        leading: tuple[Key, DigitCounts] | None = None,
        is_wide: bool = False,
    ) -> None:
        self._asked, self._n = asked, row["count"] - row["n_nan"] - row["n_inf"]
        self._is_wide, self._known = is_wide, _distinct(patterns)
        self._entropy = patterns[0].finish() if len(patterns) == 1 and not is_wide else {}
        self._bins = histogram.bins(row["min"], row["max"], asked.bins) if asked.bins else None
        self._hist: BinCounts | None = None
        self._search: quantiles.Search | None = None
        if is_wide and leading is not None:
            key, counts = leading
            first = self._joined(Digits(key, key.first_shift), counts)
            self._search = quantiles.Search(quantiles.ranks_of(asked.quantiles, self._n), key, first)

    def wanted(self) -> list[Statistic]:
        """Return what the next pass is to compute of each wide tensor; nothing once all is found."""
        digits = self._search.wanted() if self._search else None
        bins = self._bins if self._is_wide and self._hist is None else None
        return [statistic for statistic in (digits, bins) if statistic is not None]

    def take(self, states: Mapping[Statistic, StatisticState]) -> None:
        """Go on with the states that were wanted."""
        for statistic, state in states.items():
            whole = self._joined(statistic, state)
            if isinstance(whole, BinCounts):
                self._hist = whole
            elif self._search:
                self._search.take(whole)

    def _joined(self, statistic: Any, state: Any) -> Any:
        """Add those whose bit patterns were counted."""
        return state.merge(statistic.of_distinct(*self._known)) if self._known[0].size else state

    def figures(self) -> Record:
        """Return what was asked for."""
        found: Record = {}
        if self._asked.entropy:
            found |= {"entropy": None, "n_distinct": None, **self._entropy}
        if self._asked.quantiles:
            found["quantiles"] = dict(self._quantiles())
        if self._asked.bins:
            if self._bins and not self._is_wide:
                self._hist = self._bins.of_distinct(*self._known)
            found |= self._hist.finish() if self._hist else {"hist": None}
        return found

    def _quantiles(self) -> Iterator[tuple[str, float | None]]:
        ranks = quantiles.ranks_of(self._asked.quantiles, self._n)
        at = self._search.found if self._search else quantiles.from_distinct(ranks, *self._known)
        for p in self._asked.quantiles:
            value = quantiles.interpolated(p, self._n, at) if self._n else None
            yield f"{p:g}", value if value is not None and math.isfinite(value) else None


def _distinct(patterns: Sequence[Patterns]) -> tuple[Array, Array]:
    """Return the distinct finite values (float64), ascending, and how often each occurs."""
    pairs = [found.finite() for found in patterns]
    if len(pairs) == 1:
        return pairs[0]
    values = np.concatenate([np.zeros(0), *(values for values, _ in pairs)])
    order = np.argsort(values, kind="stable")
    return values[order], np.concatenate([np.zeros(0, np.int64), *(n for _, n in pairs)])[order]

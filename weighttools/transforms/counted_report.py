"""A transform's report with a figure that only the values tell: it is counted when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


class CountedReport(Mapping[str, Any]):
    """A report of which one entry is counted at its first use, and once.

    Making it and asking for its other entries read no values; a copy (``dict(report)``) holds the count.

    Parameters
    ----------
    known
        What is known without looking at values.
    key
        The entry to count.
    count
        Counts it.
    """

    __slots__ = ("_count", "_found", "_key", "known")

    def __init__(self, known: Mapping[str, Any], key: str, count: Callable[[], Any]) -> None:
        self.known = known
        self._key, self._count = key, count
        self._found: Any = None

    def __getitem__(self, key: str) -> Any:
        if key != self._key:
            return self.known[key]
        if self._found is None:
            self._found = self._count()
        return self._found

    def __iter__(self) -> Iterator[str]:
        return iter({**self.known, self._key: None})

    def __len__(self) -> int:
        return len({**self.known, self._key: None})

    def __repr__(self) -> str:
        return repr({**self.known, self._key: "counted when asked for" if self._found is None else self._found})


def known(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a report says without reading values for it."""
    return report.known if isinstance(report, CountedReport) else report

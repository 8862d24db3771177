"""What of a file becomes no tensor: named with the reason, for nothing may vanish without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from weighttools.errors import few, printable

_MOST_NAMES = 5
_LONGEST_NAME = 100


@dataclass(slots=True)
class LeftOut:
    """How often each reason was met, and the first names that it was met at.

    >>> left_out = LeftOut()
    >>> left_out.add("a sparse tensor", "w")
    >>> list(left_out)
    ['w (a sparse tensor)']
    """

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Count a thing that is left out for a reason."""
        self.counts[reason] += 1
        names = self.names.setdefault(reason, [])
        if len(names) <= _MOST_NAMES:
            names.append(printable(name[:_LONGEST_NAME]))

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __iter__(self) -> Iterator[str]:
        return (f"{self.listed(reason)} ({reason})" for reason in self.counts)

    def listed(self, reason: str) -> str:
        """Return the names of one reason, the first of many."""
        more = self.counts[reason] - _MOST_NAMES
        return few(self.names[reason], _MOST_NAMES).removesuffix(", …") + (f" and {more:,} more" if more > 0 else "")

    def notes(self) -> list[str]:
        """Return a line for each reason."""
        return [f"left out: {named}" for named in self]

"""Which rows of a record to show, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from weighttools.core.expression import condition
from weighttools.errors import SpecError

Row = dict[str, Any]


class Showing(NamedTuple):
    """Which rows to show, and in which order."""

    where: Callable[[Row], bool] | None = None
    sort: str | None = None
    top: int | None = None

    @classmethod
    def checked(cls, columns: Sequence[str], where: str | None, sort: str | None, top: int | None) -> Showing:
        """Return it.

        Raises
        ------
        SpecError
            The condition or the order names no column, or `top` is below 0.
        """
        if top is not None and top < 0:
            raise SpecError(f"cannot show {top} rows", expected="0 or more", code="out-of-range")
        if sort is not None and sort not in columns:
            expected = "one of " + ", ".join(columns)
            raise SpecError(f"cannot sort by {sort!r}", expected=expected, code="unknown-option-value")
        return cls(condition(where, columns) if where else None, sort, top)

    def of(self, rows: list[Row]) -> list[Row]:
        """Return the rows that meet the condition, sorted (largest first, null last), as many as were asked for."""
        kept = [row for row in rows if self.where is None or self.where(row)]
        if self.sort:
            key = self.sort
            there = [row for row in kept if row[key] is not None]
            is_text = bool(there) and isinstance(there[0][key], str)
            there.sort(key=lambda row: row[key], reverse=not is_text)
            kept = [*there, *(row for row in kept if row[key] is None)]
        return kept[: self.top]

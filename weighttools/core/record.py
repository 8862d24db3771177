"""What a verb returns: a dictionary in every way, which people can read where it is printed or shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weighttools.errors import brief

MOST_ENTRIES = 10
"""Entries of a list that are printed; a record may have one for each of a million tensors."""
MOST_KEYS = 60
"""Entries of a mapping that are printed."""


class VerbRecord(dict[str, Any]):
    """A verb's record: it equals the dictionary with its entries, and goes through JSON and pickle as that.

    ``print`` gives it on several lines, long lists cut, and a notebook as tables that fold.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        from pprint import pformat

        return pformat(_short(self), width=120, sort_dicts=False)

    def _repr_html_(self) -> str:
        from weighttools.core.notebook import record_html

        return record_html(self)


def as_record(value: Any) -> Any:
    """Return what a verb gives; a record as one that can be read."""
    return VerbRecord(value) if type(value) is dict and "schema" in value else value


def _short(value: Any) -> Any:
    """Return a value without most of what is long."""
    if isinstance(value, Mapping):
        rest = len(value) - MOST_KEYS
        shown = {key: _short(part) for key, part in list(value.items())[:MOST_KEYS]}
        return {**shown, "…": f"and {rest:,} more"} if rest > 0 else shown
    if isinstance(value, (list, tuple)):
        rest = len(value) - MOST_ENTRIES
        return [*map(_short, value[:MOST_ENTRIES]), *([f"… and {rest:,} more"] if rest > 0 else [])]
    return brief(value, 300) if isinstance(value, str) else value

"""The verb ``formats``: what is read and written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weighttools.verbs.records import Record


def list_formats() -> list[Record]:
    """Return what is read and written, and which extra it needs."""
    from weighttools.verbs.records import format_records

    return format_records()

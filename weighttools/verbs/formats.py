"""The verb ``formats``: what is read and written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weighttools.verbs.record_types import FormatRow


def list_formats() -> list[FormatRow]:
    """Return what is read and written, and which extra it needs."""
    from weighttools.verbs.records import format_records

    return format_records()

"""What differs between the metadata of two checkpoints, entry by entry; JSON inside text is looked into."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MOST_TEXT = 1 << 20
"""Longer texts are compared whole, not as JSON."""
MOST_DEPTH = 20


class MetadataChange(NamedTuple):
    """A line of the patch: ``"+"`` added, ``"-"`` removed, ``"~"`` changed; the key's parts are joined by dots."""

    op: str
    key: str
    before: Any = None
    after: Any = None


def patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[MetadataChange]:
    """Return what to change in old metadata to have the new ones, in the order of keys.

    A mapping, and a text that is a JSON object on both sides, is compared key by key.
    """
    return list(_entries(before, after, "", 0))


def _entries(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str, depth: int) -> Iterator[MetadataChange]:
    for name in [*before, *(name for name in after if name not in before)]:
        key = f"{prefix}{name}"
        if name not in after:
            yield MetadataChange("-", key, before=before[name])
        elif name not in before:
            yield MetadataChange("+", key, after=after[name])
        elif not _are_equal(before[name], after[name]):
            yield from _changed(before[name], after[name], key, depth)


def _changed(before: Any, after: Any, key: str, depth: int) -> Iterator[MetadataChange]:
    old, new = _nested(before), _nested(after)
    if old is None or new is None or depth >= MOST_DEPTH:
        yield MetadataChange("~", key, before, after)
        return
    found = list(_entries(old, new, f"{key}.", depth + 1))
    yield from found or [MetadataChange("~", key, before, after)]  # another spelling of the same JSON


def _nested(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return value
    if not (isinstance(value, str) and value[:1] == "{" and len(value) <= MOST_TEXT):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _are_equal(a: Any, b: Any) -> bool:
    try:
        return bool(type(a) is type(b) and a == b)
    except ValueError:  # arrays
        return repr(a) == repr(b)

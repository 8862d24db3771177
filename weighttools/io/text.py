"""Small JSON files beside the weights (indexes, configurations), read with a bound and without trust.

By the standard library: msgspec parses an index of 12 MB in half the time, but tells of no key that stands twice.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from weighttools.core import budgets
from weighttools.errors import CorruptFileError

if TYPE_CHECKING:
    from weighttools.core.spec import Source

_HEAD_BYTES = 64
"""How much of a file tells whether it begins as JSON does."""


def parse_json(data: bytes, subject: object) -> dict[str, Any]:
    """Parse bytes as one JSON object without duplicate keys.

    Raises
    ------
    CorruptFileError
        They are not one, or not UTF-8.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique_keys)
    except RecursionError:
        raise CorruptFileError("its JSON is nested too deeply", subject=subject, code="bad-json") from None
    except ValueError as error:
        raise CorruptFileError(f"is not valid JSON: {error}", subject=subject, code="bad-json") from None
    if not isinstance(value, dict):
        raise CorruptFileError("is not a JSON object", subject=subject, expected="{…}", code="bad-json")
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of these pairs, for `json.loads`; raise ValueError where a key stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def read_json(file: str | os.PathLike[str] | Source) -> dict[str, Any]:
    """Read a JSON file that a person names, or that is open; as `parse_json`.

    Raises
    ------
    SourceError
        It cannot be read, or is no regular file.
    CorruptFileError
        It is larger than any index (or configuration, by its name) is, or not a JSON object.
    """
    from weighttools.io.source import LocalFile

    source = LocalFile(file) if isinstance(file, (str, os.PathLike)) else file
    most = budgets.CONFIG_BYTES if source.name.endswith("config.json") else budgets.JSON_BYTES
    return parse_json(read_bounded(source, most), source.name)


def read_bounded(source: Source, most: int) -> bytes:
    """Return all bytes of a source.

    Raises
    ------
    CorruptFileError
        They are more than `most`.
    """
    if source.size > most:
        raise CorruptFileError(
            f"is {source.size:,} bytes long", subject=source.name, expected=f"at most {most:,}", code="too-large"
        )
    return source.read(0, source.size)


def is_json(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a JSON object does.

    Raises
    ------
    SourceError
        It cannot be read, or is no regular file.
    """
    from weighttools.io.source import LocalFile

    source = LocalFile(path)
    return source.read(0, min(source.size, _HEAD_BYTES)).lstrip().startswith(b"{")

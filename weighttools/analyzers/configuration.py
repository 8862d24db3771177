"""The configurations that lie beside weights: config.json, adapter_config.json, tokenizer.json."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from weighttools.core.tensormap import Origin
from weighttools.families.shapes import number
from weighttools.io.text import read_json

whole = number
"""The first of a configuration's entries that is there, if it is a whole number above 0."""


def beside(origin: Origin, name: str) -> str | None:
    """Return the path of a file beside the weights, whether it exists or not; None for weights that are no file."""
    if origin.path in ("", "-") or "://" in origin.path:
        return None
    home = origin.path if os.path.isdir(origin.path) else os.path.dirname(origin.path)
    return os.path.join(home, name)


def read_beside(origin: Origin, name: str) -> dict[str, Any] | None:
    """Read a JSON file beside the weights; None if there is none.

    Raises
    ------
    WeighttoolsError
        It is there, but cannot be read.
    """
    path = beside(origin, name)
    return read_json(path) if path and os.path.isfile(path) else None


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a configuration that tells of the language model: ``text_config``, if there is one."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def heads_beside(origin: Origin) -> int | None:
    """Return how many heads of queries config.json beside the weights tells of, if it does; errors as `read_beside`."""
    part = text_part(read_beside(origin, "config.json") or {})
    return whole(part, "num_attention_heads", "n_head", "num_heads", "n_heads")

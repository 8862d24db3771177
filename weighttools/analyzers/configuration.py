"""The configurations that lie beside weights: config.json, adapter_config.json, tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weighttools.core.tensormap import Origin
from weighttools.families.shapes import number
from weighttools.io.beside import CONFIGURATIONS
from weighttools.io.home import home_of

whole = number
"""The first of a configuration's entries that is there, if it is a whole number above 0."""


def read_beside(origin: Origin, name: str) -> dict[str, Any] | None:
    """Read a JSON file beside the weights; None if there is none, or it is a link that leaves their directory.

    Raises
    ------
    WeighttoolsError
        It is there, but cannot be read.
    """
    home = home_of(origin)
    return None if home is None else home.read_json(name)


def not_taken(origin: Origin) -> list[str]:
    """Return the line that says which configuration of a model is not read, for it is a link to elsewhere."""
    home = home_of(origin)
    return [] if home is None else home.not_taken(CONFIGURATIONS)


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a configuration that tells of the language model: ``text_config``, if there is one."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def heads_beside(origin: Origin) -> int | None:
    """Return how many heads of queries config.json beside the weights tells of, if it does; errors as `read_beside`."""
    part = text_part(read_beside(origin, "config.json") or {})
    return whole(part, "num_attention_heads", "n_head", "num_heads", "n_heads")

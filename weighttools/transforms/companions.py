"""What an edit changes in the files beside weights: config.json and others, in the map's own `Origin.beside`.

A map that came from a file or directory has its companions there; one that was edited carries those that changed, and
a directory target gets them (`write/plan`). What is read here is the changed file where there is one, so that edits
compose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.io.home import home_of

CONFIG = "config.json"


def read_json(tensor_map: TensorMap, name: str) -> dict[str, Any] | None:
    """Read a JSON file that goes with a map, as earlier edits left it; None if there is none.

    Raises
    ------
    WeighttoolsError
        It is there, but cannot be read.
    """
    if name in tensor_map.origin.beside:
        found = json.loads(tensor_map.origin.beside[name])
        assert isinstance(found, dict)
        return found
    home = home_of(tensor_map.origin)
    return None if home is None else home.read_json(name)


def with_file(tensor_map: TensorMap, name: str, content: bytes) -> TensorMap:
    """Return the map with a file that goes into the directory that it is written to."""
    beside = {**tensor_map.origin.beside, name: content}
    return tensor_map.replace(origin=tensor_map.origin._replace(beside=beside))


def with_json(tensor_map: TensorMap, name: str, content: Mapping[str, Any]) -> TensorMap:
    """Return the map with a JSON file beside it, written as transformers writes its own."""
    return with_file(tensor_map, name, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def with_config(tensor_map: TensorMap, changes: Mapping[str, Any]) -> TensorMap:
    """Return the map with entries of config.json changed, each where it stands: at the top or in ``text_config``.

    Parameters
    ----------
    changes
        New values of entries. One that stands nowhere is put where the language model is described.

    Raises
    ------
    SpecError
        There is no config.json.
    """
    config = read_json(tensor_map, CONFIG)
    if config is None:
        raise SpecError(
            f"there is no {CONFIG} beside the weights",
            subject=tensor_map.origin.path,
            expected="the model's directory",
            remedy="give the directory that has both",
            code="no-config",
        )
    inner = config.get("text_config")
    parts = [config, inner] if isinstance(inner, dict) else [config]
    for key, value in changes.items():
        for part in [part for part in parts if key in part] or parts[-1:]:
            part[key] = value
    return with_json(tensor_map, CONFIG, config)

"""How tensor names become HDF5 paths, and what goes into our own root attribute, ``__weighttools__``.

A name is its path where that is possible: split at ``/`` into groups. Other names, and whatever else plain HDF5
cannot hold (order, text with NUL), are in the attribute: JSON with `names` (path to name), `aliases`, `order` and
`metadata`, each only if it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError
from weighttools.formats.base import plain
from weighttools.formats.hdf5.listing import natural
from weighttools.io.text import parse_json

SIDECAR = "__weighttools__"
_LONGEST = 60_000


def paths(tensor_map: TensorMap) -> dict[str, str]:
    """Return tensor and alias names to the paths at which they are stored; all differ, none is another's group."""
    names = [*tensor_map, *sorted(tensor_map.aliases)]
    groups = {name[:at] for name in names for at in _slashes(name)}
    return {
        name: name if is_path(name) and name not in groups else f"{SIDECAR}/{number}"
        for number, name in enumerate(names)
    }


def _slashes(name: str) -> list[int]:
    return [at for at, character in enumerate(name) if character == "/"]


def is_path(name: str) -> bool:
    """Whether HDF5 can hold an object of this name and give it back."""
    try:
        raw = name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    parts = name.split("/")
    return not (b"\0" in raw or len(raw) > _LONGEST or parts[0] == SIDECAR or "" in parts or "." in parts)


def is_plain_attribute(key: str, value: Any) -> bool:
    """Whether a metadata entry can be a text attribute."""
    if not isinstance(value, str) or not is_path(key) or "/" in key or len(key) > 1000 or "\0" in value:
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def met(path: str) -> list[list[Any]]:
    """A sort key that puts paths in the order in which a reader meets them: by group, numbers as numbers."""
    return [natural(part) for part in path.split("/")]


def sidecar(tensor_map: TensorMap, stored: Mapping[str, str], natural_order: Iterable[str]) -> str | None:
    """Return the JSON of our root attribute, or None where nothing needs it.

    Parameters
    ----------
    tensor_map
        What is written.
    stored
        Its names, ties among them, to paths.
    natural_order
        The paths of the tensors in the order in which a reader meets them; empty if the file says the order.
    """
    ties, order, names = tensor_map.aliases, list(natural_order), list(tensor_map)
    first = all(met(stored[kept]) < met(stored[alias]) for alias, kept in ties.items())
    as_met = first and (not order or order == [stored[name] for name in names])
    record = {
        "names": {path: name for name, path in stored.items() if path != name},
        "aliases": {} if first else dict(sorted(ties.items())),
        "metadata": {k: plain(v) for k, v in sorted(tensor_map.metadata.items()) if not is_plain_attribute(k, v)},
        "order": [] if as_met else names,
    }
    kept = {key: value for key, value in record.items() if value}
    return json.dumps({"schema": "weighttools.hdf5/1", **kept}) if kept else None


def parse_sidecar(attribute: Any, subject: str) -> dict[str, Any]:
    """Parse our root attribute.

    Raises
    ------
    CorruptFileError
        It is not what `sidecar` makes.
    """
    kinds = {"names": dict, "aliases": dict, "metadata": dict, "order": list}
    if not isinstance(attribute, str):
        raise CorruptFileError(f"its attribute {SIDECAR} is not text", subject=subject)
    found = parse_json(attribute.encode("utf-8", "surrogateescape"), f"{subject}: {SIDECAR}")
    record = {key: found.get(key, kind()) for key, kind in kinds.items()}
    texts = [*record["names"].values(), *record["aliases"].values(), *record["order"]]
    if not all(isinstance(record[key], kind) for key, kind in kinds.items()) or not all(type(t) is str for t in texts):
        raise CorruptFileError(f"its attribute {SIDECAR} is not one that weighttools writes", subject=subject)
    return record

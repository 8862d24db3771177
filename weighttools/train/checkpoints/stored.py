"""What a model of arrays needs of its training for data to come, in its file's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from weighttools.core.tensormap import TensorMap
from weighttools.train.data.tables import Scaling, Table
from weighttools.train.models.keras_config import ACTIVATION

SCALING, NAMES = "weighttools.scaling", "weighttools.classes"
"""What is done to its inputs, and what its outputs are called."""


def stored_scaling(origin: TensorMap) -> Scaling | None:
    """Return what a model's inputs are to be scaled by, as its file says.

    Raises
    ------
    SpecError
        The entry is damaged.
    """
    record = _stored(origin, SCALING)
    return Scaling.from_record(record) if isinstance(record, Mapping) else None


def stored_names(origin: TensorMap) -> tuple[str, ...]:
    """Return what a model's file says that its classes are called; empty if nothing."""
    record = _stored(origin, NAMES)
    return tuple(map(str, record)) if isinstance(record, list) else ()


def _stored(origin: TensorMap, key: str) -> Any:
    try:
        return json.loads(origin.metadata.get(key, "null"))
    except (ValueError, TypeError, RecursionError):
        return None


def metadata(data: Any, activation: str | None = None) -> dict[str, str]:
    """Return the metadata entries that a model trained on `data`, with an `activation`, needs for data to come."""
    if not isinstance(data, Table):
        return {}
    found = {NAMES: json.dumps(list(data.names))} if data.names else {}
    found |= {ACTIVATION: activation} if activation else {}
    return found | ({SCALING: json.dumps(data.scaling.record())} if data.scaling else {})

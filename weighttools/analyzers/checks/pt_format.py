"""The metadata entry ``format``, without which some loaders refuse a safetensors file.

Source: transformers, ``modeling_utils.py`` (``load_state_dict``): releases before 5 demand ``pt``, ``tf``, ``flax`` or
``mlx``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from weighttools.analyzers import configuration
from weighttools.core.findings import NOTE, WARNING, Finding
from weighttools.core.tensormap import TensorMap


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield a finding for a safetensors checkpoint without the entry: a warning where a config.json is beside it."""
    if tensor_map.origin.format == "safetensors" and "format" not in tensor_map.metadata and len(tensor_map):
        beside = configuration.beside(tensor_map.origin, "config.json")
        severity = WARNING if beside and os.path.isfile(beside) else NOTE
        yield Finding(severity, "no-format", 'the metadata has no "format": "pt"')

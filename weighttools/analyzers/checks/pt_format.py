"""The metadata entry ``format``, without which some loaders refuse a safetensors file.

Source: transformers, ``modeling_utils.py`` (``load_state_dict``): releases before 5 demand ``pt``, ``tf``, ``flax`` or
``mlx``.
"""

from __future__ import annotations

from collections.abc import Iterator

from weighttools.core.findings import NOTE, WARNING, Finding
from weighttools.core.tensormap import TensorMap
from weighttools.io.home import home_of


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield a finding for a safetensors checkpoint without the entry: a warning where a config.json is beside it."""
    if tensor_map.origin.format == "safetensors" and "format" not in tensor_map.metadata and len(tensor_map):
        home = home_of(tensor_map.origin)
        severity = WARNING if home is not None and home.open("config.json") else NOTE
        yield Finding(severity, "no-format", 'the metadata has no "format": "pt"')

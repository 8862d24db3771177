"""Special tokens of config.json and generation_config.json against the rows of the embedding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from weighttools.analyzers import configuration
from weighttools.analyzers.checks.tokenizer import EMBEDDING
from weighttools.core.findings import ERROR, WARNING, Finding
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError

FILES = ("config.json", "generation_config.json")


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield a finding for each special token beyond the embedding; of several embeddings the longest counts."""
    specs = zip(tensor_map, tensor_map.specs(), strict=True)
    tables = {name: spec.shape[0] for name, spec in specs if len(spec.shape) == 2 and EMBEDDING.search(name)}
    if not tables:
        return
    name = max(tables, key=lambda one: tables[one])
    for file in FILES:
        try:
            config = configuration.read_beside(tensor_map.origin, file) or {}
        except WeighttoolsError as error:
            if file != FILES[0]:  # the check of that one tells it
                yield Finding(WARNING, "broken-config", str(error))
            continue
        for key, token in _ids(config):
            if token >= tables[name]:
                told = f"{file} says {key} {token:,}, {name!r} has {tables[name]:,} rows"
                yield Finding(ERROR, "token-id", told, name)


def _ids(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the special tokens that a configuration, or its part of a language model, names."""
    parts = [config, configuration.text_part(config)]
    for part in parts[: 1 if parts[1] is config else 2]:
        for key in KEYS:
            value = part.get(key)
            tokens = value[:MOST] if isinstance(value, list) else [value]
            yield from ((key, token) for token in tokens if type(token) is int and 0 <= token < 1 << 63)


KEYS = tuple(f"{what}_token_id" for what in ("bos", "eos", "pad", "unk", "sep", "cls", "mask", "decoder_start"))
MOST = 16
"""Ends of a text that a model may have; the known ones have three at most."""

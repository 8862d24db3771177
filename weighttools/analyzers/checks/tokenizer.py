"""tokenizer.json against the rows of the embedding."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from weighttools.analyzers import configuration
from weighttools.core.findings import ERROR, NOTE, WARNING, Finding
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError

EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|word_embeddings|wte|tok_embeddings|shared|embed_in)\.weight$")


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield a finding if the largest token id and the number of rows do not go together."""
    try:
        tokenizer = configuration.read_beside(tensor_map.origin, "tokenizer.json")
    except WeighttoolsError as error:
        yield Finding(WARNING, "broken-config", str(error))
        return
    size = n_ids(tokenizer) if tokenizer else None
    for name, spec in zip(tensor_map, tensor_map.specs(), strict=True):
        if size and len(spec.shape) == 2 and spec.dtype.is_float and EMBEDDING.search(name):
            yield from _compared(name, spec.shape[0], size)


def _compared(name: str, rows: int, size: int) -> Iterator[Finding]:
    told = f"tokenizer.json has ids up to {size - 1:,}, {name!r} has {rows:,} rows"
    if size > rows:
        yield Finding(ERROR, "tokenizer-larger", told, name)
    elif size < rows:
        yield Finding(NOTE, "tokenizer-smaller", told, name)


def n_ids(tokenizer: Mapping[str, Any]) -> int | None:
    """Return the largest token id plus one: of the vocabulary (a mapping, or a list in order) and of added tokens."""
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids = [len(vocabulary) - 1] if isinstance(vocabulary, list) else []
    ids += [n for n in vocabulary.values() if type(n) is int] if isinstance(vocabulary, dict) else []
    added = tokenizer.get("added_tokens")
    ids += (
        [t["id"] for t in added if isinstance(t, dict) and type(t.get("id")) is int] if isinstance(added, list) else []
    )
    return max(ids, default=-1) + 1 or None

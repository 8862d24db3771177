"""GGUF's metadata after a way through a format that holds text only, with their types again.

Source: llama.cpp, ``gguf-py/gguf/gguf_writer.py``, for the types: arrays of whole numbers are int32, of floats float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from weighttools.formats.gguf.numbers import Float32, Int32

ARCHITECTURE = "general.architecture"
_TEXTS = ("tokenizer.chat_template", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.huggingface.json")
_GENERAL = (
    "general.alignment", "general.base_model.count", "general.dataset.count", "general.datasets", "general.file_type",
    "general.languages", "general.quantization_version", "general.tags",
)  # fmt: skip
"""Entries of ``general.`` that are no texts."""


def typed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata in which the texts of a GGUF file's numbers, truth values and arrays are these again.

    They are JSON, as `weighttools.formats.base.text_metadata` writes them. Metadata of no GGUF model, and what stands
    under other keys, are left as they are.
    """
    name = metadata.get(ARCHITECTURE)
    if not isinstance(name, str):
        return dict(metadata)
    begins = (f"{name}.", "tokenizer.")
    return {
        key: _value(value) if key in _GENERAL or (key.startswith(begins) and not key.startswith(_TEXTS)) else value
        for key, value in metadata.items()
    }


def _value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    if isinstance(found, list):
        return _array(found, value)
    return found if isinstance(found, (bool, int, float)) else value


def _array(items: list[Any], text: str) -> Any:
    """Return an array of one type; the text where it has more than one."""
    kinds = {type(item) for item in items}
    if kinds == {int} and all(-(1 << 31) <= item < 1 << 31 for item in items):
        return [Int32(item) for item in items]
    if kinds and kinds <= {int, float}:
        return [_single(item) for item in items]
    return items if kinds in ({str}, {bool}) else text


def _single(item: float) -> float:
    return Float32(item) if abs(item) < 3.4e38 else item

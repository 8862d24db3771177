"""What stands in a GGUF file beside its weights, as the files of a Hugging Face directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from weighttools.core.budgets import MAX_COMPANION_BYTES
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError
from weighttools.families.gguf.configuration import configuration, is_gguf
from weighttools.families.gguf.tokenizer_files import tokenizer_files as carried_files
from weighttools.families.gguf.tokenizer_json import has_tokenizer
from weighttools.io.home import Home, home_of

CONFIG = "config.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "generation_config.json",
)
VOCABULARIES = {
    "tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
}  # fmt: skip
"""Those of them without which there is no tokenizer."""


def as_json(record: Mapping[str, Any]) -> bytes:
    """Return a configuration as the bytes of its file."""
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()


def tokenizer_files(origin: TensorMap) -> tuple[dict[str, bytes], str]:
    """Return what makes up the tokenizer of a checkpoint that is a single file, and why there is none, if so.

    Parameters
    ----------
    origin
        The open checkpoint.

    Returns
    -------
    files
        Those beside it; if there are none, tokenizer.json and its settings made of a GGUF file's metadata.
    why
        Empty if there are any.
    """
    home = home_of(origin.origin)
    read = {
        name: home.read(name, MAX_COMPANION_BYTES) for name, why in _why_not_copied(home).items() if home and not why
    }
    files = {name: data for name, data in read.items() if data is not None}
    if files.keys() & VOCABULARIES:
        return files, ""
    carried, why = _carried(origin)
    return {**carried, **files}, why


def gguf_files(origin: TensorMap) -> tuple[dict[str, bytes], list[str]]:
    """Return what stands in a GGUF file's metadata as the files of a directory: config.json, and the tokenizer's.

    Parameters
    ----------
    origin
        The open checkpoint.

    Returns
    -------
    files
        By name; nothing where the source is no GGUF file.
    lacking
        Why one of them is not there, a line each, and what of them no other program reads.
    """
    if not is_gguf(origin):
        return {}, []
    try:
        config = configuration(origin)
    except WeighttoolsError as error:
        return {}, [f"no config.json is written: {error}"]
    tokenizer, why = tokenizer_files(origin)
    lacking = [f"no tokenizer.json is written: {why}"] if why else []
    return {CONFIG: as_json(config), **tokenizer}, [*lacking, *unloadable(config)]


def unloadable(config: Mapping[str, Any]) -> list[str]:
    """Return the line that says that transformers loads no model by a config.json; none where it does."""
    rope = config.get("rope_scaling")
    if not isinstance(rope, Mapping) or rope.get("rope_type") != "divided":
        return []
    return [
        "transformers cannot load this config.json: its rotary positions follow no rule known there, and stand as"
        " divisors (rope_type divided), which weighttools reads; put the original model's rope_scaling in its place"
    ]


def is_directory(origin: TensorMap) -> bool:
    """Return whether a checkpoint is a whole directory, whose files are copied when it is written."""
    home = home_of(origin.origin)
    return home is not None and home.is_whole


def found_beside(origin: TensorMap) -> dict[str, str]:
    """Return the files of the tokenizer beside a checkpoint, each with why it is not copied, or nothing if it is."""
    return _why_not_copied(home_of(origin.origin))


def _why_not_copied(home: Home | None) -> dict[str, str]:
    there = [name for name in TOKENIZER if home.lies(name)] if home else []
    return {name: home.why_not_copied(name, MAX_COMPANION_BYTES) for name in there if home}


def _carried(origin: TensorMap) -> tuple[dict[str, bytes], str]:
    """Return the tokenizer of a GGUF file's metadata, as files; or nothing, and why it cannot be built."""
    if not has_tokenizer(origin.metadata):
        return {}, "none lies beside the checkpoint, and none is in its metadata"
    try:
        return carried_files(origin.metadata, origin.origin.path), ""
    except WeighttoolsError as error:
        return {}, str(error)

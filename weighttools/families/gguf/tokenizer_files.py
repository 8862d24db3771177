"""The files beside a model in Hugging Face's layout that say how it reads and ends texts, made of GGUF's metadata.

Source: transformers, ``tokenization_utils_base.py`` and ``generation/configuration_utils.py``, for the entries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from weighttools.families.gguf.tokenizer_json import KEY, SENTENCEPIECE, WORDPIECE, tokenizer_json

TOKENIZER, SETTINGS, GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
TEMPLATE = "tokenizer.chat_template"
SPECIAL = {
    "bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding", "sep_token": "seperator",
    "cls_token": "cls", "mask_token": "mask",
}  # fmt: skip
"""Hugging Face's names of special tokens, and what GGUF's keys for their numbers begin with (the misspelt one, too)."""
ENDS = ("eos", "eot", "eom")
"""What GGUF calls tokens at which a model stops."""
_CLASSES = {"gemma": "GemmaTokenizer", "gemma2": "GemmaTokenizer", "gemma3": "GemmaTokenizer", "phi3": None}
"""Architectures whose SentencePiece tokenizer is not Llama's; that of Phi-3 is its tokenizer.json alone."""
ANY_CLASS = "PreTrainedTokenizerFast"
"""The class that is nothing but its tokenizer.json."""


def tokenizer_files(metadata: Mapping[str, Any], subject: str = "the GGUF file") -> dict[str, bytes]:
    """Return tokenizer.json, tokenizer_config.json and generation_config.json, by name.

    Raises
    ------
    UnsupportedError, CorruptFileError
        As `tokenizer_json`.
    """
    built = tokenizer_json(metadata, subject)
    records = {
        TOKENIZER: built,
        SETTINGS: _settings(metadata, built),
        GENERATION: _generation(metadata),
    }
    return {name: _encoded(record) for name, record in records.items()}


def _encoded(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _settings(metadata: Mapping[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    model, name = metadata.get(f"{KEY}model"), str(metadata.get("general.architecture"))
    kind = {SENTENCEPIECE: _CLASSES.get(name, "LlamaTokenizer"), WORDPIECE: "BertTokenizer"}.get(str(model))
    found: dict[str, Any] = {
        "tokenizer_class": kind or ANY_CLASS,
        "clean_up_tokenization_spaces": model == WORDPIECE,
        **{theirs: _token(metadata, ours) for theirs, ours in SPECIAL.items()},
    }
    if model == WORDPIECE:  # there GGUF has [CLS] and [SEP] under both names
        found |= {"do_lower_case": built["normalizer"]["lowercase"], "bos_token": None, "eos_token": None}
    else:
        found |= {f"add_{end}_token": at is not None for end, at in _ends(built).items()}
    if model == SENTENCEPIECE:
        found |= {"add_prefix_space": bool(metadata.get(f"{KEY}add_space_prefix", True)), "legacy": False}
    length = metadata.get(f"{name}.context_length")
    found |= {"model_max_length": int(length)} if isinstance(length, int) and length > 0 else {}
    template = _chat_template(metadata)
    return found | ({"chat_template": template} if template else {})


def _ends(built: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokens that the tokenizer puts before and behind a text."""
    steps = (built["post_processor"] or {"single": [{}, {}]})["single"]
    return {"bos": steps[0].get("SpecialToken"), "eos": steps[-1].get("SpecialToken")}


def token_id(metadata: Mapping[str, Any], name: str) -> int | None:
    """Return the number of a special token, by GGUF's word for it, if it is a token's."""
    at = metadata.get(f"{KEY}{name}_token_id")
    n = len(metadata.get(f"{KEY}tokens", ()))
    return int(at) if isinstance(at, int) and not isinstance(at, bool) and 0 <= at < n else None


def _token(metadata: Mapping[str, Any], name: str) -> str | None:
    at = token_id(metadata, name)
    return None if at is None else str(metadata[f"{KEY}tokens"][at])


def _chat_template(metadata: Mapping[str, Any]) -> str | list[dict[str, str]] | None:
    """Return the template; where there are several, a list of them by name."""
    plain, names = metadata.get(TEMPLATE), metadata.get(f"{TEMPLATE}s", ())
    more = [str(n) for n in names] if isinstance(names, Sequence) and not isinstance(names, str) else []
    named = [{"name": n, "template": text} for n in more if isinstance(text := metadata.get(f"{TEMPLATE}.{n}"), str)]
    if not named or not isinstance(plain, str):
        return plain if isinstance(plain, str) else None
    return [{"name": "default", "template": plain}, *(entry for entry in named if entry["name"] != "default")]


def _generation(metadata: Mapping[str, Any]) -> dict[str, Any]:
    ends = list(dict.fromkeys(at for name in ENDS if (at := token_id(metadata, name)) is not None))
    found = {
        "bos_token_id": token_id(metadata, "bos"),
        "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        "pad_token_id": token_id(metadata, "padding"),
    }
    return {"_from_model_config": True} | {name: value for name, value in found.items() if value is not None}

"""The families whose tensors are known, by config.json's ``model_type``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from weighttools.families import decoders, encoders
from weighttools.families.decoders import decoder
from weighttools.families.shapes import Family

ENCODERS = frozenset(
    {"albert", "bert", "camembert", "deberta-v2", "distilbert", "electra", "mpnet", "roberta", "vit", "xlm-roberta"}
)
"""Families that have no cache of keys and values."""
_MAKERS: Mapping[str, Callable[[], Family]] = {
    "albert": encoders.albert,
    "bert": encoders.bert,
    "camembert": encoders.roberta,
    "deberta-v2": encoders.deberta,
    "distilbert": encoders.distilbert,
    "electra": encoders.electra,
    "gemma": functools.partial(decoder, decoders.GEMMA, 256, is_tied=True),
    "gemma2": functools.partial(decoder, decoders.GEMMA2, 256, is_tied=True),
    "gemma3": functools.partial(decoder, decoders.GEMMA3, 256, is_tied=True),
    "gemma3_text": functools.partial(decoder, decoders.GEMMA3, 256, is_tied=True),
    "gpt2": decoders.gpt2,
    "llama": functools.partial(decoder, decoders.LLAMA, is_grouped=True),
    "mistral": functools.partial(decoder, decoders.MISTRAL),
    "mpnet": encoders.mpnet,
    "olmo2": functools.partial(decoder, decoders.OLMO2, is_grouped=True),
    "phi3": functools.partial(decoder, decoders.PHI3, is_grouped=True),
    "qwen2": functools.partial(decoder, decoders.QWEN2),
    "qwen3": functools.partial(decoder, decoders.QWEN3, 128),
    "roberta": encoders.roberta,
    "smollm3": functools.partial(decoder, decoders.LLAMA, is_tied=True),
    "vit": encoders.vit,
    "xlm-roberta": encoders.roberta,
}
FAMILIES = frozenset(_MAKERS)
"""The ``model_type`` of each."""


@functools.cache
def family(model_type: str) -> Family:
    """Return the tensors of one of `FAMILIES`."""
    return _MAKERS[model_type]()

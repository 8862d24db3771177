"""Gemma 1 to 3: Llama with scaled embeddings, norms that multiply by 1 + weight, and windows.

Source: transformers 5, ``models/*/modeling_*.py`` and ``configuration_*.py``; llama.cpp, ``convert_hf_to_gguf.py``,
``gguf-py/gguf/tensor_mapping.py`` and ``src/llama-model.cpp``; peft, ``utils/constants.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weighttools.families.model_family import DecoderStyle, GgufArchitecture, ModelFamily, ModelFunction, Pairs
from weighttools.families.models.llama import (
    BIASED,
    BLOCK,
    DEFAULTS,
    EMBEDDED,
    ENDS,
    GATED,
    GGUF_HEAD_NORMS,
    GGUF_PAIRS,
    HEAD_NORMS,
    LAST_TOKEN,
    NORMS,
    WINDOW,
    decoder_table,
)  # fmt: skip

_POST_NORMS = """
    layers.{}.pre_feedforward_layernorm w D
    layers.{}.post_feedforward_layernorm w D
"""
_BODY = EMBEDDED + BIASED + GATED + NORMS

_PAIRS2: Pairs = (
    *ENDS,
    *BLOCK,
    ("model.layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm"),
    ("model.layers.{}.pre_feedforward_layernorm", "blk.{}.ffn_norm"),
    ("model.layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm"),
)
_SHIFTED = {"norm": "norm"}
_CAP: Pairs = (("final_logit_softcapping", "final_logit_softcapping"),)
_CAPS: Pairs = (("attn_logit_softcapping", "attn_logit_softcapping"), *_CAP)
_TANH: Mapping[str, tuple[Any, ...]] = {"hidden_activation": ("gelu_pytorch_tanh", None)}

_FIRST: Mapping[str, Any] = {
    **{key: value for key, value in DEFAULTS.items() if key != "hidden_act"},
    "hidden_activation": "gelu_pytorch_tanh",
    "head_dim": 256,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}
_WINDOWED = {**_FIRST, "sliding_window": 4096, "query_pre_attn_scalar": 256}
_SECOND = {**_WINDOWED, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
_THIRD = {**_WINDOWED, "rope_theta": 1e6, "rope_local_base_freq": 1e4}
_CAUSAL = {"use_bidirectional_attention": (False,)}

GEMMA = ModelFamily(
    model_type="gemma",
    kind="decoder",
    class_name="Gemma",
    prefix="model.",
    tensors=decoder_table(_BODY, _FIRST),
    defaults=_FIRST,
    function=ModelFunction("llama", how=DecoderStyle(is_scaled=True), only=_CAUSAL),
    head=LAST_TOKEN,
    adapted=("q_proj", "v_proj"),
    gguf=GgufArchitecture("gemma", GGUF_PAIRS, _SHIFTED, is_always_tied=True, fixed=_TANH),
)
GEMMA2 = GEMMA._replace(
    model_type="gemma2",
    class_name="Gemma2",
    tensors=decoder_table(_BODY + _POST_NORMS, _SECOND),
    defaults=_SECOND,
    function=ModelFunction("llama", how=DecoderStyle(2, True, True, query_scale=True), only=_CAUSAL),
    gguf=GgufArchitecture(
        "gemma2", _PAIRS2, _SHIFTED, is_always_tied=True, entries=WINDOW + _CAPS, fixed=_TANH, scaled_by_heads=46
    ),
)
GEMMA3 = GEMMA._replace(
    model_type="gemma3_text",
    class_name="Gemma3Text",
    language_class="Gemma3ForCausalLM",
    tensors=decoder_table(_BODY + _POST_NORMS + HEAD_NORMS, _THIRD),
    defaults=_THIRD,
    function=ModelFunction("llama", how=DecoderStyle(6, True, True, head_norms=True, query_scale=True), only=_CAUSAL),
    gguf=GgufArchitecture(
        "gemma3",
        (*_PAIRS2, *GGUF_HEAD_NORMS),
        _SHIFTED,
        entries=WINDOW + _CAP,
        fixed={
            **_TANH,
            "attn_logit_softcapping": (None,),
            "sliding_window_pattern": (6, None),
            "rope_local_base_freq": (10000, None),
            "use_bidirectional_attention": (False, None),
        },
        scaled_by_heads=62,
    ),
)
FAMILIES = (GEMMA, GEMMA2, GEMMA3, GEMMA3._replace(model_type="gemma3", class_name=None, language_class=None))
"""``gemma3`` is the model that sees: its part for texts is ``gemma3_text``."""

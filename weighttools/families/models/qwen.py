"""Qwen 2 and 3: Llama with biases on queries, keys and values, or with normalised heads.

Source: transformers 5, ``models/*/modeling_*.py`` and ``configuration_*.py``; llama.cpp, ``convert_hf_to_gguf.py``,
``gguf-py/gguf/tensor_mapping.py`` and ``src/llama-model.cpp``; peft, ``utils/constants.py``.
"""

from __future__ import annotations

from weighttools.families.model_family import DecoderStyle, GgufArchitecture, ModelFamily, ModelFunction
from weighttools.families.models.llama import (
    ATTENTION,
    BIASED,
    DEFAULTS,
    EMBEDDED,
    GATED,
    GGUF_HEAD_NORMS,
    GGUF_PAIRS,
    HEAD_NORMS,
    LAST_TOKEN,
    NORMS,
    SILU,
    decoder_table,
)  # fmt: skip

_DEFAULTS = {**DEFAULTS, "sliding_window": 4096, "max_window_layers": 28}
_THIRD = {**_DEFAULTS, "head_dim": 128}
_WHOLE = {**SILU, "use_sliding_window": (False,)}

QWEN2 = ModelFamily(
    model_type="qwen2",
    kind="decoder",
    class_name="Qwen2",
    prefix="model.",
    tensors=decoder_table(EMBEDDED + ATTENTION.replace(" : BIAS", "") + GATED + NORMS, _DEFAULTS),
    defaults=_DEFAULTS,
    function=ModelFunction("llama", how=DecoderStyle("said")),
    head=LAST_TOKEN,
    adapted=("q_proj", "v_proj"),
    gguf=GgufArchitecture("qwen2", GGUF_PAIRS, fixed=_WHOLE),
)
QWEN3 = QWEN2._replace(
    model_type="qwen3",
    class_name="Qwen3",
    tensors=decoder_table(EMBEDDED + BIASED + GATED + NORMS + HEAD_NORMS, _THIRD),
    defaults=_THIRD,
    function=ModelFunction("llama", how=DecoderStyle("said", head_norms=True)),
    gguf=GgufArchitecture("qwen3", (*GGUF_PAIRS, *GGUF_HEAD_NORMS), fixed=_WHOLE),
)
FAMILIES = (QWEN2, QWEN3)

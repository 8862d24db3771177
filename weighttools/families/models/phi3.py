"""Phi-3: Llama with queries, keys and values in one tensor, gate and up in another, and heads that turn in part.

Source: transformers 5, ``models/*/modeling_*.py`` and ``configuration_*.py``; llama.cpp, ``convert_hf_to_gguf.py``,
``gguf-py/gguf/tensor_mapping.py`` and ``src/llama-model.cpp``; peft, ``utils/constants.py``.
"""

from __future__ import annotations

from weighttools.families.model_family import DecoderStyle, GgufArchitecture, ModelFamily, ModelFunction, Pairs
from weighttools.families.models.llama import DEFAULTS, EMBEDDED, ENDS, LAST_TOKEN, NORMS, SILU, WINDOW, decoder_table

_FUSED = """
    layers.{}.self_attn.qkv_proj w X D
    layers.{}.self_attn.o_proj w D Q
    layers.{}.mlp.gate_up_proj w G D
    layers.{}.mlp.down_proj w D F
"""
_PAIRS: Pairs = (
    *ENDS,
    ("model.layers.{}.self_attn.qkv_proj", "blk.{}.attn_qkv"),
    ("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
    ("model.layers.{}.mlp.gate_up_proj", "blk.{}.ffn_up"),
    ("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
    ("model.layers.{}.input_layernorm", "blk.{}.attn_norm"),
    ("model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
)
_DEFAULTS = {**DEFAULTS, "rms_norm_eps": 1e-5, "pad_token_id": 32000}

PHI3 = ModelFamily(
    model_type="phi3",
    kind="decoder",
    class_name="Phi3",
    prefix="model.",
    tensors=decoder_table(EMBEDDED + _FUSED + NORMS, _DEFAULTS, is_grouped=True),
    defaults=_DEFAULTS,
    function=ModelFunction("llama", how=DecoderStyle("all", turns_part=True)),
    head=LAST_TOKEN,
    adapted=("qkv_proj",),
    gguf=GgufArchitecture(
        "phi3",
        _PAIRS,
        entries=WINDOW,
        read=(("original_max_position_embeddings", "rope.scaling.original_context_length"),),
        fixed=SILU,
        nulls=("bos_token_id", "eos_token_id", "pad_token_id"),
    ),
)
FAMILIES = (PHI3,)

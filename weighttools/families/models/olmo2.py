"""OLMo 2: Llama with norms over all heads at once, and behind what a block adds.

Source: transformers 5, ``models/olmo2``.
"""

from __future__ import annotations

from weighttools.families.model_family import ModelFamily
from weighttools.families.models.llama import BIASED, DEFAULTS, EMBEDDED, GATED, LAST_TOKEN, decoder_table

_WIDE_NORMS = """
    layers.{}.self_attn.q_norm w Q
    layers.{}.self_attn.k_norm w K
    layers.{}.post_attention_layernorm w D
    layers.{}.post_feedforward_layernorm w D
"""
_DEFAULTS = {**DEFAULTS, "rms_norm_eps": 1e-5, "pad_token_id": 1}

OLMO2 = ModelFamily(
    model_type="olmo2",
    kind="decoder",
    class_name="Olmo2",
    prefix="model.",
    tensors=decoder_table(EMBEDDED + BIASED + GATED + _WIDE_NORMS, _DEFAULTS, is_grouped=True),
    defaults=_DEFAULTS,
    function=None,
    head=LAST_TOKEN,
    adapted=("q_proj", "v_proj"),
    gguf=None,
)
FAMILIES = (OLMO2,)

"""Llama, and Mistral and SmolLM 3, which are built as it is; and what all of its kin share.

Source: transformers 5, ``models/*/modeling_*.py`` and ``configuration_*.py``; llama.cpp, ``convert_hf_to_gguf.py``,
``gguf-py/gguf/tensor_mapping.py`` and ``src/llama-model.cpp``; peft, ``utils/constants.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weighttools.families.lengths import HEADS, PLAIN, D, F, own_head
from weighttools.families.model_family import (
    DecoderStyle,
    GgufArchitecture,
    ModelFamily,
    ModelFunction,
    Pairs,
    ScoringHead,
)
from weighttools.families.shapes import Config, Length, TensorTable, entry, number, product

# -- tensors ----------------------------------------------------------------------------------------------------------

EMBEDDED = """
    embed_tokens w V D
    norm w D
"""
ATTENTION = """
    layers.{}.self_attn.q_proj w Q D
    layers.{}.self_attn.q_proj b Q : BIAS
    layers.{}.self_attn.k_proj w K D
    layers.{}.self_attn.k_proj b K : BIAS
    layers.{}.self_attn.v_proj w K D
    layers.{}.self_attn.v_proj b K : BIAS
    layers.{}.self_attn.o_proj w D Q
"""
_OUTPUT_BIAS = "layers.{}.self_attn.o_proj b D : attention_bias\n"
GATED = """
    layers.{}.mlp.gate_proj w F D
    layers.{}.mlp.up_proj w F D
    layers.{}.mlp.down_proj w D F
"""
_MLP_BIAS = """
    layers.{}.mlp.gate_proj b F : mlp_bias
    layers.{}.mlp.up_proj b F : mlp_bias
    layers.{}.mlp.down_proj b D : mlp_bias
"""
NORMS = """
    layers.{}.input_layernorm w D
    layers.{}.post_attention_layernorm w D
"""
HEAD_NORMS = """
    layers.{}.self_attn.q_norm w H
    layers.{}.self_attn.k_norm w H
"""
DECODER_HEADS = """
    lm_head w V D : tie_word_embeddings
    score w L D : ?
    classifier wb L D : ?
    qa_outputs wb L D : ?
"""
BIASED = ATTENTION.replace("BIAS", "attention_bias") + _OUTPUT_BIAS
_BARE = "\n".join(line for line in ATTENTION.splitlines() if "BIAS" not in line)


def _head_dim(default: int | None) -> Length:
    """Return the length of a head: what is said, else the family's own, else the hidden size's share."""

    def length(config: Config) -> int | None:
        size, heads = D(config), HEADS(config)
        return number(config, "head_dim") or default or (size // heads if size and heads else None)

    return length


def decoder_table(body: str, defaults: Mapping[str, Any], is_grouped: bool = False) -> TensorTable:
    """Return the tensors of a family of Llama's kin.

    Parameters
    ----------
    body
        Its table.
    defaults
        Of ``head_dim`` (else it is the hidden size's share) and ``tie_word_embeddings``, as `ModelFamily` has them.
    is_grouped
        Whether keys have as many heads as queries where their number is not said.
    """
    head = _head_dim(defaults.get("head_dim"))
    kept = product(entry("num_key_value_heads", *(("num_attention_heads",) if is_grouped else ())), head)
    asked = product(HEADS, head)

    def all_three(config: Config) -> int | None:
        q, k = asked(config), kept(config)
        return q + 2 * k if q and k else None

    sizes = {**PLAIN, "Q": asked, "K": kept, "H": head, "X": all_three, "G": product(2, F)}
    own = {"tie_word_embeddings": own_head(defaults["tie_word_embeddings"])}
    return TensorTable("embed_tokens.weight", body, DECODER_HEADS, sizes, own)


# -- llama.cpp --------------------------------------------------------------------------------------------------------

ENDS: Pairs = (("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output"))
BLOCK: Pairs = (
    ("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"),
    ("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"),
    ("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"),
    ("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
    ("model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"),
    ("model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"),
    ("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
    ("model.layers.{}.input_layernorm", "blk.{}.attn_norm"),
)
GGUF_PAIRS: Pairs = (*ENDS, *BLOCK, ("model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"))
GGUF_HEAD_NORMS: Pairs = (
    ("model.layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm"),
    ("model.layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm"),
)
WINDOW: Pairs = (("sliding_window", "attention.sliding_window"),)
SILU: Mapping[str, tuple[Any, ...]] = {"hidden_act": ("silu", "swish")}

# -- families ---------------------------------------------------------------------------------------------------------

DEFAULTS: Mapping[str, Any] = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "tie_word_embeddings": False,
}
LAST_TOKEN = ScoringHead("last", "score", has_bias=False)
"""How every decoder's class for sequences scores."""

LLAMA = ModelFamily(
    model_type="llama",
    kind="decoder",
    class_name="Llama",
    prefix="model.",
    tensors=decoder_table(EMBEDDED + BIASED + GATED + _MLP_BIAS + NORMS, DEFAULTS, is_grouped=True),
    defaults=DEFAULTS,
    function=ModelFunction("llama", how=DecoderStyle()),
    head=LAST_TOKEN,
    adapted=("q_proj", "v_proj"),
    gguf=GgufArchitecture("llama", GGUF_PAIRS, {"attn_q": "q", "attn_k": "k"}, fixed=SILU),
)
MISTRAL = LLAMA._replace(
    model_type="mistral",
    class_name="Mistral",
    tensors=decoder_table(EMBEDDED + _BARE + GATED + NORMS, DEFAULTS),
    defaults={**DEFAULTS, "sliding_window": 4096},
    function=ModelFunction("llama", how=DecoderStyle("all")),
)
_SMOLLM3 = {**DEFAULTS, "rope_theta": 2e6, "tie_word_embeddings": True, "pad_token_id": 128004}
SMOLLM3 = LLAMA._replace(
    model_type="smollm3",
    class_name="SmolLM3",
    tensors=decoder_table(EMBEDDED + BIASED + GATED + _MLP_BIAS + NORMS, _SMOLLM3),
    defaults=_SMOLLM3,
    function=None,
    gguf=None,
)
FAMILIES = (LLAMA, MISTRAL, SMOLLM3)

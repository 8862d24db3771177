"""Decoders: GPT-2, and Llama and its kin.

Source: transformers 5, ``models/*/modeling_*.py`` and ``configuration_*.py``; the tests build each family there.
"""

from __future__ import annotations

from weighttools.families.lengths import HEADS, LAYERS, PLAIN, D, F, V, classes, own_head
from weighttools.families.shapes import Config, Family, Length, entry, number, product, rows

_GPT2 = """
    wte w V D
    wpe w P D
    h.{}.ln_1 wb D
    h.{}.attn.c_attn w D Q
    h.{}.attn.c_attn b Q
    h.{}.attn.c_proj wb D D
    h.{}.ln_cross_attn wb D : add_cross_attention
    h.{}.crossattention.q_attn w D D : add_cross_attention
    h.{}.crossattention.q_attn b D : add_cross_attention
    h.{}.crossattention.c_attn w D K : add_cross_attention
    h.{}.crossattention.c_attn b K : add_cross_attention
    h.{}.crossattention.c_proj wb D D : add_cross_attention
    h.{}.ln_2 wb D
    h.{}.mlp.c_fc w D F
    h.{}.mlp.c_fc b F
    h.{}.mlp.c_proj w F D
    h.{}.mlp.c_proj b D
    ln_f wb D
"""
_EMBEDDED = """
    embed_tokens w V D
    norm w D
"""
_ATTENTION = """
    layers.{}.self_attn.q_proj w Q D
    layers.{}.self_attn.q_proj b Q : BIAS
    layers.{}.self_attn.k_proj w K D
    layers.{}.self_attn.k_proj b K : BIAS
    layers.{}.self_attn.v_proj w K D
    layers.{}.self_attn.v_proj b K : BIAS
    layers.{}.self_attn.o_proj w D Q
"""
_OUTPUT_BIAS = "layers.{}.self_attn.o_proj b D : attention_bias\n"
_GATED = """
    layers.{}.mlp.gate_proj w F D
    layers.{}.mlp.up_proj w F D
    layers.{}.mlp.down_proj w D F
"""
_MLP_BIAS = """
    layers.{}.mlp.gate_proj b F : mlp_bias
    layers.{}.mlp.up_proj b F : mlp_bias
    layers.{}.mlp.down_proj b D : mlp_bias
"""
_FUSED = """
    layers.{}.self_attn.qkv_proj w X D
    layers.{}.self_attn.o_proj w D Q
    layers.{}.mlp.gate_up_proj w G D
    layers.{}.mlp.down_proj w D F
"""
_NORMS = """
    layers.{}.input_layernorm w D
    layers.{}.post_attention_layernorm w D
"""
_POST_NORMS = """
    layers.{}.pre_feedforward_layernorm w D
    layers.{}.post_feedforward_layernorm w D
"""
_HEAD_NORMS = """
    layers.{}.self_attn.q_norm w H
    layers.{}.self_attn.k_norm w H
"""
_WIDE_NORMS = """
    layers.{}.self_attn.q_norm w Q
    layers.{}.self_attn.k_norm w K
    layers.{}.post_attention_layernorm w D
    layers.{}.post_feedforward_layernorm w D
"""
_DECODER_HEADS = """
    lm_head w V D : tie_word_embeddings
    score w L D : ?
    classifier wb L D : ?
    qa_outputs wb L D : ?
"""
_BIASED = _ATTENTION.replace("BIAS", "attention_bias") + _OUTPUT_BIAS
_PLAIN = "\n".join(line for line in _ATTENTION.splitlines() if "BIAS" not in line)


def _head_dim(default: int | None) -> Length:
    """Return the length of a head: what is said, else the family's own, else the hidden size's share."""

    def length(config: Config) -> int | None:
        size, heads = D(config), HEADS(config)
        return number(config, "head_dim") or default or (size // heads if size and heads else None)

    return length


def decoder(body: str, head_dim: int | None = None, is_tied: bool = False, is_grouped: bool = False) -> Family:
    """Return a family of Llama's kin.

    Parameters
    ----------
    body
        Its table.
    head_dim
        The length of a head where none is said; None: the hidden size's share.
    is_tied
        Whether the output layer is the embeddings' unless config.json says otherwise.
    is_grouped
        Whether keys have as many heads as queries where their number is not said.
    """
    head, keys = _head_dim(head_dim), ("num_key_value_heads", *(("num_attention_heads",) if is_grouped else ()))
    kept = product(entry(*keys), head)
    asked = product(HEADS, head)

    def all_three(config: Config) -> int | None:
        q, k = asked(config), kept(config)
        return q + 2 * k if q and k else None

    sizes = {**PLAIN, "Q": asked, "K": kept, "H": head, "X": all_three, "G": product(2, F)}
    own = {"tie_word_embeddings": own_head(is_tied)}
    heads = rows(_DECODER_HEADS, sizes, own)
    return Family("decoder", "embed_tokens.weight", LAYERS, rows(body, sizes, own), heads)


def gpt2() -> Family:
    """Return the tensors of GPT-2, whose weights are (in, out)."""
    size = entry("n_embd", "hidden_size")

    def inner(config: Config) -> int | None:
        return number(config, "n_inner") or product(4, size)(config)

    positions = entry("n_positions", "max_position_embeddings")
    sizes = {"V": V, "D": size, "P": positions, "Q": product(3, size), "K": product(2, size), "F": inner, "L": classes}
    own = {"tie_word_embeddings": own_head(is_tied=True)}
    whole = ("n_embd", "n_head")
    heads = rows(_DECODER_HEADS, sizes, own)
    return Family("decoder", "wte.weight", (("n_layer", 0),), rows(_GPT2, sizes, own), heads, whole)


LLAMA = _EMBEDDED + _BIASED + _GATED + _MLP_BIAS + _NORMS
MISTRAL = _EMBEDDED + _PLAIN + _GATED + _NORMS
QWEN2 = _EMBEDDED + _ATTENTION.replace(" : BIAS", "") + _GATED + _NORMS
QWEN3 = _EMBEDDED + _BIASED + _GATED + _NORMS + _HEAD_NORMS
OLMO2 = _EMBEDDED + _BIASED + _GATED + _WIDE_NORMS
PHI3 = _EMBEDDED + _FUSED + _NORMS
GEMMA = _EMBEDDED + _BIASED + _GATED + _NORMS
GEMMA2 = GEMMA + _POST_NORMS
GEMMA3 = GEMMA2 + _HEAD_NORMS

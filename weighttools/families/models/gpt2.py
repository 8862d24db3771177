"""GPT-2, whose weights are (in, out).

Source: transformers 5, ``models/*/modeling_*.py`` and ``configuration_*.py``; llama.cpp, ``convert_hf_to_gguf.py``,
``gguf-py/gguf/tensor_mapping.py`` and ``src/llama-model.cpp``; peft, ``utils/constants.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weighttools.families.lengths import V, classes, own_head
from weighttools.families.model_family import ConfigEntry, GgufArchitecture, ModelFamily, ModelFunction, Pairs
from weighttools.families.models.llama import DECODER_HEADS, LAST_TOKEN
from weighttools.families.shapes import Config, TensorTable, entry, number, product

_BODY = """
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
_PAIRS: Pairs = (
    ("transformer.wte", "token_embd"),
    ("transformer.wpe", "position_embd"),
    ("transformer.ln_f", "output_norm"),
    ("lm_head", "output"),
    ("transformer.h.{}.ln_1", "blk.{}.attn_norm"),
    ("transformer.h.{}.attn.c_attn", "blk.{}.attn_qkv"),
    ("transformer.h.{}.attn.c_proj", "blk.{}.attn_output"),
    ("transformer.h.{}.ln_2", "blk.{}.ffn_norm"),
    ("transformer.h.{}.mlp.c_fc", "blk.{}.ffn_up"),
    ("transformer.h.{}.mlp.c_proj", "blk.{}.ffn_down"),
)
_ENTRIES: Pairs = (
    ("n_layer", "block_count"),
    ("n_positions", "context_length"),
    ("n_embd", "embedding_length"),
    ("n_inner", "feed_forward_length"),
    ("n_head", "attention.head_count"),
    ("layer_norm_epsilon", "attention.layer_norm_epsilon"),
)
_DEFAULTS: Mapping[str, Any] = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}


def _table() -> TensorTable:
    size = entry("n_embd", "hidden_size")

    def inner(config: Config) -> int | None:
        return number(config, "n_inner") or product(4, size)(config)

    positions = entry("n_positions", "max_position_embeddings")
    sizes = {"V": V, "D": size, "P": positions, "Q": product(3, size), "K": product(2, size), "F": inner, "L": classes}
    own = {"tie_word_embeddings": own_head(_DEFAULTS["tie_word_embeddings"])}
    return TensorTable("wte.weight", _BODY, DECODER_HEADS, sizes, own, (("n_layer", 0),), ("n_embd", "n_head"))


_FUNCTION = ModelFunction(
    "gpt2",
    {
        "layers": ConfigEntry("count", ("n_layer", "num_hidden_layers"), most=4096),
        "heads": ConfigEntry("count", ("n_head", "num_attention_heads")),
        "eps": ConfigEntry("number", ("layer_norm_epsilon",)),
        "activation": ConfigEntry("activation", ("activation_function",)),
    },
    size="n_embd",
    skips=("h.{}.ln_cross_attn.", "h.{}.crossattention."),
    only={"scale_attn_by_inverse_layer_idx": (False,), "scale_attn_weights": (True,)},
)

GPT2 = ModelFamily(
    model_type="gpt2",
    kind="decoder",
    class_name="GPT2",
    language_class="GPT2LMHeadModel",
    prefix="transformer.",
    tensors=_table(),
    defaults=_DEFAULTS,
    function=_FUNCTION,
    head=LAST_TOKEN,
    adapted=("c_attn",),
    gguf=GgufArchitecture(
        "gpt2",
        _PAIRS,
        dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_down"), "transpose"),
        head=("lm_head.weight", "transformer.wte.weight"),
        wrappers=tuple((name, f"transformer.{name}") for name in ("h.", "wte.", "wpe.", "ln_f.")),
        derived=(r".*\.attn\.(masked_)?bias",),
        epsilon="attention.layer_norm_epsilon",
        entries=_ENTRIES,
        fixed={
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
        },
        widening=4,
    ),
)
FAMILIES = (GPT2,)

"""How GGUF and Hugging Face name the same tensors: tables only.

Source: llama.cpp, ``convert_hf_to_gguf.py`` and ``gguf-py/gguf/tensor_mapping.py``; transformers,
``modeling_gguf_pytorch_utils.py``, for the way back. ``{}`` stands for the layer's number; ``.weight`` and ``.bias``
follow either name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from weighttools.families.gguf.settings import SETTINGS as SETTINGS

Pairs = tuple[tuple[str, str], ...]

_BLOCK = (
    ("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"),
    ("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"),
    ("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"),
    ("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
    ("model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"),
    ("model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"),
    ("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
    ("model.layers.{}.input_layernorm", "blk.{}.attn_norm"),
)
_ENDS = (("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output"))
_LLAMA: Pairs = (*_ENDS, *_BLOCK, ("model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"))
_HEAD_NORMS: Pairs = (
    ("model.layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm"),
    ("model.layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm"),
)
_GEMMA2: Pairs = (
    *_ENDS,
    *_BLOCK,
    ("model.layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm"),
    ("model.layers.{}.pre_feedforward_layernorm", "blk.{}.ffn_norm"),
    ("model.layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm"),
)
_GPT2: Pairs = (
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
_PHI3: Pairs = (
    *_ENDS,
    ("model.layers.{}.self_attn.qkv_proj", "blk.{}.attn_qkv"),
    ("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
    ("model.layers.{}.mlp.gate_up_proj", "blk.{}.ffn_up"),
    ("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
    ("model.layers.{}.input_layernorm", "blk.{}.attn_norm"),
    ("model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
)
_BERT: Pairs = (
    ("embeddings.word_embeddings", "token_embd"),
    ("embeddings.position_embeddings", "position_embd"),
    ("embeddings.token_type_embeddings", "token_types"),
    ("embeddings.LayerNorm", "token_embd_norm"),
    ("encoder.layer.{}.attention.self.query", "blk.{}.attn_q"),
    ("encoder.layer.{}.attention.self.key", "blk.{}.attn_k"),
    ("encoder.layer.{}.attention.self.value", "blk.{}.attn_v"),
    ("encoder.layer.{}.attention.output.dense", "blk.{}.attn_output"),
    ("encoder.layer.{}.attention.output.LayerNorm", "blk.{}.attn_output_norm"),
    ("encoder.layer.{}.intermediate.dense", "blk.{}.ffn_up"),
    ("encoder.layer.{}.output.dense", "blk.{}.ffn_down"),
    ("encoder.layer.{}.output.LayerNorm", "blk.{}.layer_output_norm"),
    ("pooler.dense", "cls"),
)


@dataclass(frozen=True, slots=True)
class ArchitectureNames:
    """What is known of an architecture.

    Parameters
    ----------
    pairs
        Hugging Face's name and GGUF's, without ``.weight`` or ``.bias``.
    changes
        GGUF's names, without layer, of tensors that also change: ``"q"`` and ``"k"`` (rows of each head are
        interleaved), ``"transpose"``; ``"norm"`` (GGUF holds 1 more) goes for every weight whose name ends in norm.
    head
        The output layer and the embedding it is tied to where it is missing, by Hugging Face's names.
    wrappers
        Prefixes that Hugging Face's classes put before these names, and what takes their place.
    derived
        Hugging Face's tensors that GGUF has no place for, or computes: regular expressions.
    """

    pairs: Pairs
    changes: dict[str, str] = field(default_factory=dict)
    head: tuple[str, str] | None = ("lm_head.weight", "model.embed_tokens.weight")
    wrappers: tuple[tuple[str, str], ...] = (
        ("model.language_model.", "model."),
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("layers.", "model.layers."),
        ("embed_tokens.", "model.embed_tokens."),
        ("norm.", "model.norm."),
    )
    derived: tuple[str, ...] = (r".*rotary_emb\.inv_freq",)


_INTERLEAVED = {"attn_q": "q", "attn_k": "k"}
_NORMS = {"norm": "norm"}

FAMILIES: dict[str, ArchitectureNames] = {
    "llama": ArchitectureNames(_LLAMA, _INTERLEAVED),
    "gemma": ArchitectureNames(_LLAMA, _NORMS),
    "gemma2": ArchitectureNames(_GEMMA2, _NORMS),
    "gemma3": ArchitectureNames((*_GEMMA2, *_HEAD_NORMS), _NORMS),
    "qwen2": ArchitectureNames(_LLAMA),
    "qwen3": ArchitectureNames((*_LLAMA, *_HEAD_NORMS)),
    "phi3": ArchitectureNames(_PHI3),
    "gpt2": ArchitectureNames(
        _GPT2,
        dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_down"), "transpose"),
        ("lm_head.weight", "transformer.wte.weight"),
        tuple((name, f"transformer.{name}") for name in ("h.", "wte.", "wpe.", "ln_f.")),
        (r".*\.attn\.(masked_)?bias",),
    ),
    "bert": ArchitectureNames(
        _BERT,
        {},
        None,
        (("bert.", ""),),
        (r"(.*\.)?position_ids", r"cls\.predictions\..*", r"cls\.seq_relationship\..*"),
    ),
}
"""By GGUF's ``general.architecture``."""

ARCHITECTURES: dict[str, str] = {
    "llama": "llama",
    "mistral": "llama",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "gpt2": "gpt2",
    "bert": "bert",
}
"""Hugging Face's ``model_type`` to GGUF's architecture."""

DERIVED = (r"rope_freqs\.weight", r"rope_factors_(long|short)\.weight", r"blk\.\d+\.attn_rot_embd\.weight")
"""GGUF's tensors that Hugging Face's configuration holds instead: regular expressions."""

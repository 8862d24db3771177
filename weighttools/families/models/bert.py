"""BERT, and RoBERTa, XLM-RoBERTa and CamemBERT, which are BERT with other heads and positions.

Source: transformers 5, ``models/*/modeling_*.py`` and ``configuration_*.py``; llama.cpp, ``convert_hf_to_gguf.py``,
``gguf-py/gguf/tensor_mapping.py`` and ``src/llama-model.cpp``; peft, ``utils/constants.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weighttools.families.lengths import encoder_table
from weighttools.families.model_family import (
    ConfigEntry,
    EncoderParts,
    GgufArchitecture,
    ModelFamily,
    ModelFunction,
    Pairs,
    ScoringHead,
)

BODY = """
    embeddings.word_embeddings w V D
    embeddings.position_embeddings w P D
    embeddings.token_type_embeddings w T D
    embeddings.LayerNorm wb D
    encoder.layer.{}.attention.self.query wb D D
    encoder.layer.{}.attention.self.key wb D D
    encoder.layer.{}.attention.self.value wb D D
    encoder.layer.{}.attention.output.dense wb D D
    encoder.layer.{}.attention.output.LayerNorm wb D
    encoder.layer.{}.intermediate.dense wb F D
    encoder.layer.{}.output.dense wb D F
    encoder.layer.{}.output.LayerNorm wb D
    pooler.dense wb D D : ?
"""
_BERT_HEADS = """
    classifier wb L D : ?
    qa_outputs wb L D : ?
    cls.predictions.transform.dense wb D D : ?
    cls.predictions.transform.LayerNorm wb D : ?
    cls.predictions.decoder w V D : tie_word_embeddings
    cls.predictions.decoder b V : ?
    cls.predictions.bias - V : ?
    cls.seq_relationship wb 2 D : ?
"""
ROBERTA_HEADS = """
    classifier wb L D : ?
    classifier.dense wb D D : ?
    classifier.out_proj wb L D : ?
    qa_outputs wb L D : ?
    lm_head.dense wb D D : ?
    lm_head.layer_norm wb D : ?
    lm_head.decoder w V D : tie_word_embeddings
    lm_head.decoder b V : ?
    lm_head.bias - V : ?
"""
_PAIRS: Pairs = (
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
DEFAULTS: Mapping[str, Any] = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "tie_word_embeddings": True}
ENTRIES: Mapping[str, ConfigEntry] = {
    "layers": ConfigEntry("count", ("num_hidden_layers",), most=4096),
    "heads": ConfigEntry("count", ("num_attention_heads",)),
    "eps": ConfigEntry("number", ("layer_norm_eps",)),
    "activation": ConfigEntry("activation", ("hidden_act",)),
}
ONLY: Mapping[str, tuple[Any, ...]] = {"position_embedding_type": ("absolute",), "is_decoder": (False,)}
SPARES = ("embeddings.token_type_embeddings.weight",)

BERT = ModelFamily(
    model_type="bert",
    kind="encoder",
    class_name="Bert",
    prefix="bert.",
    tensors=encoder_table(BODY, _BERT_HEADS),
    defaults=DEFAULTS,
    function=ModelFunction("bert", ENTRIES, EncoderParts(), only=ONLY, spares=SPARES),
    head=ScoringHead("cls", "classifier", "{}pooler.dense"),
    adapted=("query", "value"),
    gguf=GgufArchitecture(
        "bert",
        _PAIRS,
        head=None,
        wrappers=(("bert.", ""),),
        derived=(r"(.*\.)?position_ids", r"cls\.predictions\..*", r"cls\.seq_relationship\..*"),
        epsilon="attention.layer_norm_epsilon",
        fixed={"hidden_act": ("gelu",), "position_embedding_type": ("absolute", None)},
        always={"attention.causal": False},
    ),
)
_PADDED = {**ENTRIES, "padding": ConfigEntry("count", ("pad_token_id",), least=0)}
ROBERTA = BERT._replace(
    model_type="roberta",
    class_name="Roberta",
    prefix="roberta.",
    tensors=encoder_table(BODY, ROBERTA_HEADS),
    defaults={**DEFAULTS, "pad_token_id": 1},
    function=ModelFunction("bert", _PADDED, EncoderParts(), only=ONLY, spares=SPARES),
    head=ScoringHead("cls", "classifier.out_proj", "classifier.dense"),
    gguf=None,
)
FAMILIES = (
    BERT,
    ROBERTA,
    ROBERTA._replace(model_type="xlm-roberta", class_name="XLMRoberta"),
    ROBERTA._replace(model_type="camembert", class_name="Camembert"),
)

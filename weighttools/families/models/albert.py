"""ALBERT: BERT with layers in groups, each shared, on narrower embeddings.

Source: transformers 5, ``models/albert``.
"""

from __future__ import annotations

from weighttools.families.lengths import encoder_table, narrow_lengths
from weighttools.families.model_family import ConfigEntry, EncoderParts, ModelFamily, ModelFunction, ScoringHead
from weighttools.families.models.bert import DEFAULTS, ENTRIES, ONLY, SPARES

_BODY = """
    embeddings.word_embeddings w V E
    embeddings.position_embeddings w P E
    embeddings.token_type_embeddings w T E
    embeddings.LayerNorm wb E
    encoder.embedding_hidden_mapping_in wb D E
    encoder.albert_layer_groups.{}.albert_layers.{}.attention.query wb D D
    encoder.albert_layer_groups.{}.albert_layers.{}.attention.key wb D D
    encoder.albert_layer_groups.{}.albert_layers.{}.attention.value wb D D
    encoder.albert_layer_groups.{}.albert_layers.{}.attention.dense wb D D
    encoder.albert_layer_groups.{}.albert_layers.{}.attention.LayerNorm wb D
    encoder.albert_layer_groups.{}.albert_layers.{}.ffn wb F D
    encoder.albert_layer_groups.{}.albert_layers.{}.ffn_output wb D F
    encoder.albert_layer_groups.{}.albert_layers.{}.full_layer_layer_norm wb D
    pooler wb D D : ?
"""
_HEADS = """
    classifier wb L D : ?
    qa_outputs wb L D : ?
    predictions.dense wb E D : ?
    predictions.LayerNorm wb E : ?
    predictions.decoder w V E : tie_word_embeddings
    predictions.decoder b V : ?
    predictions.bias - V : ?
    sop_classifier.classifier wb 2 D : ?
"""
_DEFAULTS = {
    **DEFAULTS,
    "embedding_size": 128,
    "hidden_act": "gelu_new",
    "inner_group_num": 1,
    "num_hidden_groups": 1,
}
_PARTS = EncoderParts(
    "encoder.albert_layer_groups.{}.albert_layers.{}",
    ("attention.query", "attention.key", "attention.value"),
    "attention.dense",
    "attention.LayerNorm",
    "ffn",
    "ffn_output",
    "full_layer_layer_norm",
    "encoder.embedding_hidden_mapping_in",
    "pooler",
)
_ENTRIES = {
    **ENTRIES,
    "groups": ConfigEntry("count", ("num_hidden_groups",), most="layers"),
    "inner": ConfigEntry("count", ("inner_group_num",), most=4096),
}

ALBERT = ModelFamily(
    model_type="albert",
    kind="encoder",
    class_name="Albert",
    prefix="albert.",
    tensors=encoder_table(
        _BODY,
        _HEADS,
        narrow_lengths(_DEFAULTS["embedding_size"]),
        counts=(("num_hidden_groups", 1), ("inner_group_num", 1)),
    ),
    defaults=_DEFAULTS,
    function=ModelFunction(
        "bert",
        _ENTRIES,
        _PARTS,
        only=ONLY,
        spares=(*SPARES, "encoder.embedding_hidden_mapping_in.weight", "encoder.embedding_hidden_mapping_in.bias"),
    ),
    head=ScoringHead("cls", "classifier", "{}pooler"),
    adapted=("query", "value"),
    gguf=None,
)
FAMILIES = (ALBERT,)

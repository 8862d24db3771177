"""DistilBERT: BERT with half the layers, no token types, and other names.

Source: transformers 5, ``models/distilbert``.
"""

from __future__ import annotations

from weighttools.families.lengths import PLAIN, encoder_table
from weighttools.families.model_family import ConfigEntry, EncoderParts, ModelFamily, ModelFunction, ScoringHead
from weighttools.families.shapes import entry

_BODY = """
    embeddings.word_embeddings w V D
    embeddings.position_embeddings w P D
    embeddings.LayerNorm wb D
    transformer.layer.{}.attention.q_lin wb D D
    transformer.layer.{}.attention.k_lin wb D D
    transformer.layer.{}.attention.v_lin wb D D
    transformer.layer.{}.attention.out_lin wb D D
    transformer.layer.{}.sa_layer_norm wb D
    transformer.layer.{}.ffn.lin1 wb F D
    transformer.layer.{}.ffn.lin2 wb D F
    transformer.layer.{}.output_layer_norm wb D
"""
_HEADS = """
    pre_classifier wb D D : ?
    classifier wb L D : ?
    qa_outputs wb L D : ?
    vocab_transform wb D D : ?
    vocab_layer_norm wb D : ?
    vocab_projector w V D : tie_word_embeddings
    vocab_projector b V : ?
"""
_PARTS = EncoderParts(
    "transformer.layer.{}",
    ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
    pooler="",
)
_ENTRIES = {
    "layers": ConfigEntry("count", ("n_layers",), most=4096),
    "heads": ConfigEntry("count", ("n_heads",)),
    "activation": ConfigEntry("activation", ("activation",)),
}

DISTILBERT = ModelFamily(
    model_type="distilbert",
    kind="encoder",
    class_name="DistilBert",
    prefix="distilbert.",
    tensors=encoder_table(
        _BODY,
        _HEADS,
        {**PLAIN, "D": entry("dim", "hidden_size"), "F": entry("hidden_dim")},
        counts=(("n_layers", 0),),
        whole=("dim", "n_heads"),
    ),
    defaults={"activation": "gelu", "tie_word_embeddings": True},
    function=ModelFunction("bert", _ENTRIES, _PARTS, size="dim"),
    head=ScoringHead("cls", "classifier", "pre_classifier", "relu"),
    adapted=("q_lin", "v_lin"),
    gguf=None,
)
FAMILIES = (DISTILBERT,)

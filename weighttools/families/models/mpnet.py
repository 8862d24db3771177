"""MPNet: BERT with a table of relative positions.

Source: transformers 5, ``models/mpnet``.
"""

from __future__ import annotations

from weighttools.families.lengths import HEADS, PLAIN, encoder_table
from weighttools.families.model_family import ModelFamily
from weighttools.families.models.bert import DEFAULTS, ROBERTA_HEADS
from weighttools.families.shapes import entry

_BODY = """
    embeddings.word_embeddings w V D
    embeddings.position_embeddings w P D
    embeddings.LayerNorm wb D
    encoder.relative_attention_bias w B H
    encoder.layer.{}.attention.attn.q wb D D
    encoder.layer.{}.attention.attn.k wb D D
    encoder.layer.{}.attention.attn.v wb D D
    encoder.layer.{}.attention.attn.o wb D D
    encoder.layer.{}.attention.LayerNorm wb D
    encoder.layer.{}.intermediate.dense wb F D
    encoder.layer.{}.output.dense wb D F
    encoder.layer.{}.output.LayerNorm wb D
    pooler.dense wb D D : ?
"""
_SIZES = {**PLAIN, "B": entry("relative_attention_num_buckets", default=32), "H": HEADS}

MPNET = ModelFamily(
    model_type="mpnet",
    kind="encoder",
    class_name="MPNet",
    prefix="mpnet.",
    tensors=encoder_table(_BODY, ROBERTA_HEADS, _SIZES),
    defaults={**DEFAULTS, "pad_token_id": 1},
    function=None,
    head=None,
    adapted=None,
    gguf=None,
)
FAMILIES = (MPNET,)

"""ELECTRA: BERT on embeddings that may be narrower.

Source: transformers 5, ``models/electra``.
"""

from __future__ import annotations

from weighttools.families.lengths import encoder_table, is_projected, narrow_lengths
from weighttools.families.model_family import EncoderParts, ModelFamily, ModelFunction, ScoringHead
from weighttools.families.models.bert import BODY, DEFAULTS, ENTRIES, ONLY, SPARES
from weighttools.families.shapes import TensorTable

_BODY = BODY.replace(" V D", " V E").replace(" P D", " P E").replace(" T D", " T E").replace(
    "embeddings.LayerNorm wb D", "embeddings.LayerNorm wb E\n embeddings_project wb D E : embedding_size"
).replace("pooler.dense wb D D : ?", "")  # fmt: skip
_HEADS = """
    classifier wb L D : ?
    classifier.dense wb D D : ?
    classifier.out_proj wb L D : ?
    qa_outputs wb L D : ?
    discriminator_predictions.dense wb D D : ?
    discriminator_predictions.dense_prediction wb 1 D : ?
    generator_predictions.dense wb E D : ?
    generator_predictions.LayerNorm wb E : ?
    generator_lm_head w V E : tie_word_embeddings
    generator_lm_head b V : ?
"""
_DEFAULTS = {**DEFAULTS, "embedding_size": 128}


def _table() -> TensorTable:
    sizes = narrow_lengths(_DEFAULTS["embedding_size"])
    return encoder_table(_BODY, _HEADS, sizes, {"embedding_size": is_projected(sizes["E"])})


ELECTRA = ModelFamily(
    model_type="electra",
    kind="encoder",
    class_name="Electra",
    prefix="electra.",
    tensors=_table(),
    defaults=_DEFAULTS,
    function=ModelFunction(
        "bert", ENTRIES, EncoderParts(widened="embeddings_project", pooler=""), only=ONLY, spares=SPARES
    ),
    head=ScoringHead("cls", "classifier.out_proj", "classifier.dense", "gelu"),
    adapted=("query", "value"),
    gguf=None,
)
FAMILIES = (ELECTRA,)

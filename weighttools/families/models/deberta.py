"""DeBERTa 2 and 3: an encoder whose attention looks at contents and at relative positions apart.

Source: transformers 5, ``models/deberta_v2``.
"""

from __future__ import annotations

from weighttools.families.lengths import encoder_table, is_projected, narrow_lengths
from weighttools.families.model_family import ModelFamily
from weighttools.families.shapes import Condition, Config, TensorTable, entry, flag, number

_BODY = """
    embeddings.word_embeddings w V E
    embeddings.position_embeddings w P E : position_biased_input
    embeddings.token_type_embeddings w T E : type_vocab_size
    embeddings.embed_proj w D E : embedding_size
    embeddings.LayerNorm wb D
    encoder.rel_embeddings w R D : relative_attention
    encoder.LayerNorm wb D : norm_rel_ebd
    encoder.conv.conv w D D K : conv_kernel_size
    encoder.conv.conv b D : conv_kernel_size
    encoder.conv.LayerNorm wb D : conv_kernel_size
    encoder.layer.{}.attention.self.query_proj wb D D
    encoder.layer.{}.attention.self.key_proj wb D D
    encoder.layer.{}.attention.self.value_proj wb D D
    encoder.layer.{}.attention.self.pos_key_proj wb D D : pos_att_type c2p
    encoder.layer.{}.attention.self.pos_query_proj wb D D : pos_att_type p2c
    encoder.layer.{}.attention.output.dense wb D D
    encoder.layer.{}.attention.output.LayerNorm wb D
    encoder.layer.{}.intermediate.dense wb F D
    encoder.layer.{}.output.dense wb D F
    encoder.layer.{}.output.LayerNorm wb D
"""
_HEADS = """
    pooler.dense wb O O : ?
    classifier wb L O : ?
    qa_outputs wb L D : ?
    cls.predictions.transform.dense wb E D : ?
    cls.predictions.transform.LayerNorm wb E : ?
    cls.predictions.decoder w V E : tie_word_embeddings
    cls.predictions.decoder b V : ?
    cls.predictions.bias - V : ?
"""


def _attends(kind: str) -> Condition:
    """Return the condition that DeBERTa has a matrix of its own for a kind of attention (``pos_att_type``)."""

    def when(config: Config) -> bool | None:
        kinds = config.get("pos_att_type") or ()
        named = kinds.lower().split("|") if isinstance(kinds, str) else kinds
        is_relative = config.get("relative_attention") and not config.get("share_att_key")
        return bool(is_relative and isinstance(named, (list, tuple)) and kind in named)

    return when


def _relative(config: Config) -> int | None:
    keys = ("position_buckets", "max_relative_positions", "max_position_embeddings")
    span = next((n for key in keys if (n := number(config, key))), None)
    return 2 * span if span else None


def _table() -> TensorTable:
    sizes = {**narrow_lengths(None), "R": _relative, "K": entry("conv_kernel_size")}
    sizes["O"] = entry("pooler_hidden_size", "hidden_size")
    conditions: dict[str, Condition] = {
        "embedding_size": is_projected(sizes["E"]),
        "position_biased_input": flag("position_biased_input", default=True),
        "pos_att_type c2p": _attends("c2p"),
        "pos_att_type p2c": _attends("p2c"),
        "norm_rel_ebd": lambda config: "layer_norm" in str(config.get("norm_rel_ebd")).split("|"),
    }
    return encoder_table(_BODY, _HEADS, sizes, conditions)


DEBERTA = ModelFamily(
    model_type="deberta-v2",
    kind="encoder",
    class_name="DebertaV2",
    prefix="deberta.",
    tensors=_table(),
    defaults={"hidden_act": "gelu", "layer_norm_eps": 1e-7, "tie_word_embeddings": True},
    function=None,
    head=None,
    adapted=("query_proj", "value_proj"),
    gguf=None,
)
FAMILIES = (DEBERTA,)

"""Encoders: BERT and its kin, and the vision transformer.

Source: transformers 5, ``models/*/modeling_*.py`` and ``configuration_*.py``; the tests build each family there.
"""

from __future__ import annotations

from collections.abc import Mapping

from weighttools.families.lengths import HEADS, LAYERS, PLAIN, D, own_head
from weighttools.families.shapes import Condition, Config, Family, Length, entry, flag, number, rows

_WHOLE = ("hidden_size", "num_attention_heads")
"""A length and the heads that must divide it."""

_BERT = """
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
_ROBERTA_HEADS = """
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
_ELECTRA = _BERT.replace(" V D", " V E").replace(" P D", " P E").replace(" T D", " T E").replace(
    "embeddings.LayerNorm wb D", "embeddings.LayerNorm wb E\n embeddings_project wb D E : embedding_size"
).replace("pooler.dense wb D D : ?", "")  # fmt: skip
_ELECTRA_HEADS = """
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
_ALBERT = """
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
_ALBERT_HEADS = """
    classifier wb L D : ?
    qa_outputs wb L D : ?
    predictions.dense wb E D : ?
    predictions.LayerNorm wb E : ?
    predictions.decoder w V E : tie_word_embeddings
    predictions.decoder b V : ?
    predictions.bias - V : ?
    sop_classifier.classifier wb 2 D : ?
"""
_DISTILBERT = """
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
_DISTILBERT_HEADS = """
    pre_classifier wb D D : ?
    classifier wb L D : ?
    qa_outputs wb L D : ?
    vocab_transform wb D D : ?
    vocab_layer_norm wb D : ?
    vocab_projector w V D : tie_word_embeddings
    vocab_projector b V : ?
"""
_MPNET = """
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
_DEBERTA = """
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
_DEBERTA_HEADS = """
    pooler.dense wb O O : ?
    classifier wb L O : ?
    qa_outputs wb L D : ?
    cls.predictions.transform.dense wb E D : ?
    cls.predictions.transform.LayerNorm wb E : ?
    cls.predictions.decoder w V E : tie_word_embeddings
    cls.predictions.decoder b V : ?
    cls.predictions.bias - V : ?
"""
_VIT = """
    embeddings.cls_token - 1 1 D
    embeddings.position_embeddings - 1 N D
    embeddings.mask_token - 1 1 D : ?
    embeddings.patch_embeddings.projection w D C S S
    embeddings.patch_embeddings.projection b D
    encoder.layer.{}.layernorm_before wb D
    encoder.layer.{}.layernorm_after wb D
    encoder.layer.{}.attention.attention.query w D D
    encoder.layer.{}.attention.attention.query b D : qkv_bias
    encoder.layer.{}.attention.attention.key w D D
    encoder.layer.{}.attention.attention.key b D : qkv_bias
    encoder.layer.{}.attention.attention.value w D D
    encoder.layer.{}.attention.attention.value b D : qkv_bias
    encoder.layer.{}.attention.output.dense wb D D
    encoder.layer.{}.intermediate.dense wb F D
    encoder.layer.{}.output.dense wb D F
    layernorm wb D
    pooler.dense wb O D : ?
"""


def _embedding(default: int | None) -> Mapping[str, Length]:
    """Return the lengths of a family whose embeddings may be narrower; `default` None: as its layers."""
    narrow = entry("embedding_size", "hidden_size") if default is None else entry("embedding_size", default=default)
    return {**PLAIN, "E": narrow}


def _projected(narrow: Length) -> Condition:
    """Return the condition that embeddings are of another length than the layers."""

    def when(config: Config) -> bool | None:
        sizes = narrow(config), D(config)
        return None if None in sizes else sizes[0] != sizes[1]

    return when


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


def _patches(config: Config) -> int | None:
    size, patch = number(config, "image_size"), number(config, "patch_size")
    return (size // patch) ** 2 + 1 if size and patch else None


def _encoder(
    body: str, heads: str, sizes: Mapping[str, Length] = PLAIN, conditions: Mapping[str, Condition] | None = None,
    counts: tuple[tuple[str, int], ...] = LAYERS, whole: tuple[str, str] = _WHOLE,
    anchor: str = "embeddings.word_embeddings.weight",
) -> Family:  # fmt: skip
    own = {"tie_word_embeddings": own_head(is_tied=True), **(conditions or {})}
    return Family("encoder", anchor, counts, rows(body, sizes, own), rows(heads, sizes, own), whole)


def bert() -> Family:
    """Return the tensors of BERT."""
    return _encoder(_BERT, _BERT_HEADS)


def roberta() -> Family:
    """Return the tensors of RoBERTa, XLM-RoBERTa and CamemBERT: BERT with other heads."""
    return _encoder(_BERT, _ROBERTA_HEADS)


def electra() -> Family:
    """Return the tensors of ELECTRA: BERT on embeddings that may be narrower."""
    sizes = _embedding(128)
    return _encoder(_ELECTRA, _ELECTRA_HEADS, sizes, {"embedding_size": _projected(sizes["E"])})


def albert() -> Family:
    """Return the tensors of ALBERT: layers in groups, each shared, on narrower embeddings."""
    counts = (("num_hidden_groups", 1), ("inner_group_num", 1))
    return _encoder(_ALBERT, _ALBERT_HEADS, _embedding(128), counts=counts)


def distilbert() -> Family:
    """Return the tensors of DistilBERT."""
    sizes = {**PLAIN, "D": entry("dim", "hidden_size"), "F": entry("hidden_dim")}
    return _encoder(_DISTILBERT, _DISTILBERT_HEADS, sizes, counts=(("n_layers", 0),), whole=("dim", "n_heads"))


def mpnet() -> Family:
    """Return the tensors of MPNet."""
    sizes = {**PLAIN, "B": entry("relative_attention_num_buckets", default=32), "H": HEADS}
    return _encoder(_MPNET, _ROBERTA_HEADS, sizes)


def deberta() -> Family:
    """Return the tensors of DeBERTa 2 and 3."""
    sizes = {**_embedding(None), "R": _relative, "K": entry("conv_kernel_size")}
    sizes["O"] = entry("pooler_hidden_size", "hidden_size")
    conditions: dict[str, Condition] = {
        "embedding_size": _projected(sizes["E"]),
        "position_biased_input": flag("position_biased_input", default=True),
        "pos_att_type c2p": _attends("c2p"),
        "pos_att_type p2c": _attends("p2c"),
        "norm_rel_ebd": lambda config: "layer_norm" in str(config.get("norm_rel_ebd")).split("|"),
    }
    return _encoder(_DEBERTA, _DEBERTA_HEADS, sizes, conditions)


def vit() -> Family:
    """Return the tensors of the vision transformer."""
    sizes = {**PLAIN, "N": _patches, "C": entry("num_channels"), "S": entry("patch_size")}
    sizes["O"] = entry("pooler_output_size", "hidden_size")
    bias: Mapping[str, Condition] = {"qkv_bias": flag("qkv_bias", default=True)}
    return _encoder(_VIT, "classifier wb L D : ?", sizes, bias, anchor="embeddings.patch_embeddings.projection.weight")

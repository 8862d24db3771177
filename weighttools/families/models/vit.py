"""The vision transformer.

Source: transformers 5, ``models/vit``.
"""

from __future__ import annotations

from weighttools.families.lengths import PLAIN, encoder_table
from weighttools.families.model_family import ModelFamily
from weighttools.families.shapes import Config, entry, flag, number

_BODY = """
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


def _patches(config: Config) -> int | None:
    size, patch = number(config, "image_size"), number(config, "patch_size")
    return (size // patch) ** 2 + 1 if size and patch else None


_SIZES = {
    **PLAIN,
    "N": _patches,
    "C": entry("num_channels"),
    "S": entry("patch_size"),
    "O": entry("pooler_output_size", "hidden_size"),
}

VIT = ModelFamily(
    model_type="vit",
    kind="encoder",
    class_name="ViT",
    prefix="vit.",
    tensors=encoder_table(
        _BODY,
        "classifier wb L D : ?",
        _SIZES,
        {"qkv_bias": flag("qkv_bias", default=True)},
        anchor="embeddings.patch_embeddings.projection.weight",
    ),
    defaults={"hidden_act": "gelu", "layer_norm_eps": 1e-12},
    function=None,
    head=None,
    adapted=("query", "value"),
    gguf=None,
)
FAMILIES = (VIT,)

"""The families of models that are known: a module for each, or for kin, with a row of `ModelFamily` for each.

To add one, write a module with ``FAMILIES``, name it in `_MODULES`, and give it a configuration in
``tests/families/test_shapes.py`` and, if training computes it, in ``tests/train/test_models.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

from weighttools.families.model_family import ModelFamily
from weighttools.families.models import (
    albert,
    bert,
    deberta,
    distilbert,
    electra,
    gemma,
    gpt2,
    llama,
    mpnet,
    olmo2,
    phi3,
    qwen,
    vit,
)

_MODULES = (llama, gemma, qwen, olmo2, bert, electra, albert, distilbert, gpt2, phi3, deberta, mpnet, vit)

FAMILIES: Mapping[str, ModelFamily] = {row.model_type: row for module in _MODULES for row in module.FAMILIES}
"""By config.json's ``model_type``."""


GGUF_FAMILIES: dict[str, ModelFamily] = {}
"""By GGUF's ``general.architecture``: of several with one, what a file is read as."""
for _row in FAMILIES.values():
    if _row.gguf is not None:
        GGUF_FAMILIES.setdefault(_row.gguf.architecture, _row)

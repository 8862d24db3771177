"""The families of models that are known: a module for each, or for kin, with a row of `ModelFamily` for each.

To add one, write a module with ``FAMILIES``, name it in `_MODULES`, and give it a configuration in
``tests/families/test_shapes.py`` and, if training computes it, in ``tests/train/models/test_models.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weighttools.families.model_family import ModelFamily

_MODULES: Mapping[str, tuple[str, ...]] = {
    "llama": ("llama", "mistral", "smollm3"),
    "gemma": ("gemma", "gemma2", "gemma3_text", "gemma3"),
    "qwen": ("qwen2", "qwen3"),
    "olmo2": ("olmo2",),
    "bert": ("bert", "roberta", "xlm-roberta", "camembert"),
    "electra": ("electra",),
    "albert": ("albert",),
    "distilbert": ("distilbert",),
    "gpt2": ("gpt2",),
    "phi3": ("phi3",),
    "deberta": ("deberta-v2",),
    "mpnet": ("mpnet",),
    "vit": ("vit",),
}
"""Each module, and the ``model_type`` of its rows: a check of one model loads that module only."""


class _Families(Mapping[str, "ModelFamily"]):
    """The rows, each read from its module when it is asked for."""

    def __init__(self) -> None:
        self._homes = {kind: module for module, kinds in _MODULES.items() for kind in kinds}

    def __getitem__(self, model_type: str) -> ModelFamily:
        rows: tuple[ModelFamily, ...] = import_module(f"{__name__}.{self._homes[model_type]}").FAMILIES
        return next(row for row in rows if row.model_type == model_type)

    def __contains__(self, model_type: object) -> bool:
        return model_type in self._homes

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


FAMILIES: Mapping[str, ModelFamily] = _Families()
"""By config.json's ``model_type``."""


@functools.cache
def gguf_families() -> Mapping[str, ModelFamily]:
    """Return the families by GGUF's ``general.architecture``: of several with one, what a file is read as."""
    found: dict[str, ModelFamily] = {}
    for row in FAMILIES.values():
        if row.gguf is not None:
            found.setdefault(row.gguf.architecture, row)
    return found

"""What transformers calls the class of a model, by config.json's ``model_type``."""

from __future__ import annotations

from collections.abc import Mapping

CLASSES: Mapping[str, str] = {
    "albert": "Albert",
    "bert": "Bert",
    "camembert": "Camembert",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3Text",
    "gpt2": "GPT2",
    "llama": "Llama",
    "mistral": "Mistral",
    "phi3": "Phi3",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
}
"""What ``…Model``, ``…ForCausalLM`` and ``…ForSequenceClassification`` begin with."""

_DECODERS = {"gemma3_text": "Gemma3ForCausalLM", "gpt2": "GPT2LMHeadModel"}
"""Those that are named by no rule."""


def class_of(model_type: str, kind: str) -> str:
    """Return the class that reads a checkpoint without a head of a task: ``LlamaForCausalLM``, ``BertModel``.

    Parameters
    ----------
    model_type
        One of `CLASSES`.
    kind
        ``decoder`` or ``encoder``.
    """
    if kind == "decoder":
        return _DECODERS.get(model_type, f"{CLASSES[model_type]}ForCausalLM")
    return f"{CLASSES[model_type]}Model"

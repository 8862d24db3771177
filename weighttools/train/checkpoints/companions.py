"""What lies beside a tuned model's weights, so that other programs load it: config.json, the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from weighttools.families.gguf.companions import as_json, found_beside, is_directory, tokenizer_files, unloadable
from weighttools.families.models import FAMILIES
from weighttools.io.beside import not_copied
from weighttools.train.adapters.adapting import peft_config
from weighttools.train.checkpoints.heads import Classifier, Embedder, Regressor, form_of
from weighttools.train.checkpoints.loading import CONFIG, OURS, SEQUENCES, Loaded
from weighttools.train.checkpoints.pooling import pad_of
from weighttools.write.adapters import CONFIG as ADAPTER
from weighttools.write.adapters import HEAD, of_head


def companions(model: Loaded, pad_id: int | None = None) -> dict[str, bytes]:
    """Return the files to write into a tuned model's directory, by name.

    Parameters
    ----------
    model
        The model.
    pad_id
        The token that fills up texts, for a config.json that does not say.

    Returns
    -------
    dict
        config.json, told of the head; of a model that was a single file also what makes up its tokenizer (a
        directory's other files are copied when it is written). Empty for a model without config.json.
    """
    if not model.config or model.origin is None:
        return {}
    files = {} if is_directory(model.origin) else tokenizer_files(model.origin)[0]
    return files | {CONFIG: as_json(config_with_head(model, pad_id))}


def left_out(model: Loaded, beside: Mapping[str, bytes]) -> list[str]:
    """Return the lines that say which files of a tokenizer `companions` leaves out, and what no other program reads.

    Parameters
    ----------
    model
        The model. Of one that was a directory, it is told when that is written.
    beside
        What is written beside the weights after all.
    """
    if not model.config or model.origin is None or is_directory(model.origin):
        return []
    reasons = {name: why for name, why in found_beside(model.origin).items() if why and name not in beside}
    return [*not_copied(reasons), *(unloadable(model.config) if CONFIG in beside else ())]


def config_with_head(model: Loaded, pad_id: int | None = None) -> dict[str, Any]:
    """Return a model's config.json with its head in it, as transformers reads it.

    A head with a pooling of one's own is none that transformers has: then ``architectures`` stays, and the pooling
    stands under ``weighttools``.
    """
    architecture, head = model.architecture, model.head
    config = dict(model.config)
    family = FAMILIES.get(architecture.family)
    has_class = family is not None and family.class_name is not None
    if head is None and family is not None and has_class:
        config.setdefault("architectures", [family.plain_class])
    if head is None or isinstance(head, Embedder):
        return config
    own = form_of(architecture.family, architecture.kind, None) == form_of(
        architecture.family, architecture.kind, head.pooling
    )
    config.pop(OURS, None)
    if own and family is not None and has_class:
        config["architectures"] = [f"{family.class_name}ForSequenceClassification"]
    if not own:
        config[OURS] = {"pooling": head.pooling}
    if architecture.kind == "decoder" and pad_id is not None and pad_of(config, architecture.family) is None:
        config["pad_token_id"] = pad_id
    return config | _labels(head)


def _labels(head: Classifier | Regressor) -> dict[str, Any]:
    if isinstance(head, Regressor):
        names = tuple(f"LABEL_{i}" for i in range(head.n_targets))
        problem = "regression"
    else:
        names, problem = head.names or tuple(map(str, range(head.n_classes))), "single_label_classification"
    table = {str(i): name for i, name in enumerate(names)}
    return {"id2label": table, "label2id": {name: i for i, name in enumerate(names)}, "problem_type": problem}


_TASKS = {"language model": "CAUSAL_LM", "classification": "SEQ_CLS", "regression": "SEQ_CLS"}
"""peft's words for tasks."""


def adapter_prefix(base: Loaded) -> str:
    """Return what peft's model has before the names of a file that has no prefix."""
    architecture = base.architecture
    is_body = isinstance(base.head, Embedder) or (base.head is None and architecture.kind != "decoder")
    if architecture.kind not in SEQUENCES or architecture.prefix or is_body:
        return ""
    family = FAMILIES.get(architecture.family)
    return family.prefix if family is not None else ""


def adapter_companions(tuned: Loaded, base: Loaded, task: str, pad_id: int | None = None) -> dict[str, bytes]:
    """Return the files to write beside an adapter: adapter_config.json, the tokenizer, and the names of the classes.

    Parameters
    ----------
    tuned, base
        The model with its adapter, and without it.
    task
        What was learnt, as `Task.name` says.
    """
    task_type = _TASKS.get(task) if base.architecture.kind in SEQUENCES else None
    config = json.dumps(peft_config(tuned, adapter_prefix(base), task_type), indent=2) + "\n"
    files = {name: data for name, data in companions(tuned, pad_id).items() if name != CONFIG}
    if isinstance(tuned.head, Classifier | Regressor) and tuned.config:
        files[HEAD] = as_json(of_head(config_with_head(tuned, pad_id)))
    return files | {ADAPTER: config.encode()}

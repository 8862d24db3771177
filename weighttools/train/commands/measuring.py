"""Figures of a checkpoint on a data file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from weighttools.adapters import beside, open_adapter
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.opening import open as open_checkpoint
from weighttools.train.adapters.adapting import load_lora
from weighttools.train.checkpoints.heads import Classifier, Embedder, Regressor
from weighttools.train.checkpoints.loading import SEQUENCES, head_of, model
from weighttools.train.commands.lengths import check_option, check_texts
from weighttools.train.commands.tuning import Settings, check_width, scaled, task_for
from weighttools.train.data.reading import check_options, read, task_of
from weighttools.train.data.tokens import Base
from weighttools.train.fitting.evaluation import task_metrics
from weighttools.train.models.files import described, of


def measure(
    base: Base, data: str, settings: Settings, log: Callable[[str], object] = lambda line: None
) -> dict[str, Any]:
    """Return the figures of a checkpoint on a data file: ``loss``, ``accuracy``, ``f1_macro``, ``perplexity``, ….

    Raises
    ------
    SpecError
        The checkpoint has no head for the task.
    """
    opened = base if isinstance(base, TensorMap) else open_checkpoint(base)
    origin, config = described(opened)
    adapter = None if settings.adapter is None else open_adapter(settings.adapter)
    if adapter is not None:
        origin, config = (
            origin.replace(tensors={**dict(adapter.whole), **dict(origin.items())}),
            beside(adapter, config),
        )
    architecture = of(origin, config, settings.activation)
    task = task_of(
        settings.task or _task_of_head(origin, config, architecture), architecture.kind, settings.columns, data
    )
    head = head_of(origin, config, architecture, task)
    if task != "lm" and isinstance(head, Embedder | None) and architecture.kind in SEQUENCES:
        raise SpecError("has no head", subject=origin.origin.path, remedy="weighttools finetune gives it one")
    names = (head.names or None) if isinstance(head, Classifier) else None
    check_options(data, architecture.kind, task, settings.columns)
    check_option(architecture, origin, settings.columns.max_length)
    found = read(data, opened, architecture.kind, task, settings.columns, names)
    check_width(architecture, found)
    check_texts(architecture, origin, found)
    _, _, found = scaled(found, None, found, origin, False)
    loaded = model(opened, None if task == "lm" else head, activation=settings.activation)
    if adapter is not None:
        loaded = load_lora(loaded, adapter)
    for line in (*loaded.notes, *found.notes):
        log(line)
    figures, sums = task_metrics(loaded, found, task_for(task, loaded, settings), settings.batch_size)
    record: dict[str, Any] = {"task": task, "n_samples": len(found), "metrics": figures}
    if "confusion" in sums and isinstance(head, Classifier):
        record |= {"classes": list(head.names or names or ()), "confusion": np.asarray(sums["confusion"]).tolist()}
    return record


def _task_of_head(origin: TensorMap, config: Mapping[str, Any], architecture: Any) -> str | None:
    """Return what a checkpoint's own head is for, if it has one of texts."""
    if architecture.kind not in SEQUENCES:
        return None
    head = head_of(origin, config, architecture, None)
    return {Classifier: "classify", Regressor: "regress"}.get(type(head)) if head is not None else None

"""Figures of a checkpoint on a data file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, option
from weighttools.train.adapters.adapting import load_lora
from weighttools.train.checkpoints.heads import Classifier, Embedder, Head, Regressor
from weighttools.train.checkpoints.loading import SEQUENCES, Loaded, head_of, model, task_of_head
from weighttools.train.data.reading import check_options, read, source_of, task_of
from weighttools.train.data.tables import Table
from weighttools.train.data.tokens import left_elsewhere
from weighttools.train.fitting.evaluation import task_metrics
from weighttools.train.fitting.feeding import column
from weighttools.train.models.files import described, of
from weighttools.verbs.training.lengths import check_option, check_texts
from weighttools.verbs.training.settings import Settings
from weighttools.verbs.training.tuning import check_width, n_outputs, scaled, task_before, task_for
from weighttools.write.adapters import Adapter, beside, open_adapter


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint that is measured, or predicts.

    Parameters
    ----------
    base
        As it was opened.
    origin, config
        With what an adapter has of its own, if there is one.
    architecture
        Its function.
    adapter
        A LoRA adapter beside it.
    """

    base: TensorMap
    origin: TensorMap
    config: Mapping[str, Any]
    architecture: Any
    adapter: Adapter | None = None


def subject_of(base: TensorMap, settings: Settings, adapter_path: str | None, log: Callable[[str], object]) -> Subject:
    """Describe a checkpoint, and say what beside it is not taken."""
    origin, config = described(base)
    adapter = None if adapter_path is None else open_adapter(adapter_path)
    if adapter is not None:
        own = {**dict(adapter.whole), **dict(origin.items())}
        origin, config = origin.replace(tensors=own), beside(adapter, config)
    architecture = of(origin, config, settings.activation)
    check_option(architecture, origin, settings.columns.max_length)
    for line in left_elsewhere(base) if architecture.kind in SEQUENCES else ():
        log(line)
    return Subject(base, origin, config, architecture, adapter)


def loaded(subject: Subject, head: Head | None, settings: Settings) -> Loaded:
    """Load the weights, and the adapter's with them."""
    found = model(subject.base, head, activation=settings.activation)
    return found if subject.adapter is None else load_lora(found, subject.adapter)


def measure(
    base: TensorMap, data: str, settings: Settings, log: Callable[[str], object], adapter_path: str | None = None
) -> dict[str, Any]:
    """Return the figures of a checkpoint on a data file: ``loss``, ``accuracy``, ``f1_macro``, ``perplexity``, ….

    Where rows have weights, all figures and the confusion matrix count them, and ``weighted_by`` names their column.

    Raises
    ------
    SpecError
        The checkpoint has no head for the task.
    """
    subject = subject_of(base, settings, adapter_path, log)
    origin, config, architecture = subject.origin, subject.config, subject.architecture
    source = source_of(data, architecture.kind)
    task = task_of(
        settings.task or task_of_head(origin, config, architecture), architecture.kind, settings.columns, source,
        n_outputs(origin, config, architecture), task_before(origin),
    )  # fmt: skip
    head = head_of(origin, config, architecture, task)
    if task != "lm" and isinstance(head, Embedder | None) and architecture.kind in SEQUENCES:
        raise SpecError("has no head", subject=origin.origin.path, remedy="weighttools finetune gives it one")
    names = (head.names or None) if isinstance(head, Classifier) else None
    check_options(data, architecture.kind, task, settings.columns)
    found = read(source, base, architecture.kind, task, settings.columns, names)
    check_width(architecture, found)
    _check_targets(head, found)
    check_texts(architecture, origin, found)
    _, _, found = scaled(found, None, found, origin, False)
    ready = loaded(subject, None if task == "lm" else head, settings)
    for line in (*ready.notes, *found.notes):
        log(line)
    figures, sums = task_metrics(ready, found, task_for(task, ready, settings), settings.batch_size)
    record: dict[str, Any] = {"task": task, "n_samples": len(found), "metrics": figures}
    if column(found, "sample_weight") is not None:
        record["weighted_by"] = settings.columns.weight or "sample_weight"
    if "confusion" in sums and isinstance(head, Classifier):
        record |= {"classes": list(head.names or names or ()), "confusion": np.asarray(sums["confusion"]).tolist()}
    return record


def _check_targets(head: Any, data: Any) -> None:
    """Raise SpecError where a model gives more or fewer numbers a row than the data has."""
    if not isinstance(head, Regressor) or not isinstance(data, Table):
        return
    n = 1 if data.target.ndim == 1 else data.target.shape[1]
    if not data.names and n != head.n_targets:
        fact = f"the model gives {head.n_targets:,} numbers a row, and the data has {n:,}"
        raise SpecError(fact, expected="as many", remedy=f"of a classifier's file, {option('task')} classify")

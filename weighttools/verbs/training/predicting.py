"""What a checkpoint gives for each row of a data file, without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, option
from weighttools.train.autograd.gradients import Array
from weighttools.train.checkpoints.heads import Classifier, Embedder, Head
from weighttools.train.checkpoints.loading import SEQUENCES, head_of, task_of_head
from weighttools.train.data.reading import LABELS, Columns, Read
from weighttools.train.data.rows import Rows, read_rows
from weighttools.train.data.tables import Table
from weighttools.train.data.texts import text
from weighttools.train.data.tokens import tokens
from weighttools.train.fitting.evaluation import predict
from weighttools.verbs.training.lengths import check_texts
from weighttools.verbs.training.measuring import Subject, loaded, subject_of
from weighttools.verbs.training.settings import Settings
from weighttools.verbs.training.tuning import check_width, n_outputs, scaled, task_before


def predictions(
    base: TensorMap, data: str, settings: Settings, log: Callable[[str], object], adapter_path: str | None = None
) -> dict[str, Any]:
    """Return ``task``, ``classes`` and ``predictions``: a label and each class's probability a row, or its numbers.

    Raises
    ------
    SpecError
        The checkpoint has no head, or is a language model, which `generate` is for; the data does not fit it.
    """
    subject = subject_of(base, settings, adapter_path, log)
    task = settings.task or _task_of(subject)
    if task == "lm":
        raise SpecError("a language model gives the next token", remedy="weighttools generate writes with it")
    head = head_of(subject.origin, subject.config, subject.architecture, task)
    if isinstance(head, Embedder | None):
        raise SpecError("has no head", subject=base.origin.path, remedy="weighttools finetune gives it one")
    found = _read(subject, read_rows(data), settings.columns)
    check_width(subject.architecture, found)
    check_texts(subject.architecture, subject.origin, found)
    _, _, found = scaled(found, None, found, subject.origin, False)
    model = loaded(subject, head, settings)
    for line in (*model.notes, *found.notes):
        log(line)
    outputs = predict(model, found, settings.batch_size)
    classes = _classes(head, task)
    return {"task": task, "classes": list(classes), "predictions": list(_told(outputs, classes))}


def _task_of(subject: Subject) -> str:
    """Return what the head is for: as the file says, else classes where there are several outputs."""
    told = task_of_head(subject.origin, subject.config, subject.architecture) or task_before(subject.origin)
    if told is not None:
        return told
    if subject.architecture.kind in SEQUENCES:
        raise SpecError("has no head", subject=subject.base.origin.path, remedy="weighttools finetune gives it one")
    return "classify" if n_outputs(subject.origin, subject.config, subject.architecture) > 1 else "regress"


def _read(subject: Subject, rows: Rows, columns: Columns) -> Read:
    """Return the inputs; a column of labels, if there is one, is left aside."""
    if subject.architecture.kind in SEQUENCES:
        known = tokens(columns.tokenizer or subject.base, columns.max_length)
        return text(rows, tokenizer=known, text=columns.text, pair=columns.pair, label=None)
    label = columns.label or next((name for name in LABELS if name in rows.columns), None)
    names = tuple(columns.features) or tuple(c for c in rows.columns if c not in (label, columns.weight))
    if not names:
        fact = "there is no column to predict from"
        raise SpecError(fact, subject=rows.name, remedy=f"name them with {option('feature_columns')}")
    x = np.ascontiguousarray(np.array([rows.singles(name) for name in names]).T)
    return Table(x, np.zeros(len(x), np.float32), (), names, None, None, ())


def _classes(head: Head, task: str) -> tuple[str, ...]:
    """Return the classes' names; those of one output are 0 and 1, and of numbers there are none."""
    if isinstance(head, Classifier):
        return head.names or tuple(map(str, range(head.n_classes)))
    return ("0", "1") if task == "classify" else ()


def _told(outputs: Array, classes: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield a record a row."""
    z = outputs.reshape(len(outputs), -1).astype(np.float64)
    if not classes:
        for row in z.tolist():
            yield {"value": row[0] if len(row) == 1 else row}
        return
    scores = np.concatenate([np.zeros_like(z), z], 1) if z.shape[1] == 1 else z
    scores = np.exp(scores - scores.max(1, keepdims=True))
    scores /= scores.sum(1, keepdims=True)
    for best, row in zip(scores.argmax(1).tolist(), scores.tolist(), strict=True):
        yield {"label": classes[best], "probabilities": dict(zip(classes, row, strict=True))}

"""Choosing how to read a data file: by its suffix, by what the model takes, and by what there is to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from weighttools.errors import SpecError, option
from weighttools.train.data import labels as labelling
from weighttools.train.data.language import Sequences, language
from weighttools.train.data.rows import PARSERS, Rows, read_rows
from weighttools.train.data.tables import Table, archive, npz, table
from weighttools.train.data.texts import Texts, text
from weighttools.train.data.tokens import Base, tokens

TASKS = ("classify", "regress", "lm")
TEXTUAL = ("encoder", "decoder")
"""Kinds of models that take texts; others take arrays."""
PROMPT = "prompt"
LABELS = ("label", "labels", "target", "class", "y", "score")
"""What a label's column is called where nobody says, in this order."""
Read = Texts | Sequences | Table


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a data file has what, and how its texts become tokens.

    Parameters
    ----------
    text, pair, label, weight
        Column names; `label` None: the first of `LABELS` that there is.
    prompt, completion
        Of a language model: what is given, and what is to be learnt after it.
    features
        Of a table; none: all other columns.
    tokenizer
        Where the tokenizer.json is; None: beside the checkpoint.
    max_length, block
        The most tokens of a text, and the tokens of a language model's sequence.
    is_scaled
        Whether a table's features are brought to mean 0 and deviation 1.
    """

    text: str = "text"
    pair: str | None = None
    label: str | None = None
    weight: str | None = None
    prompt: str | None = None
    completion: str = "completion"
    features: Sequence[str] = ()
    tokenizer: str | None = None
    max_length: int | None = None
    block: int = 256
    is_scaled: bool = False


OPTION_OF = {
    "text": "text_column",
    "pair": "pair_column",
    "label": "label_column",
    "weight": "weight_column",
    "prompt": "prompt_column",
    "completion": "completion_column",
    "features": "feature_columns",
    "tokenizer": "tokenizer",
    "max_length": "max_length",
    "block": "block",
    "is_scaled": "standardize",
}
"""Each field's option."""
_APPLIES = {
    "text": {"texts", "language"},
    "pair": {"texts"},
    "label": {"texts", "table"},
    "weight": {"texts", "table"},
    "prompt": {"language"},
    "completion": {"language"},
    "features": {"table"},
    "tokenizer": {"texts", "language"},
    "max_length": {"texts", "language"},
    "block": {"language"},
    "is_scaled": {"table", "arrays"},
}
"""The kinds of data that each says something of."""
_KINDS = {
    "texts": "texts with labels",
    "language": "a language model's texts",
    "table": "a table",
    "arrays": "the arrays of an .npz",
}


def check_options(path: str, kind: str, task: str, columns: Columns) -> None:
    """Raise SpecError for an option that says nothing of the data; parameters as of `read`."""
    if kind in TEXTUAL:
        found = "language" if task == "lm" else "texts"
    else:
        found = "arrays" if path.lower().endswith(".npz") else "table"
    given = {field.name for field in fields(columns) if getattr(columns, field.name) != field.default}
    for name, kinds in _APPLIES.items():
        if name in given and found not in kinds:
            known = " or ".join(_KINDS[k] for k in _KINDS if k in kinds)
            raise SpecError(f"{option(OPTION_OF[name])} says nothing of {_KINDS[found]}", expected=f"it with {known}")
    if "completion" in given and columns.prompt is None:
        raise SpecError(f"{option('completion_column')} says nothing without {option('prompt_column')}")


def source_of(path: str, kind: str) -> str | Rows:
    """Return a file's rows, read once; plain text and NPZ archives by their path."""
    suffix = Path(path).suffix.lower()
    return read_rows(path) if suffix in PARSERS or (kind not in TEXTUAL and suffix != ".npz") else path


def task_of(
    task: str | None, kind: str, columns: Columns, source: str | Rows, n_outputs: int = 0, before: str | None = None
) -> str:
    """Return what there is to learn: what was asked for, else what model and data speak for.

    That is the next token of a decoder without labels; numbers where a model of arrays was trained for them `before`,
    or gives one number a row and the labels are numbers other than 0 and 1; else classes.

    Parameters
    ----------
    source
        What `source_of` returned.
    n_outputs
        How many numbers a model of arrays gives a row.
    before
        The task that the model was trained for, as its file says.

    Raises
    ------
    SpecError
        The model cannot learn that.
    """
    if task is None and kind in TEXTUAL:
        is_plain = not isinstance(source, Rows)
        task = "lm" if kind == "decoder" and (columns.label is None or columns.prompt or is_plain) else "classify"
    elif task is None:
        numbers = numbers_of(source, columns)
        is_amount = before == "regress" or (before is None and n_outputs == 1 and not numbers <= {0, 1})
        task = "regress" if numbers and is_amount else "classify"
    if task not in TASKS:
        raise SpecError(f"{option('task')} {task}", expected=f"one of {', '.join(TASKS)}")
    if task == "lm" and kind != "decoder":
        raise SpecError(
            f"{option('task')} lm needs a model that predicts the next token", subject=f"a model of kind {kind}"
        )
    return task


def numbers_of(source: str | Rows, columns: Columns) -> set[float]:
    """Return the different labels of rows, or of an archive, if all of them are numbers; else none."""
    if isinstance(source, Rows):
        try:
            return set(source.numbers(label_of(source, columns)))
        except SpecError:
            return set()
    return set(np.unique(archive(source)["y"].read()).tolist())


def read(
    path: str | Rows, base: Base, kind: str, task: str, columns: Columns, names: Sequence[str] | None = None
) -> Read:
    """Read a data file for a model.

    Parameters
    ----------
    path
        The file, or what `source_of` made of it.
    base
        The model's checkpoint.
    kind
        What the model takes: ``"encoder"`` and ``"decoder"`` take texts, others arrays.
    task
        One of `TASKS`.
    columns
        Where the file has what.
    names
        The classes, if they are known.

    Raises
    ------
    SpecError, CorruptFileError, SourceError, MissingDependencyError
        As the readers say.
    """
    source = source_of(path, kind) if isinstance(path, str) else path
    if kind not in TEXTUAL:
        return _arrays(source, task, columns, names)
    known = tokens(columns.tokenizer or base, columns.max_length)
    if task == "lm":
        found = language(
            source, tokenizer=known, block=columns.block, text=columns.text,
            prompt=_prompt_of(source, columns), completion=columns.completion,
        )  # fmt: skip
        return replace(found, notes=(*found.notes, *_unlearnt(source, columns)))
    rows = read_rows(source)
    return text(
        rows, tokenizer=known, text=columns.text, pair=columns.pair, label=label_of(rows, columns),
        weight=columns.weight, task=task, names=names,
    )  # fmt: skip


def _unlearnt(source: str | Rows, columns: Columns) -> list[str]:
    """Say that rows have labels, which a language model does not learn."""
    there = [] if isinstance(source, str) else source.columns
    label = next((name for name in LABELS if name in there and name not in (columns.text, columns.completion)), None)
    if label is None:
        return []
    learns = f"{option('task')} classify learns labels"
    return [f"column {label!r} is not learnt: a language model learns texts alone ({learns})"]


def _prompt_of(source: str | Rows, columns: Columns) -> str | None:
    """Return the column of prompts: the one that was named, or one of that name where there is no text but both."""
    if columns.prompt is not None or isinstance(source, str) or columns.text in source.columns:
        return columns.prompt
    return PROMPT if {PROMPT, columns.completion} <= set(source.columns) else None


def _arrays(source: str | Rows, task: str, columns: Columns, names: Sequence[str] | None) -> Table:
    if isinstance(source, str):
        return npz(source, task=task, names=names)
    return table(
        source,
        target=label_of(source, columns),
        features=columns.features,
        weight=columns.weight,
        task=task,
        names=names,
    )


def label_of(rows: Rows, columns: Columns) -> str:
    """Return the column of the label.

    Raises
    ------
    SpecError
        None was named, and there is none of a usual name.
    """
    if columns.label is not None:
        return columns.label
    found = next((name for name in LABELS if name in rows.columns), None)
    if found is None:
        known = ", ".join(map(str, rows.columns[:20]))
        raise SpecError(
            "which column is the label?",
            subject=rows.name,
            expected=f"one of {known}",
            remedy=f"give {option('label_column')}",
        )
    return found


def onto(data: Read, names: Sequence[str]) -> Read | None:
    """Return labelled data, and what it says of itself, with its labels numbered as a model has them.

    None if the model lacks one of the classes.

    A model's classes are told by name, or, where the data's are numbers, by number.
    """
    if isinstance(data, Sequences) or not data.names:
        return data
    numbers = {name: i for i, name in enumerate(names)}
    if not set(data.names) <= set(names):
        numbers = {str(i): i for i in range(len(names))}
    if not set(data.names) <= set(numbers) or data.target is None:
        return None
    target = np.array([numbers[name] for name in data.names], np.int64)[data.target]
    told = {labelling.counted(data.target, data.names): labelling.counted(target, names)}
    notes = tuple(told.get(note, note) for note in data.notes)
    return replace(data, target=target, names=tuple(names), notes=notes)

"""Labelled texts as training data: JSON lines, CSV, TSV, or rows in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weighttools.errors import SpecError, counted
from weighttools.train.autograd.gradients import Array
from weighttools.train.data import labels as labelling
from weighttools.train.data.batches import Batch
from weighttools.train.data.rows import Rows, Source, read_rows
from weighttools.train.data.tokens import Base, Encoded, Tokens, tokens

TASKS = ("classify", "regress", None)


@dataclass(frozen=True, slots=True)
class Texts:
    """Tokenized texts with their targets.

    Parameters
    ----------
    ids
        Each text's token numbers.
    segments
        Each text's token types, for pairs; None for single texts.
    target
        (n,) labels, integers, or numbers, float32; None where there are none.
    pad_id
        What shorter texts of a batch are filled with.
    names
        The classes' names, by label.
    sample_weight
        (n,), or None.
    notes
        What was read, as lines.
    """

    ids: tuple[Array, ...]
    segments: tuple[Array, ...] | None = None
    target: Array | None = None
    pad_id: int = 0
    names: tuple[str, ...] = ()
    sample_weight: Array | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Array:
        """Return each text's number of tokens."""
        return lengths_of(self.ids)

    def batch(self, indices: Array) -> Batch:
        """Return texts filled up to the longest: ``ids``, ``mask`` where any is filled, ``segments``, targets."""
        chosen = [int(i) for i in np.asarray(indices).reshape(-1)]
        found = tokens_of([self.ids[i] for i in chosen], self.pad_id)
        if self.segments is not None:
            found["segments"] = padded([self.segments[i] for i in chosen], 0)
        if self.target is not None:
            found["target"] = self.target[chosen]
        if self.sample_weight is not None:
            found["sample_weight"] = self.sample_weight[chosen]
        return found

    def column(self, name: str) -> Array | None:
        """Return what all texts have under ``"target"`` or ``"sample_weight"``; None if they have nothing."""
        return {"target": self.target, "sample_weight": self.sample_weight}.get(name)


def padded(rows: Sequence[Array], fill: int) -> Array:
    """Return rows of integers as one array (rows, longest), filled up on the right."""
    out = np.full((len(rows), max((len(row) for row in rows), default=0)), fill, np.int32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def lengths_of(rows: Sequence[Array]) -> Array:
    """Return the rows' numbers of tokens."""
    return np.array([len(row) for row in rows], np.int64)


def tokens_of(rows: Sequence[Array], fill: int) -> dict[str, Array]:
    """Return ``ids`` filled up to the longest row and, where any is filled, ``mask``, True at real tokens."""
    found, lengths = {"ids": padded(rows, fill)}, lengths_of(rows)
    longest = found["ids"].shape[1]
    if (lengths != longest).any():
        found["mask"] = np.arange(longest) < lengths[:, None]
    return found


def text(
    source: Source,
    *,
    tokenizer: Base | Tokens,
    text: str = "text",
    pair: str | None = None,
    label: str | None = "label",
    weight: str | None = None,
    task: str = "classify",
    names: Sequence[str] | None = None,
    max_length: int | None = None,
) -> Texts:
    """Read labelled texts.

    Parameters
    ----------
    source
        A path (``.jsonl``, ``.json``, ``.csv``, ``.tsv``), or rows: mappings, or tuples of a text and its label.
    tokenizer
        The checkpoint that a tokenizer.json lies beside, or what `tokens` returned.
    text, pair, label, weight
        The columns of the text, of a second text (for pairs), of the label, and of the sample weight; None: none.
    task
        ``"classify"`` takes labels as classes, ``"regress"`` as numbers.
    names
        The classes, if they are known: the training data's for the validation data.
    max_length
        The most tokens of a text; by default what the tokenizer and the model allow. What is longer is cut.

    Raises
    ------
    SpecError
        A column is missing, a text is none, a label fits no class, or a number is none; the line is named.
    CorruptFileError, SourceError, MissingDependencyError
        As `read_rows` and `tokens`.

    Notes
    -----
    All token numbers are held in memory, 4 bytes each.
    """
    if task not in TASKS:
        raise SpecError(f"task {task!r}", expected="'classify' or 'regress'")
    rows = read_rows(source, (text, label or "label"))
    known = tokens(tokenizer, max_length)
    found = known.encode(rows.texts(text), None if pair is None else rows.texts(pair))
    _refuse_empty(found, rows)
    target, classes = _targets(rows, label, task, names)
    n_cut = sum(one.is_cut for one in found)
    return Texts(
        tuple(one.ids for one in found),
        None if pair is None else tuple(one.segments for one in found),
        target,
        known.pad_id,
        classes,
        weights(rows, weight),
        (*_told(rows, found, n_cut, known.max_length), *_classes_told(target, classes)),
    )


def _targets(
    rows: Rows, label: str | None, task: str, names: Sequence[str] | None
) -> tuple[Array | None, tuple[str, ...]]:
    if label is None:
        return None, ()
    if task == "regress":
        return rows.singles(label), ()
    return labelling.classes(rows, label, names)


def weights(rows: Rows, column: str | None) -> Array | None:
    """Return a column of sample weights (n,), None without a column.

    Raises
    ------
    SpecError
        One is negative or no number; the line is named.
    """
    if column is None:
        return None
    found = rows.singles(column)
    if found.min() < 0:
        at = int(found.argmin())
        raise SpecError(f"weight {found[at]:g}", subject=rows.place(at), expected="0 or more")
    return found


def _refuse_empty(found: Sequence[Encoded], rows: Rows) -> None:
    empty = next((i for i, one in enumerate(found) if not one.ids.size), None)
    if empty is not None:
        raise SpecError("the text has no tokens", subject=rows.place(empty), remedy="leave empty texts out")


def _told(rows: Rows, found: Sequence[Encoded], n_cut: int, bound: int | None) -> list[str]:
    lengths = [len(one.ids) for one in found]
    cut = f"; {n_cut:,} cut to {bound:,}" if n_cut else ""
    middle = sorted(lengths)[len(lengths) // 2]
    where = "rows" if rows.name == "row" else rows.name
    return [
        f"{where}: {counted(len(rows), 'text')} of {min(lengths):,} to {max(lengths):,} tokens (median {middle:,}){cut}"
    ]


def _classes_told(target: Array | None, names: Sequence[str]) -> list[str]:
    if target is None:
        return []
    if names:
        return [labelling.counted(target, names)]
    return [f"targets from {target.min():g} to {target.max():g}, mean {target.mean(dtype=np.float64):g}"]

"""Texts as training data of a language model: packed blocks, or prompts with the completions to learn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weighttools.errors import SpecError, counted
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.batches import Batch
from weighttools.train.data.rows import Source, read_rows, text_of
from weighttools.train.data.texts import lengths_of, padded, tokens_of
from weighttools.train.data.tokens import Base, Tokens, tokens

IGNORED = -100
"""The target of a position that nothing is learnt at."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Token sequences, each with the token to predict at every position.

    Parameters
    ----------
    ids
        Each sequence's tokens, the last one left out.
    target
        Each sequence's next tokens, -100 where none is to be learnt.
    pad_id
        What shorter sequences of a batch are filled with.
    notes
        What was read, as lines.
    """

    ids: tuple[Array, ...]
    target: tuple[Array, ...]
    pad_id: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Array:
        """Return each sequence's number of tokens."""
        return lengths_of(self.ids)

    def batch(self, indices: Array) -> Batch:
        """Return sequences filled up to the longest: ``ids``, ``target``, ``mask`` where any is filled."""
        chosen = [int(i) for i in np.asarray(indices).reshape(-1)]
        target = padded([self.target[i] for i in chosen], IGNORED)
        return {**tokens_of([self.ids[i] for i in chosen], self.pad_id), "target": target}


def language(
    source: Source,
    *,
    tokenizer: Base | Tokens,
    block: int = 256,
    text: str = "text",
    prompt: str | None = None,
    completion: str = "completion",
) -> Sequences:
    """Read texts for a language model.

    Parameters
    ----------
    source
        A plain text (any suffix that `read_rows` does not know, such as ``.txt``), rows with a `text` column, or rows
        in memory.
    tokenizer
        The checkpoint that a tokenizer.json lies beside, or what `tokens` returned.
    block
        The tokens of a sequence. Texts are laid end to end, the tokenizer's end token between them, and cut into
        blocks; the last, shorter one is kept.
    text
        The column to learn.
    prompt, completion
        Instead: the column of what is given, and that of what is to be learnt after it. Each row is a sequence of its
        own, cut to `block`, and nothing is learnt from the prompt's tokens.

    Raises
    ------
    SpecError
        There is nothing to learn, a column is missing, or a text is none; the line is named.
    CorruptFileError, SourceError, MissingDependencyError
        As `read_rows` and `tokens`.
    """
    if block < 2:
        raise SpecError(f"blocks of {block} tokens", expected="2 or more")
    known = tokens(tokenizer)
    length = min(block, known.max_length or block)
    if prompt is not None:
        return _completions(source, known, length, prompt, completion)
    name, texts = _texts(source, text)
    return _packed(name, known.ids(texts), known, length)


def _texts(source: Any, column: str) -> tuple[str, list[str]]:
    from weighttools.train.data.rows import PARSERS

    if isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() not in PARSERS:
        return os.fspath(source), [text_of(os.fspath(source))]
    rows = read_rows(source, (column,))
    return rows.name, rows.texts(column)


def _packed(name: str, pieces: Sequence[Array], known: Tokens, block: int) -> Sequences:
    end = [] if known.end_id is None else [np.array([known.end_id], np.int32)]
    joined = [part for piece in pieces if len(piece) for part in (piece, *end)]
    stream = np.concatenate(joined) if joined else np.zeros(0, np.int32)
    if len(stream) < 2:
        raise SpecError(f"has {len(stream)} tokens", subject=name, expected="2 or more: one to see, one to predict")
    starts = range(0, len(stream) - 1, block)
    ids = tuple(stream[start : min(start + block, len(stream) - 1)] for start in starts)
    target = tuple(stream[start + 1 : start + block + 1] for start in starts)
    where = "rows" if name == "row" else name
    ends = ", an end token after each," if end else ""
    tokens_told, blocks = counted(len(stream), "token"), counted(len(ids), "block")
    note = f"{where}: {counted(len(pieces), 'text')}{ends} {tokens_told} in {blocks} of {block:,}"
    return Sequences(ids, target, known.pad_id, (note,))


def _completions(source: Any, known: Tokens, block: int, prompt: str, completion: str) -> Sequences:
    rows = read_rows(source, (prompt, completion))
    given = known.ids(rows.texts(prompt), special=True, most=block + 1)
    learnt = known.ids(rows.texts(completion), most=block + 1)
    end = np.array([] if known.end_id is None else [known.end_id], np.int32)
    ids, target, n_cut = [], [], 0
    for i, (before, after) in enumerate(zip(given, learnt, strict=True)):
        whole = np.concatenate([before, after, end])
        n_cut += len(whole) > block + 1
        whole = whole[: block + 1]
        follows = whole[1:].copy()
        follows[: max(0, len(before) - 1)] = IGNORED
        if len(whole) < 2 or (follows == IGNORED).all():
            n_given = len(known.ids([rows.texts(prompt)[i]], special=True)[0])
            fact = f"a prompt of {n_given:,} tokens leaves none of the completion in {block:,}"
            raise SpecError(fact, subject=rows.place(i), remedy="raise the block, or shorten the prompt")
        ids.append(whole[:-1])
        target.append(follows)
    n_learnt = sum(int((one != IGNORED).sum()) for one in target)
    cut = f"; {n_cut:,} cut to {block:,}" if n_cut else ""
    where = "rows" if rows.name == "row" else rows.name
    note = f"{where}: {len(rows):,} prompts, {n_learnt:,} tokens to learn{cut}"
    return Sequences(tuple(ids), tuple(target), known.pad_id, (note,))

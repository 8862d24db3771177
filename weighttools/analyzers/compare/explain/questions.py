"""The second reading: all that causes ask of the changed pairs is answered in one fold over those pairs.

It reads both sides of the pairs that are asked about once more, and holds what a fold does and the states; a state is
made into figures as soon as its pair is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from weighttools.analyzers.compare.explain.context import Answers, Cause, ChangedPair, ExplanationContext
from weighttools.core import blas
from weighttools.core.fold import Blocks, Fold, fold_blocks

if TYPE_CHECKING:
    from weighttools.core.spec import Array

BATCH = 64
"""Small pairs of one job: their states wait together."""


class SideBySide:
    """A block of both sides of a pair, in their own dtypes and in float64.

    Parameters
    ----------
    before, after
        Flat arrays of one length.
    start
        The position of the first element.
    """

    def __init__(self, before: Array, after: Array, start: int) -> None:
        self.before, self.after, self.start = before, after, start

    @cached_property
    def old(self) -> Array:
        """`before` in float64."""
        return self.before.astype(np.float64)

    @cached_property
    def new(self) -> Array:
        """`after` in float64."""
        return self.after.astype(np.float64)

    @cached_property
    def difference(self) -> Array:
        """`after` less `before`, in float64."""
        difference: Array = self.new - self.old
        return difference


class Question(Protocol):
    """What a cause wants to know of a pair; it pickles."""

    def of(self, block: SideBySide) -> Any:
        """Return the state of a block."""

    def merge(self, first: Any, second: Any) -> Any:
        """Return the state of some elements and of those that follow."""

    def finish(self, state: Any) -> Any:
        """Return the figures of the whole pair; None where they say nothing."""


@dataclass(frozen=True, slots=True)
class PairQuestions:
    """Makes the states of all questions about a pair, each beside its question."""

    questions: tuple[tuple[str, Question], ...]

    def __call__(self, blocks: Blocks) -> States:
        block = SideBySide(blocks.values[0], blocks.values[1], blocks.start)
        return {code: (question, question.of(block)) for code, question in self.questions}


States = dict[str, tuple[Question, Any]]
"""By the cause that asks: its question, and the state."""


def merge_states(first: States, second: States) -> States:
    """Return the states of some elements and of those that follow."""
    return {code: (asked, asked.merge(state, second[code][1])) for code, (asked, state) in first.items()}


def finish_states(states: States) -> dict[str, Any]:
    """Return the answers that say something."""
    with np.errstate(all="ignore"):
        figures = {code: question.finish(state) for code, (question, state) in states.items()}
    return {code: found for code, found in figures.items() if found is not None}


def ask(changes: Sequence[ChangedPair], causes: Sequence[Cause], context: ExplanationContext) -> Answers:
    """Return the answers to what the causes ask about changed pairs; pairs that nothing is asked about are not read."""
    asked: list[tuple[ChangedPair, PairQuestions]] = []
    for change in changes:
        each = ((cause.code, cause.asks(change, context)) for cause in causes if cause.asks and change.is_plain)
        if questions := tuple((code, question) for code, question in each if question is not None):
            asked.append((change, PairQuestions(questions)))
    if not asked:
        return {}
    folds = [Fold((change.pair.before, change.pair.after), of) for change, of in asked]
    with blas.one_thread():
        states = fold_blocks(folds, merge_states, executor=context.executor, progress=context.progress, batch=BATCH)
        return {change.name: finish_states(state) for (change, _), state in zip(asked, states, strict=True)}

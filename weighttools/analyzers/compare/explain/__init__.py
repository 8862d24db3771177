"""What explains the differences of two checkpoints, each with its evidence, and nothing where it is not sure.

A kind of cause is a module with a function that says what is so, and a row in `CAUSES`. Figures of pairs tell some
causes; what more they need of values is asked in one second reading of the changed pairs (`questions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weighttools.analyzers.compare.explain.context import Cause, ExplanationContext
    from weighttools.analyzers.compare.pair import Explanation, Pair, PairFigures

CODES = {
    "frozen": "modules as wholes are unchanged",
    "only-norms": "norms alone changed",
    "only-biases": "biases alone changed",
    "only-head": "the head alone changed",
    "only-embeddings": "embeddings alone changed",
    "rows-appended": "tensors gained rows at their end, and the others are the same, or nearly",
    "rows-removed": "tensors lost rows at their end, and the others are the same, or nearly",
    "rows-trained": "a few rows of an embedding or head alone changed",
    "same-as": "the new weights are those of another checkpoint",
    "soup": "the new weights are a weighted mean of the old ones and of other checkpoints",
    "moving-average": "such a mean of two, of which one has little weight",
    "combination": "a linear combination of them that is no mean",
    "uniform-shrink": "weights were multiplied by one factor below 1, as weight decay does",
    "scaled": "weights were multiplied by another factor, or each tensor by one of its own",
    "rounded": "values were rounded through a narrower dtype",
    "quantized": "values lie on grids, or in blocks of an encoding, within a step of the old ones",
    "sparsity": "elements became 0, by a pattern",
    "low-rank": "changes of matrices are of low rank but for rounding, as a merged LoRA leaves them",
    "noise": "normal noise of one strength was added",
}
"""What each code of an explanation means."""


def causes() -> tuple[Cause, ...]:
    """Return the table of causes; those that account for tensors wholly come before those that would wonder at them."""
    from weighttools.analyzers.compare.explain import (
        blend,
        low_rank,
        noise,
        quantized,
        rounded,
        scaled,
        sketch,
        sparse,
        vocabulary,
    )
    from weighttools.analyzers.compare.explain.context import Cause

    return (
        Cause(vocabulary.explain_reshaped),
        Cause(blend.explain_blend, accounts=True),
        Cause(scaled.explain_scaling, scaled.CODE, scaled.scale_question, accounts=True),
        Cause(rounded.explain_rounding, rounded.CODE, rounded.rounding_question, accounts=True),
        Cause(quantized.explain_quantization, quantized.CODE, quantized.grid_question, accounts=True),
        Cause(sparse.explain_sparsity, sparse.CODE, sparse.sparsity_question, accounts=True),
        Cause(vocabulary.explain_rows, vocabulary.CODE, vocabulary.rows_question, accounts=True),
        Cause(low_rank.explain_low_rank, sketch.CODE, sketch.sketch_question, accounts=True),
        Cause(noise.explain_noise, sketch.CODE),
    )


def explain(changes: Sequence[tuple[Pair, PairFigures]], context: ExplanationContext) -> list[Explanation]:
    """Say what explains how pairs changed.

    Parameters
    ----------
    changes
        Pairs of one shape with their figures; those of which no value differs are passed over.
    context
        What is known around them.

    Returns
    -------
    list of Explanation
        Each is held by figures; of what is not sure nothing is said.

    Notes
    -----
    Changed pairs that a cause asks about are read once more, and once more beside other checkpoints where such are
    given. Memory is that of a fold, and for each job a sketch of at most 80 float32 for each row or column of a matrix,
    whichever are fewer.
    """
    from weighttools.analyzers.compare.explain import frozen
    from weighttools.analyzers.compare.explain.context import ChangedPair, Findings
    from weighttools.analyzers.compare.explain.questions import ask

    table = causes()
    changed = [ChangedPair(pair, figures) for pair, figures in changes if figures.n_changed]
    findings = Findings(changed, context, ask(changed, table, context))
    found: list[Explanation] = []
    for cause in table:
        told = cause.explain(findings)
        if cause.accounts:
            findings.explained |= {name: one.code for one in told for name in one.tensors}
        found += told
    return frozen.explain_frozen(findings) + found

"""From the states of a text's tokens to one state for the text."""

from __future__ import annotations

from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.ops import embedding
from weighttools.train.ops.basic import Result
from weighttools.train.tape import Array, operation

POOLINGS = ("cls", "last", "mean")
"""The first token's state, the last real token's, or the mean over the real tokens."""


@operation
def segment_means(x: Array, /, *, lengths: Array) -> Result:
    """Return the means of runs of rows: `x` (sum of `lengths`, size) to (n_runs, size); no run is empty."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    share = (1 / lengths).astype(x.dtype)[:, None]
    return np.add.reduceat(x, starts, axis=0) * share, lambda dy, need: (np.repeat(dy * share, lengths, axis=0),)


def pooled(x: Any, lengths: Any, pooling: str) -> Any:
    """Return one state a text, (n_texts, size).

    Parameters
    ----------
    x
        States of packed texts, end to end: (sum of `lengths`, size).
    lengths
        Each text's number of tokens, 1 or more.
    pooling
        One of `POOLINGS`.

    Raises
    ------
    SpecError
        A text has no tokens.
    """
    counts = np.asarray(lengths, np.int64)
    if not counts.size or counts.min() < 1:
        raise SpecError("a text has no tokens", subject="pooling", expected="one or more real tokens each")
    if pooling == "mean":
        return segment_means(x, lengths=counts)
    ends = np.cumsum(counts)
    return embedding(x, ids=ends - 1 if pooling == "last" else ends - counts)

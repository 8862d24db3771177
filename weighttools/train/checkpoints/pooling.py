"""From the states of a text's tokens to one state for the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.arithmetic import Result
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.variable import operation
from weighttools.train.data.tokens import token_ids
from weighttools.train.ops import embedding

POOLINGS = ("cls", "last", "mean")
"""The first token's state, the last real token's, or the mean over the real tokens."""

_PADS = {"gemma": 0, "gemma2": 0, "gemma3": 0, "gemma3_text": 0, "phi3": 32000}
"""What fills texts up where config.json does not say: transformers' defaults; other families have none."""


@operation
def segment_means(x: Array, /, *, lengths: Array) -> Result:
    """Return the means of runs of rows: `x` (sum of `lengths`, size) to (n_runs, size); no run is empty."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    share = (1 / lengths).astype(x.dtype)[:, None]
    return np.add.reduceat(x, starts, axis=0) * share, lambda dy, need: (np.repeat(dy * share, lengths, axis=0),)


def pad_of(config: Mapping[str, Any], family: str) -> int | None:
    """Return the token that config.json fills texts up with, or null; transformers' default where it does not say."""
    text = config.get("text_config")
    whole = {**config, **text} if isinstance(text, Mapping) else config
    if "pad_token_id" not in whole:
        return _PADS.get(family)
    return next(iter(token_ids(whole, "pad_token_id")), None)


def ends(ids: Array, lengths: Array, pad_id: int | None) -> Array:
    """Return how many tokens of each packed text there are up to its last one that is not `pad_id`; 1 at least.

    A text may end in that token itself, as where the token that ends texts also fills them up. transformers'
    classifiers on decoders look at the one before, and at the first where there is no other.

    >>> ends(np.array([5, 6, 1, 1, 7, 1]), np.array([3, 1, 2]), 1).tolist()
    [2, 1, 1]
    """
    if pad_id is None:
        return lengths
    stops = np.cumsum(lengths)
    kept = np.where(ids != pad_id, np.arange(len(ids)), -1)
    last = np.maximum.accumulate(kept)[stops - 1] if len(ids) else stops - 1
    found: Array = np.maximum(last - (stops - lengths) + 1, 1)
    return found


def pooled(x: Any, lengths: Any, pooling: str, ends: Any = None) -> Any:
    """Return one state a text, (n_texts, size).

    Parameters
    ----------
    x
        States of packed texts, end to end: (sum of `lengths`, size).
    lengths
        Each text's number of tokens, 1 or more.
    pooling
        One of `POOLINGS`.
    ends
        Of ``"last"``: how many of each text's tokens there are up to the one to take; all by default.

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
    starts = np.cumsum(counts) - counts
    return embedding(x, ids=starts + (counts if ends is None else ends) - 1 if pooling == "last" else starts)

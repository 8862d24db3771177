"""The verb ``predict``: what a checkpoint gives for each row of a file of texts or numbers; in Python only, so far."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from weighttools.core.options import Option, takes
from weighttools.io.progress import silent
from weighttools.verbs.options import READING
from weighttools.verbs.training.options import DATA

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.records import Record

_TAKEN = tuple(one for one in DATA if one.name not in ("prompt_column", "completion_column", "block"))
OPTIONS = (
    *_TAKEN,
    Option("adapter", is_path=True, metavar="DIR", help="Predict with this LoRA adapter beside the weights."),
    *READING,
)
SCHEMA = "weighttools.predict/1"


@takes(*OPTIONS)
def predict(
    src: PathLike | TensorMap,
    data: PathLike,
    *,
    task: str | None = None,
    text_column: str = "text",
    pair_column: str | None = None,
    label_column: str | None = None,
    weight_column: str | None = None,
    feature_columns: Sequence[str] = (),
    tokenizer: PathLike | None = None,
    max_length: int | None = None,
    activation: str | None = None,
    batch_size: int = 32,
    adapter: PathLike | None = None,
    assume: str | None = None,
    root: str | None = None,
    log: Callable[[str], object] = silent,
) -> Record:
    """Say what a checkpoint gives for each row of a file of texts or numbers, in order.

    Parameters
    ----------
    src
        The checkpoint: as for `open`, or an open map.
    data
        Rows as .jsonl, .json, .csv or .tsv; a column of labels is left aside, if there is one.
    task
        ``"classify"`` or ``"regress"``; None: what the model's head is for.
    text_column, pair_column, label_column, weight_column, feature_columns
        As for `finetune`; the label's and the weight's columns are no features.
    tokenizer, max_length, activation, batch_size
        As for `finetune`.
    adapter
        The directory of a LoRA adapter to predict with.
    assume, root
        As for `open`.
    log
        Takes lines that tell what is read.

    Returns
    -------
    dict
        A ``weighttools.predict/1`` record: ``task``, ``classes``, and ``predictions``, a record a row: ``label`` and
        ``probabilities`` by class, or ``value``.

    Raises
    ------
    SpecError
        The checkpoint has no head, or the data does not fit it.
    """
    given = dict(locals())
    from weighttools.formats.opening import name_of
    from weighttools.verbs.open import open as open_checkpoint
    from weighttools.verbs.training.predicting import predictions
    from weighttools.verbs.training.settings import Settings

    file = os.fspath(data)
    settings = Settings.of(**{one.name: given[one.name] for one in _TAKEN})
    tensor_map = open_checkpoint(src, assume=assume, root=root)
    found = predictions(tensor_map, file, settings, log, None if adapter is None else os.fspath(adapter))
    return {"schema": SCHEMA, "path": name_of(src), "data": file, **found}

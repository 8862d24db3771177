"""The verb ``evaluate``: the figures of a checkpoint on a file of texts or numbers."""

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

OPTIONS = (
    *DATA,
    Option("adapter", is_path=True, metavar="DIR", help="Measure with this LoRA adapter beside the weights."),
    *READING,
)
SCHEMA = "weighttools.evaluate/1"


@takes(*OPTIONS)
def evaluate(
    src: PathLike | TensorMap,
    data: PathLike,
    *,
    task: str | None = None,
    text_column: str = "text",
    pair_column: str | None = None,
    label_column: str | None = None,
    weight_column: str | None = None,
    feature_columns: Sequence[str] = (),
    prompt_column: str | None = None,
    completion_column: str = "completion",
    tokenizer: PathLike | None = None,
    max_length: int | None = None,
    block: int = 256,
    activation: str | None = None,
    batch_size: int = 32,
    adapter: PathLike | None = None,
    assume: str | None = None,
    root: str | None = None,
    log: Callable[[str], object] = silent,
) -> Record:
    """Measure a checkpoint on a file of texts or numbers.

    Parameters
    ----------
    src
        The checkpoint: as for `open`, or an open map.
    data
        As for `finetune`.
    task, text_column, pair_column, label_column, weight_column, feature_columns, prompt_column, completion_column
        As for `finetune`; where rows have weights, all figures and the table of classes count them.
    tokenizer, max_length, block, activation, batch_size
        As for `finetune`.
    adapter
        The directory of a LoRA adapter to measure with.
    assume, root
        As for `open`.
    log
        Takes lines that tell what is read.

    Returns
    -------
    dict
        A ``weighttools.evaluate/1`` record: ``task``, ``n_samples``, ``metrics`` (loss, accuracy, f1_macro,
        perplexity, …), and of classes ``classes`` and ``confusion``; ``weighted_by`` is the column of weights.

    Raises
    ------
    SpecError
        The checkpoint has no head for the task, or the data does not fit it.
    """
    given = dict(locals())
    from weighttools.formats.opening import name_of
    from weighttools.verbs.open import open as open_checkpoint
    from weighttools.verbs.training.measuring import measure
    from weighttools.verbs.training.settings import Settings

    file = os.fspath(data)
    settings = Settings.of(**{one.name: given[one.name] for one in DATA})
    tensor_map = open_checkpoint(src, assume=assume, root=root)
    found = measure(tensor_map, file, settings, log, None if adapter is None else os.fspath(adapter))
    return {"schema": SCHEMA, "path": name_of(src), "data": file, **found}

"""The verb ``finetune``: a checkpoint, trained further on a file of texts or numbers, and written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from weighttools.core.options import takes
from weighttools.io.progress import silent
from weighttools.verbs.options import READING, WRITING
from weighttools.verbs.training.options import DATA, FINETUNE

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.train.fitting.fit import Result
    from weighttools.verbs.records import Record
    from weighttools.verbs.training.tuning import Prepared

OPTIONS = (*DATA, *FINETUNE, *WRITING, *READING)
SCHEMA = "weighttools.finetune/1"


@takes(*OPTIONS)
def finetune(
    src: PathLike | TensorMap,
    dst: PathLike,
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
    standardize: bool = False,
    validation: PathLike | float | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    accumulate: int = 1,
    lr: float | None = None,
    optimizer: str = "adamw",
    schedule: str = "linear",
    warmup: float = 0.0,
    weight_decay: float = 0.01,
    l1: float = 0.0,
    momentum: float = 0.0,
    layer_decay: float = 1.0,
    clip_norm: float = 1.0,
    freeze: Sequence[str] = (),
    only: Sequence[str] = (),
    masks: PathLike | Mapping[str, Any] | None = None,
    hold_zeros: bool = False,
    prune: float | None = None,
    sampler: str = "shuffle",
    ema: float | None = None,
    class_weight: str | Mapping[str, float] | None = None,
    label_smoothing: float = 0.0,
    focal: float | None = None,
    error: str = "mse",
    pooling: str | None = None,
    init: str = "xavier_normal",
    dropout: float = 0.0,
    new_head: bool = False,
    recompute: bool = False,
    lora: Mapping[str, Any] | None = None,
    lora_targets: Sequence[str] = (),
    merge: bool = False,
    seed: int = 0,
    patience: int | None = None,
    monitor: str | None = None,
    state: PathLike | None = None,
    every: int | None = None,
    resume: bool = False,
    history: PathLike | None = None,
    plot: PathLike | None = None,
    format: str | None = None,
    max_shard_size: int | str | None = None,
    single: bool = False,
    compression: str | None = None,
    store: str | None = None,
    npz_bf16: str = "keep",
    dry_run: bool = False,
    force: bool = False,
    assume: str | None = None,
    root: str | None = None,
    log: Callable[[str], object] = silent,
    planned: Callable[[int], None] = silent,
    progress: Callable[[int], None] = silent,
    written: Callable[[Record], object] = silent,
) -> Record:
    """Train a checkpoint further on a file of texts or numbers, and write it: all that the command does.

    A classifier or regressor gets a head, under the names that transformers has for it, unless the checkpoint's own
    fits. The result has the checkpoint's names, dtypes and metadata; a directory also its config.json and tokenizer.

    Parameters
    ----------
    src
        The checkpoint: as for `open`, or an open map.
    dst
        Where to write: a file, a directory (no format's suffix), or ``"-"`` for standard output.
    data
        Rows as .jsonl, .json, .csv or .tsv, arrays x and y as .npz, or plain text for a language model.
    task
        ``"classify"``, ``"regress"`` or ``"lm"``; None: what the model and the data speak for.
    text_column, pair_column, label_column, weight_column, prompt_column, completion_column
        The columns of the text, a second text, the label and the row's weight; of a language model, what it is given,
        and what to learn after it.
    feature_columns
        The columns of a table to predict from, in order; none: all others.
    tokenizer
        Where tokenizer.json is; None: beside the checkpoint.
    max_length, block
        The most tokens of a text, and the tokens of a language model's sequence.
    activation
        Between the layers of a plain stack; None: what the file says, else ReLU.
    standardize
        Bring a table's features to mean 0, deviation 1.
    validation
        Data to measure by after each epoch: a file, or the share of `data` to hold out (below 1).
    epochs, steps
        Passes over the data, 3 by default; or updates, instead.
    batch_size, accumulate, clip_norm, freeze, only, sampler, seed, patience, monitor
        As for `train.fit`; a `clip_norm` of 0 takes any.
    lr, optimizer, schedule, warmup, weight_decay, l1, momentum
        The optimiser by name: "adamw", "adamw-8bit", "adam", "sgd", "lion", "adafactor", "muon", "rmsprop", "adagrad";
        its peak rate (None: 5e-5 for texts, 5e-4 with `lora`, else 1e-3), and the schedule by name: "linear",
        "cosine", "constant", "one-cycle", "inverse-sqrt", "plateau".
    layer_decay
        Each layer's learning rate is this share of that of the one above.
    masks, hold_zeros, prune
        Hold weights at 0 where a file or map of masks is false; or the zeros that there are; or prune on the way, up to
        this share of zeros.
    ema
        Keep the moving average of the weights with this decay.
    class_weight, label_smoothing, focal, error
        The loss: None, "balanced" or weights by class; of classes; the focal loss's gamma; "mse", "mae" or "huber".
    pooling, init, dropout, new_head
        Of a new head; the last asks for one even where the checkpoint's fits.
    recompute
        Less memory, more time: compute layers again on the way back.
    lora, lora_targets, merge
        Train an adapter beside the frozen weights: ``dict(r=8, alpha=16)``, as of `train.lora`; which weights it
        changes; and write the checkpoint with the change added, instead of the adapter.
    state, every, resume
        A directory to keep the training's state in, after each epoch and after every so many updates; continue from
        it, to the bit, if there is any.
    history, plot
        Files to write the figures to, and to draw the losses in.
    format, max_shard_size, single, compression, store, npz_bf16, dry_run, force
        As for `convert`; a dry run trains nothing, and tells what training would do and take.
    assume, root
        As for `open`.
    log
        Takes lines that tell what is read and how training goes.
    planned, progress
        Told the number of bytes that will be written, and each number just written.
    written
        Given the record once the weights are written, before the history and the plot are.

    Returns
    -------
    dict
        A ``weighttools.finetune/1`` record: what was written, ``metrics``, ``epochs``, ``classes``, ``notes``, ….

    Raises
    ------
    WeighttoolsError
        Options, data and checkpoint do not fit; a target exists, or something that is read would be lost; training
        diverged to no number. Nothing is written then, but for the state.
    KeyboardInterrupt
        With a note that says where the state is that it can go on from.
    """
    given = dict(locals())
    from weighttools.formats.opening import name_of
    from weighttools.verbs.open import open as open_checkpoint
    from weighttools.verbs.save import save
    from weighttools.verbs.training import outputs, planning, tuning
    from weighttools.verbs.training.settings import Settings

    target, paths = os.fspath(dst), ("data", "validation", "tokenizer", "state", "history", "plot", "masks")
    given |= {name: os.fspath(given[name]) for name in paths if isinstance(given[name], os.PathLike)}
    writing = {one.name: given[one.name] for one in WRITING}
    figures = {f"the {name}": given[name] for name in ("history", "plot") if given[name] is not None}
    outputs.check_early(target, figures, given["state"], writing)
    settings = Settings.of(**given)
    prepared = tuning.prepare(open_checkpoint(src, assume=assume, root=root), given["data"], settings, log)
    writing["beside"], notes = outputs.beside(prepared)
    outputs.check_all(prepared, target, figures, writing, [given[name] for name in ("data", "validation", "masks")])
    if dry_run:
        for line in prepared.model.notes:
            log(line)
        plan = planning.plan(prepared)
        return {"schema": SCHEMA, "src": name_of(src), "written": False, **plan, "notes": notes}
    result = _tuned(prepared, log)
    made = tuning.written(prepared, result)
    record: Record = save(target, made, **writing, dequantize=True, planned=planned, progress=progress)
    told = (*outputs.notes_of(prepared, record, writing["beside"]), *outputs.divergence(_losses(result)))
    record["notes"] = [*record["notes"], *notes, *told]
    record |= {"schema": SCHEMA, **_learnt(prepared, result)}
    written(record)
    outputs.write_figures(result.history, figures, force)
    return record


def _losses(result: Result) -> Sequence[float]:
    return result.history.steps.get("loss", [])


def _tuned(prepared: Prepared, log: Callable[[str], object]) -> Result:
    from weighttools.verbs.training.tuning import tune

    try:
        return tune(prepared, log)
    except KeyboardInterrupt as error:
        error.add_note(_saved(prepared.settings.state))
        raise


def _saved(state: str | None) -> str:
    """Say where a training that was interrupted can go on."""
    from pathlib import Path

    from weighttools.errors import option
    from weighttools.train.fitting.resume import Store

    if state is None:
        return f"interrupted: nothing is kept without {option('state')}"
    store = Store(Path(state), {})
    more = f"; the same again with {option('resume')} goes on from there" if store.is_there else ""
    return f"interrupted: {store.saved()}{more}"


def _learnt(prepared: Prepared, result: Result) -> Record:
    """Return what a record says of the training."""
    return {
        "task": prepared.task.name,
        "n_samples": len(prepared.data),
        "n_steps": prepared.n_steps,
        "n_trained": sum(prepared.model.params[n].size for n in prepared.names),
        "classes": list(getattr(prepared.source, "names", ())),
        "stopped": result.stopped,
        "metrics": dict(result.metrics),
        "epochs": [dict(epoch) for epoch in result.history.epochs],
    }

"""Training a model on data: everything around the loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from weighttools.core.options import takes
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SourceError, SpecError, counted, few, option
from weighttools.io.progress import silent
from weighttools.train.autograd.gradients import Array
from weighttools.train.fitting import saving, watching
from weighttools.train.fitting.evaluation import model_dtype
from weighttools.train.fitting.feeding import as_data, feed
from weighttools.train.fitting.freezing import trained
from weighttools.train.fitting.held import Gradual, held
from weighttools.train.fitting.history import History
from weighttools.train.fitting.loop import Progress, Session, check_measuring, own_schedule, train
from weighttools.train.fitting.options import OPTIONS
from weighttools.train.fitting.recipe import Recipe, optimizer_words
from weighttools.train.fitting.resume import Fingerprint, Store, check_place, fingerprint
from weighttools.train.fitting.sides import divided
from weighttools.train.memory import keep_pages
from weighttools.train.optim.averages import Average
from weighttools.train.optim.chains import Optimizer, adamw
from weighttools.train.optim.transforms import ClipNorm
from weighttools.train.parallel import threads_for
from weighttools.train.tasks.model import Model, check_model, weights
from weighttools.train.tasks.task import Task, check_task, shown

Log = Callable[[str], object]


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What came of a training.

    Parameters
    ----------
    model
        With the weights that were kept: the best, or the last; averaged ones if an average was asked for.
    history
        What happened; `History.csv`, `History.json`, `History.plot`.
    metrics
        The record of the epoch whose weights were kept.
    stopped
        Why training ended.
    trained
        The names of the arrays that learnt.
    record
        What was done, as it goes into the file's metadata.
    """

    model: Model
    history: History
    metrics: Mapping[str, float]
    stopped: str
    trained: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"Result({self.stopped}; {figures}; {len(self.trained):,} arrays trained)"

    @property
    def tensor_map(self) -> TensorMap:
        """The checkpoint with the new weights, in its names, order and dtypes; for `weighttools.save`."""
        return saving.tensor_map(self.model, self.trained, self.record)


@takes(*OPTIONS)
def fit(
    model: Model,
    data: Any,
    *,
    task: Task,
    validation: Any = None,
    optimizer: Optimizer | None = None,
    epochs: int = 1,
    steps: int | None = None,
    batch_size: int = 32,
    freeze: Sequence[str] = (),
    only: Sequence[str] = (),
    masks: Mapping[str, Any] | None = None,
    prune: Gradual | None = None,
    sampler: str = "shuffle",
    clip_norm: float | None = None,
    accumulate: int = 1,
    average: Average | None = None,
    seed: int = 0,
    patience: int | None = None,
    monitor: str | None = None,
    keep: str | None = None,
    every: int | None = None,
    state: str | os.PathLike[str] | None = None,
    resume: bool = False,
    log: Log | None = print,
) -> Result:
    """Train a model's arrays, in place.

    Parameters
    ----------
    model
        The function and its arrays.
    data
        `data.arrays`, other `data.Data`, a tuple (x, y) of arrays, or an iterable of batches.
    task
        What to learn: `Classification`, `Binary`, `Regression`, `LanguageModel`, `Pairs`, or a `Task` of your own.
    validation
        Data to measure by after each epoch; or the share of `data` to hold out for that, chosen by the seed, of each
        label the same.
    optimizer
        AdamW at 1e-3 by default. A schedule is told the number of updates; a `Plateau` watches the monitor.
    epochs, steps
        Passes over the data; or updates, instead.
    batch_size, accumulate
        Samples a batch, and batches an update; the last update of an epoch may have fewer.
    freeze, only
        Name patterns of arrays that stay as they are, and of those to train.
    masks
        True where a weight is kept, by name; the others are held at zero. See ``weighttools prune --mask-out``. Those
        of arrays that do not learn are left out.
    prune
        `gradual` magnitude pruning, which must end with the last update or before. Epochs before its end are compared
        neither for `keep` nor for `patience`.
    sampler
        ``"shuffle"``: each sample once an epoch. ``"weighted"``: drawn in proportion to sample weight times class
        weight, which then are left out of the loss.
    clip_norm
        The largest joint 2-norm of the gradients.
    average
        `optim.ema` (each update) or `optim.swa` (each epoch of the last quarter): the weights to measure and to keep,
        zero where weights are held.
    seed
        Decides the split, the order and the dropout; the same seed gives the same bits.
    patience
        Stop after so many epochs without a better `monitor`.
    monitor
        ``"val_loss"``, or another figure of the record, such as ``"val_accuracy"``; ``"loss"`` without validation.
    keep
        ``"best"`` weights by the monitor (the default with validation), or the ``"last"``.
    every
        Updates between savings of the state, beside those after each epoch.
    state
        A directory to keep the training's state in: after each epoch, and after every `every` updates.
    resume
        Continue from the state, to the bit; begin anew if there is none yet.
    log
        Takes lines to show; None for none.

    Raises
    ------
    SpecError
        Options, shapes, labels or data do not fit, or the state is of another training.
    TensorNotFoundError
        A pattern or a mask matches nothing.
    TrainingError
        A loss, gradient or weight is NaN or infinite. The update that it would have led to is not made; weights that
        the one before has spoilt show in the next loss, and are in no state that is kept. The best weights, if any are
        kept, are put in place again; otherwise the arrays are as the last update left them, which may not be finite.
        The line says which.

    Examples
    --------
    >>> from weighttools import train
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    >>> start = {"fc.weight": np.zeros((1, 1), np.float32), "fc.bias": np.zeros(1, np.float32)}
    >>> line = train.Model(lambda p, batch: train.ops.linear(batch["inputs"], p["fc.weight"], p["fc.bias"]), start)
    >>> descent = train.optim.sgd(0.5)
    >>> result = train.fit(line, (x, 3 * x + 1), task=train.Regression(), epochs=30, optimizer=descent, log=None)
    >>> result.model.params["fc.weight"].round(3).tolist()
    [[3.0]]
    """
    check_model(model, "fit")
    recipe = Recipe(
        epochs, steps, batch_size, freeze, only, masks, prune, sampler, clip_norm, accumulate, average, seed,
        patience, monitor, keep, every,
    )  # fmt: skip
    store = None if state is None else Path(state)
    return _fitted(
        model,
        data,
        validation,
        task,
        adamw() if optimizer is None else optimizer,
        recipe,
        store,
        resume,
        log or silent,
    )


def _fitted(
    model: Model, data: Any, validation: Any, task: Task, optimizer: Any, options: Recipe, place: Path | None,
    resume: bool, log: Log,
) -> Result:  # fmt: skip
    with keep_pages(), threads_for(weights(model.run, model.params)), np.errstate(over="ignore", invalid="ignore"):
        session = session_of(model, data, validation, task, optimizer, options, log)
        progress, store = progress_of(session, options), None
        progress.held.check_end(session.n_steps)
        if place is not None:
            store = Store(place, _fingerprint(model, data, validation, task, session, options))
            session = replace(session, store=store)
        for line in _lines(model, session, progress, options):
            session.log(line)
        check_measuring(session)
        _begin(store, session, progress, resume)
        watching.check_start(session.trained)
        why = train(session, progress)
    return _result(model, session, progress, why, options)


def session_of(
    model: Model, data: Any, validation: Any, task: Task, optimizer: Optimizer, options: Recipe, log: Log = silent
) -> Session:
    """Return what stays the same while training."""
    check_task(task)
    if not isinstance(optimizer, Optimizer):
        raise SpecError(
            shown(optimizer), subject="the optimizer", expected="one that is made, as train.optim.adamw(1e-3)"
        )
    names = trained(model.params, options.freeze, options.only, model.origin.aliases if model.origin else None)
    sides = divided(as_data(data), validation, task, options)
    batches = feed(sides.training, options.batch_size, int(options.seed), sides.weights)
    n_steps = options.n_steps(batches.n_batches)
    optimizer = own_schedule(optimizer if options.clip_norm is None else optimizer.after(ClipNorm(options.clip_norm)))
    held_out = sides.validation
    return Session(
        run=model.run,
        params=model.params,
        names=names,
        task=sides.task,
        feed=batches,
        validation=None if held_out is None else feed(held_out, options.batch_size),
        optimizer=optimizer if n_steps is None else optimizer.with_steps(n_steps),
        dtype=model_dtype({name: model.params[name] for name in names}),
        n_steps=n_steps,
        epochs=0 if options.steps else options.epochs,
        accumulate=options.accumulate,
        seed=int(options.seed),
        patience=options.patience,
        monitor=options.monitor or ("loss" if held_out is None else "val_loss"),
        keep_best=(options.keep or ("last" if held_out is None else "best")) == "best",
        every=options.every,
        log=log,
        notes=sides.lines,
    )


def progress_of(session: Session, options: Recipe) -> Progress:
    """Return the start: no updates made, masks applied."""
    _check_arrays(session.trained)
    keeps = held(options.masks, options.prune, session.trained, session.n_steps, session.params)
    average = None if options.average is None else Average(options.average.decay)
    return Progress(session.optimizer.init(session.trained), keeps, average)


def _check_arrays(params: Mapping[str, Array]) -> None:
    """Refuse arrays that cannot be changed in place, each by itself."""
    at: dict[int, str] = {}
    for name, p in params.items():
        if not (p.flags.c_contiguous and p.flags.writeable):
            raise SpecError("the array is read-only or not contiguous", subject=name, remedy="copy it first")
        other = at.setdefault(p.__array_interface__["data"][0], name) if p.size else name
        if other != name:
            fix = "give a tied tensor once, and let the model's function use it twice"
            raise SpecError(f"is the same memory as {other}", subject=name, remedy=fix)


def _begin(store: Store | None, session: Session, progress: Progress, resume: bool) -> None:
    """Continue from the state, or make sure that there is none to be lost, and hold what is to be held."""
    if store is None:
        if resume:
            raise SpecError(f"{option('resume')} goes with {option('state')}", remedy="name the state's directory")
    elif resume and store.is_there:
        store.restore(session, progress)
        session.log(f"continuing from {store.directory} after step {progress.step:,}")
    elif store.is_there:
        remedy = f"{option('resume')} continues it; or name another directory"
        raise SourceError("holds a training's state", subject=store.directory, remedy=remedy)
    else:
        check_place(store.directory)
        if resume:
            session.log(f"there is no state in {store.directory} yet: beginning anew")
    if not progress.step:
        progress.held.apply(session.trained)
        progress.held.prune(session.trained, 0)


_SHOWN_ELSEWHERE = ("freeze", "only", "clip_norm", "keep")
"""Options that decide, and that what learns, the optimiser's stages and ``keep_best`` tell of."""


def _fingerprint(
    model: Model, data: Any, validation: Any, task: Task, session: Session, options: Recipe
) -> Fingerprint:
    """Tell this training from others: by all that decides what it gives."""
    names = [one.name for one in OPTIONS if one.decides and one.name not in _SHOWN_ELSEWHERE]
    found: dict[str, Any] = {name: getattr(options, name) for name in names}
    masks = {name: np.asarray(options.masks[name]) for name in options.masks} if options.masks is not None else {}
    average = None if options.average is None else options.average.decay or "swa"
    found |= {"task": task, "monitor": session.monitor, "keep_best": session.keep_best, "average": average}
    found["masks"] = sorted(masks.items())
    source, held_out = as_data(data), validation
    if validation is not None and not isinstance(validation, (int, float)):
        held_out = as_data(validation)
    arrays = {**getattr(model.run, "frozen", {}), **model.params}
    return fingerprint(arrays, session.optimizer, session.names, source, held_out, **found)


def _lines(model: Model, session: Session, progress: Progress, options: Recipe) -> Iterator[str]:
    """Yield what to say before the first update."""
    yield from model.notes
    n_trained = sum(p.size for p in session.trained.values())
    arrays = weights(model.run, model.params)
    n_all = sum(p.size for p in arrays)
    yield f"training {len(session.names):,} of {len(arrays):,} tensors, {n_trained:,} of {n_all:,} elements"
    yield from session.optimizer.describe(session.trained).splitlines()
    yield from session.notes
    yield from _held_lines(progress.held.kept)
    left_out = [name for name in options.masks or () if name not in progress.held.kept]
    if left_out:
        yield f"masks left out, for these do not learn: {len(left_out):,} ({few(left_out)})"
    if session.n_steps is not None:
        updates, samples = counted(session.n_steps, "update"), counted(options.batch_size, "sample")
        yield f"{updates} of {session.accumulate} x {samples}"


def _held_lines(kept: Mapping[str, Any]) -> Iterator[str]:
    """Yield how much is held at zero: of few tensors in each, of many in all."""
    zeros = {name: mask.size - int(np.count_nonzero(mask)) for name, mask in kept.items()}
    if len(kept) > _FEW:
        total = sum(mask.size for mask in kept.values())
        yield f"held at zero: {sum(zeros.values()):,} of {total:,} in {len(kept):,} tensors"
        return
    for name, n in zeros.items():
        yield f"held at zero: {n:,} of {kept[name].size:,} in {name}"


_FEW = 8
"""Up to this many tensors have a line each."""


def _result(model: Model, session: Session, progress: Progress, why: str, options: Recipe) -> Result:
    """Put the weights to keep in place, and tell what was done."""
    average = progress.average.arrays if progress.average else {}
    for name, p in (progress.best.arrays or average).items():
        np.copyto(model.params[name], p)
    metrics = progress.best.metrics if progress.best.arrays else progress.history.epochs[-1]
    session.log(f"stopped: {why}; kept the weights of step {metrics['step']:,}")
    schedule = progress.held.schedule
    if schedule is not None and not progress.held.is_final(progress.step):
        session.log(f"pruning would have reached {schedule.final:g} at update {schedule.stop:,.0f}")
    record = {
        "task": session.task.name,
        "optimizer": optimizer_words(session.optimizer),
        "n_trained": len(session.names),
        "n_frozen": len(model.params) - len(session.names),
        "steps": progress.step,
        "batch_size": options.batch_size * options.accumulate,
        "seed": int(options.seed),
        "kept": {name: float(f"{value:.6g}") for name, value in metrics.items()},
    }
    return Result(model, progress.history, metrics, why, tuple(session.names), record)

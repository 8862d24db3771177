"""The training loop: updates, epochs, and when to stop. All that changes is in `Progress`, so it can be continued."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np

from weighttools.errors import SpecError, TrainingError, few
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.tape import value_and_grad
from weighttools.train.data.batches import Batch
from weighttools.train.fitting import watching
from weighttools.train.fitting.evaluation import measured
from weighttools.train.fitting.feeding import Feed, Given, cast, n_units
from weighttools.train.fitting.held import ZeroMasks
from weighttools.train.fitting.history import History
from weighttools.train.optim.averages import Accumulation, Average
from weighttools.train.optim.chains import Optimizer, State
from weighttools.train.optim.schedules import Plateau
from weighttools.train.tasks.task import MINIMIZED, Task, is_better

DROPOUT = 2
"""The second word of the seeds that models get; see `weighttools.train.fitting.feeding`."""
SWA_FROM = 0.75
"""The share of all updates after which an equal average begins (Izmailov et al., arXiv:1803.05407, section 4)."""
SECONDS = 10.0
"""Between lines that tell of the progress inside an epoch."""


class StateStore(Protocol):
    """Where the training's state goes."""

    def save(self, session: Session, progress: Progress) -> None:
        """Write one."""

    def saved(self) -> str:
        """Say where the last one is."""


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """What stays the same while training.

    Parameters
    ----------
    run
        The model's function.
    params
        All its arrays.
    names
        Those that learn.
    task, feed, validation
        The prepared task, the batches, and those to measure by, if any.
    optimizer
        With clipping, and its schedule told the steps.
    dtype
        The floating dtype to compute in.
    n_steps
        Updates in all; None for as many as `epochs` gives, which is not known.
    epochs
        Passes over the data; 0 if only the updates count.
    accumulate, seed, patience, monitor, keep_best, every
        As of `fit`; `monitor` is a metric of the validation data, or the training loss.
    store
        Where the state goes; None without.
    log
        Takes lines.
    notes
        Lines about the data, for the start.
    """

    run: Any
    params: Mapping[str, Array]
    names: Sequence[str]
    task: Task
    feed: Feed | Given
    validation: Feed | Given | None
    optimizer: Optimizer
    dtype: Any
    n_steps: int | None
    epochs: int
    accumulate: int
    seed: int
    patience: int | None
    monitor: str
    keep_best: bool
    every: int | None
    log: Callable[[str], object]
    notes: Sequence[str] = ()
    store: StateStore | None = None

    def saved(self) -> str:
        """Say where the last good state is."""
        return self.store.saved() if self.store else ""

    @property
    def trained(self) -> dict[str, Array]:
        """The arrays that learn."""
        return {name: self.params[name] for name in self.names}


@dataclass(slots=True)
class Best:
    """The best figure so far, and the weights that gave it (none unless they are kept)."""

    value: float = math.nan
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)


@dataclass(slots=True)
class Progress:
    """What changes while training.

    Parameters
    ----------
    state
        The optimiser's.
    held
        What is held at zero.
    average
        Of the weights; None without.
    step
        Updates made, or left out because nothing in their batches counts.
    epoch, position
        The epoch, and how many of its batches were used.
    recorded
        The update after which the last record was made; -1 before the first.
    loss_sum, weight_sum
        Of this epoch's batches so far.
    best, n_bad
        The best figure, and the epochs since.
    history
        What happened.
    """

    state: State
    held: ZeroMasks
    average: Average | None = None
    step: int = 0
    epoch: int = 0
    position: int = 0
    recorded: int = -1
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    best: Best = field(default_factory=Best)
    n_bad: int = 0
    history: History = field(default_factory=History)


def train(session: Session, progress: Progress) -> str:
    """Train until there is a reason to stop, and return it.

    Raises
    ------
    TrainingError
        A number is not finite. The best weights, if any are kept, are then in place again; the line says which are.
    """
    try:
        while (why := _reason(session, progress)) is None:
            meter = Meter()
            is_whole = _run_epoch(session, progress, meter)
            _finish_epoch(session, progress, is_whole, meter)
            watching.check_weights(session.trained, f"after step {progress.step}")
            if session.store:
                session.store.save(session, progress)
    except TrainingError as error:
        error.remedy = "; ".join(filter(None, (error.remedy, _put_back(session, progress), session.saved())))
        raise
    return why


def _put_back(session: Session, progress: Progress) -> str:
    """Put the best weights in place again, if any are kept, and say what the arrays hold."""
    best, trained = progress.best, session.trained
    if best.arrays and math.isfinite(best.value):
        for name, p in best.arrays.items():
            np.copyto(trained[name], p)
        return f"the model in memory has its best weights again, of step {best.step:,}"
    if watching.not_finite(trained) is not None:
        return "the model in memory is not finite: load it anew"
    return f"the model in memory is as after step {progress.step:,}"


def _reason(session: Session, progress: Progress) -> str | None:
    """Return why to stop, if there is a reason; never before what was done is on record."""
    if progress.recorded != progress.step:
        return None
    if session.patience is not None and progress.n_bad >= session.patience:
        return f"{session.monitor} has not improved for {progress.n_bad} epochs"
    if session.n_steps is not None:
        return "all steps are done" if progress.step >= session.n_steps else None
    return "all epochs are done" if progress.epoch >= session.epochs else None


def check_measuring(session: Session) -> None:
    """Try the first validation batch and the monitor's name: better now than after an epoch.

    Raises
    ------
    SpecError
        The batch does not fit the model or the task, or there will be no such figure.
    """
    figures = {"loss": 0.0}
    if isinstance(session.validation, Feed):
        batch = cast(next(session.validation.batches(0)), session.dtype)
        tally = session.task.tally(session.run(session.params, batch), batch)
        found = session.task.metrics(tally) if session.task.weight(batch) else {session.monitor: 0.0}
        figures |= {f"val_{name.removeprefix('val_')}": value for name, value in found.items()}
    if session.monitor not in figures and not isinstance(session.validation, Given):
        known = ", ".join(figures)
        raise SpecError(f"there is no figure {session.monitor!r} to monitor", expected=f"one of {known}")


def _run_epoch(session: Session, progress: Progress, meter: Meter) -> bool:
    """Make the updates of this epoch that are left, and say whether it came to its end."""
    batches = session.feed.batches(progress.epoch, progress.position)
    while session.n_steps is None or progress.step < session.n_steps:
        group = list(islice(batches, session.accumulate))
        if not group:
            return True
        update(session, progress, group)
        meter.count(session, progress, group)
        if session.store and session.every and progress.step % session.every == 0:
            session.store.save(session, progress)
    n_batches = session.feed.n_batches
    return n_batches is not None and progress.position >= n_batches


def update(session: Session, progress: Progress, group: Sequence[Batch]) -> None:
    """Make one update from one batch, or from several whose gradients are put together by weight."""
    lr = session.optimizer.lr
    rate = float(lr(progress.state.step) if callable(lr) else lr)
    where = f"step {progress.step + 1}, learning rate {rate:g}"
    loss, weight, grads = _gradients(session, progress.step, group, where)
    trained = session.trained
    notes = {"lr": rate, "grad_norm": 0.0}
    if weight > 0:
        if not progress.state.step:
            _tell_unreached(session, grads)
        grads = progress.held.gradients(grads)
        norm = watching.check_gradients(grads, where)
        notes |= {"grad_norm": norm} | session.optimizer.step(trained, grads, progress.state, norm)
        progress.held.apply(trained)
    progress.step, progress.position = progress.step + 1, progress.position + len(group)
    progress.held.prune(trained, progress.step)
    if progress.average is not None and progress.average.decay is not None:
        progress.average.update(trained)
    if weight > 0:
        progress.loss_sum, progress.weight_sum = progress.loss_sum + loss * weight, progress.weight_sum + weight
    for name, value in {"loss": loss, **notes}.items():
        progress.history.steps[name].append(float(value))


def _tell_unreached(session: Session, grads: Mapping[str, Array]) -> None:
    """Say which arrays got no gradient: the optimiser leaves them as they are."""
    names = [name for name in session.names if name not in grads]
    if names:
        session.log(f"no gradient in the first update for {len(names):,} of {len(session.names):,}: {few(names)}")


def _gradients(
    session: Session, step: int, group: Sequence[Batch], where: str
) -> tuple[float, float, dict[str, Array]]:
    """Return the weighted mean loss of the batches, their weight, and the mean's gradients."""
    total, loss_sum = Accumulation(), 0.0
    grads: dict[str, Array] = {}
    for i, given in enumerate(group):
        batch = {**cast(given, session.dtype), "seed": (session.seed, DROPOUT, step, i)}
        weight = session.task.weight(batch)
        if weight == 0:
            continue  # nothing in it counts, so there is no mean
        value, grads = value_and_grad(_loss, session.params, batch, session, train=session.names)
        watching.check_loss(float(value), session.run, session.params, batch, where, session.names)
        loss_sum += float(value) * weight
        if len(group) > 1:
            total.add(grads, weight)
            grads = {}  # or they would live beside the next ones
        else:
            total.total = weight
    weight = total.total
    return (loss_sum / weight if weight else math.nan), weight, (total.take() if len(group) > 1 else grads)


def _loss(params: Mapping[str, Any], batch: Batch, session: Session) -> Any:
    return session.task.loss(session.run(params, batch), batch)


def _finish_epoch(session: Session, progress: Progress, is_whole: bool, meter: Meter) -> None:
    """Measure, take note, and remember the weights if they are the best so far."""
    if not progress.weight_sum:
        raise SpecError("no sample of an epoch counts: all weights are 0", subject="data")
    average, trained = progress.average, session.trained
    late = SWA_FROM * (session.n_steps or math.inf)
    if average is not None and average.decay is None and (progress.step >= late or session.n_steps is None):
        average.update(trained)
    record = {"epoch": progress.epoch + 1, "step": progress.step, "lr": progress.history.steps["lr"][-1]}
    speed = meter.speed()
    record |= {"loss": progress.loss_sum / progress.weight_sum} | _sparsity(progress)
    now = dict(average.arrays) if average is not None and average.arrays else trained
    progress.held.apply(now)  # an average remembers what has been pruned since
    if session.validation is not None:
        figures = measured(session.run, {**session.params, **now}, session.validation, session.task)[0]
        record |= {f"val_{name}": value for name, value in figures.items()}
    progress.history.epochs.append(record)
    _judge(session, progress, record, now)
    progress.recorded = progress.step
    session.log(_line(session, record) + speed)
    if is_whole:
        progress.epoch, progress.position = progress.epoch + 1, 0
        progress.loss_sum = progress.weight_sum = 0.0


def _judge(session: Session, progress: Progress, record: Mapping[str, Any], now: Mapping[str, Array]) -> None:
    """Compare the monitored figure with the best so far, and let a plateau schedule know.

    Weights that are still to be pruned are not compared: fewer zeros give better figures.
    """
    if session.monitor not in record:
        known = ", ".join(k for k in record if k not in ("epoch", "step", "lr"))
        raise SpecError(f"there is no figure {session.monitor!r} to monitor", expected=f"one of {known}")
    value, metric = float(record[session.monitor]), session.monitor.removeprefix("val_")
    best, is_final = progress.best, progress.held.is_final(progress.step)
    if is_final and (math.isnan(best.value) or is_better(metric, value, best.value)):
        if session.keep_best:
            _copy(now, best.arrays)
        progress.best, progress.n_bad = Best(value, progress.step, dict(record), best.arrays), 0
    elif is_final:
        progress.n_bad += 1
    if isinstance(session.optimizer.lr, Plateau):
        session.optimizer.lr.observe(value if metric in MINIMIZED else 1 - value)


def _copy(arrays: Mapping[str, Array], copies: dict[str, Array]) -> None:
    """Copy arrays, into the copies of before where there are any: there is never a third one of each."""
    for name, p in arrays.items():
        if name in copies:
            np.copyto(copies[name], p)
        else:
            copies[name] = np.array(p, order="C")


def _sparsity(progress: Progress) -> dict[str, float]:
    """Return the share of the elements of held tensors that is zero."""
    kept = progress.held.kept.values()
    total = sum(mask.size for mask in kept)
    return {"sparsity": 1 - sum(int(np.count_nonzero(mask)) for mask in kept) / total} if total else {}


def _line(session: Session, record: Mapping[str, Any]) -> str:
    total = f"/{session.epochs}" if session.epochs else ""
    figures = ", ".join(f"{k} {v:.4g}" for k, v in record.items() if k not in ("epoch", "step"))
    return f"epoch {record['epoch']}{total}, step {record['step']:,}: {figures}"


@dataclass(slots=True)
class Meter:
    """Lines inside an epoch, not more than one in some seconds: the mean loss so far, and the speed."""

    began: float = field(default_factory=lambda: time.perf_counter())
    told: float = field(default_factory=lambda: time.perf_counter())
    units: int = 0
    unit: str = "samples"

    def count(self, session: Session, progress: Progress, group: Sequence[Batch]) -> None:
        """Take note of an update's batches, and tell how far it is if it is time."""
        for batch in group:
            n, self.unit = n_units(batch)
            self.units += n
        if time.perf_counter() - self.told < SECONDS:
            return
        self.told = time.perf_counter()
        total = f"/{session.n_steps:,}" if session.n_steps else ""
        mean = progress.loss_sum / progress.weight_sum if progress.weight_sum else math.nan
        session.log(f"step {progress.step:,}{total}: loss {mean:.4g}{self.speed()}")

    def speed(self) -> str:
        """Return tokens or samples a second since the epoch began, as the end of a line; nothing before the first."""
        seconds = max(1e-9, time.perf_counter() - self.began)
        return f", {self.units / seconds:,.0f} {self.unit}/s" if self.units else ""


def own_schedule(optimizer: Optimizer) -> Optimizer:
    """Return the optimiser with a plateau of its own, so that the caller's does not change."""
    return replace(optimizer, lr=copy.copy(optimizer.lr)) if isinstance(optimizer.lr, Plateau) else optimizer

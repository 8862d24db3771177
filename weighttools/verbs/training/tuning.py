"""From a checkpoint and data files to a tuned model, and to figures: what the commands finetune and evaluate do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, few, option
from weighttools.train.adapters.adapting import merged, peft_name
from weighttools.train.adapters.lora import lora
from weighttools.train.checkpoints.companions import adapter_prefix
from weighttools.train.checkpoints.heads import Classifier, Embedder, Head, Regressor
from weighttools.train.checkpoints.loading import SEQUENCES, Loaded, head_of, model, task_of_head
from weighttools.train.checkpoints.stored import metadata, stored_scaling
from weighttools.train.data.gguf_tokenizer import KEY as TOKENIZER
from weighttools.train.data.language import Sequences
from weighttools.train.data.reading import Read, check_options, numbers_of, onto, read, source_of, task_of
from weighttools.train.data.tables import Table
from weighttools.train.data.tokens import Base, left_elsewhere
from weighttools.train.fitting.feeding import Subset, column, split
from weighttools.train.fitting.fit import Result, fit
from weighttools.train.fitting.freezing import trained
from weighttools.train.fitting.held import gradual
from weighttools.train.fitting.saving import records
from weighttools.train.models.files import described, of
from weighttools.train.optim.averages import ema
from weighttools.train.optim.groups import layerwise
from weighttools.train.tasks.classification import Binary, Classification
from weighttools.train.tasks.regression import LanguageModel, Regression
from weighttools.train.tasks.task import Task
from weighttools.verbs.training import choosing, zeros
from weighttools.verbs.training.lengths import check_option, check_texts
from weighttools.verbs.training.settings import Settings

Log = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that training needs, before it begins.

    Parameters
    ----------
    settings
        As they were given.
    model
        The model.
    task
        What to learn.
    data, validation
        Samples to learn from, and to measure by, if any.
    source
        The data as it was read.
    names
        The arrays that learn.
    base
        The model without the adapter that is trained; None where there is none.
    """

    settings: Settings
    model: Loaded
    task: Task
    data: Any
    validation: Any
    source: Read
    names: tuple[str, ...]
    base: Loaded | None = None

    @property
    def n_steps(self) -> int:
        """Updates in all."""
        s = self.settings
        batches = math.ceil(len(self.data) / s.batch_size)
        return s.steps or s.epochs * math.ceil(batches / s.accumulate)

    @property
    def lr(self) -> float:
        """The peak rate."""
        if self.settings.lr is not None:
            return self.settings.lr
        if self.base is not None:
            return 5e-4
        return 5e-5 if self.model.architecture.kind in SEQUENCES else 1e-3

    def optimizer(self) -> Any:
        """Return the optimiser, its schedule told the number of updates."""
        s = self.settings
        return choosing.optimizer(
            s.optimizer, lr=self.lr, schedule=s.schedule, warmup=s.warmup, weight_decay=s.weight_decay, l1=s.l1,
            momentum=s.momentum, rates=self._rates(), n_steps=self.n_steps,
        )  # fmt: skip

    def masks(self) -> Mapping[str, Any] | None:
        """Return what is held at zero."""
        return zeros.masks(self.model.params, self.names) if self.settings.hold_zeros else self.settings.masks

    def _rates(self) -> dict[str, float]:
        rates = layerwise(self.names, self.settings.layer_decay)
        if self.settings.layer_decay != 1 and set(rates.values()) == {1.0}:
            raise SpecError("no layer has a number in its name", subject=option("layer_decay"), remedy="leave it out")
        return rates


def prepare(base: TensorMap, data: str, settings: Settings, log: Log = lambda line: None) -> Prepared:
    """Read the data, load the model with the head that the data asks for, and check that all fits.

    Parameters
    ----------
    base
        The checkpoint.
    data
        A data file.
    settings
        How to tune.
    log
        Takes lines that tell what was read.

    Raises
    ------
    WeighttoolsError
        One clear line for whatever does not fit.
    """
    origin, config = described(base)
    architecture = of(origin, config, settings.activation)
    check_option(architecture, origin, settings.columns.max_length)
    for line in left_elsewhere(base) if architecture.kind in SEQUENCES else ():
        log(line)
    source = source_of(data, architecture.kind)
    task = task_of(
        settings.task or _task_of_texts(task_of_head(origin, config, architecture), source, settings),
        architecture.kind, settings.columns, source, n_outputs(origin, config, architecture), task_before(origin),
    )  # fmt: skip
    settings.refuse_for(task, architecture.kind)
    check_options(data, architecture.kind, task, settings.columns)
    found = read(source, base, architecture.kind, task, settings.columns)
    own = None if settings.new_head else head_of(origin, config, architecture, task)
    if task == "classify" and isinstance(own, Regressor) and architecture.kind in SEQUENCES:
        own = None
    fitted, head = _head(found, own, task, settings)
    pad_id = getattr(fitted, "pad_id", None)
    loaded = model(base, head, activation=settings.activation, pad_id=pad_id, recompute=settings.recompute)
    learn, held = _parts(fitted, base, architecture.kind, task, settings)
    check_width(architecture, fitted)
    check_texts(architecture, origin, fitted, held)
    learn, held, fitted = scaled(learn, held, fitted, origin, settings.columns.is_scaled)
    others = held.notes if isinstance(settings.validation, str) else ()
    for line in (*fitted.notes, *others, *_scaling_told(fitted, origin), *_classes_told(own, head)):
        log(line)
    chosen = loaded if settings.lora is None else lora(loaded, **{"seed": settings.seed, **settings.lora})
    names = tuple(trained(chosen.params, settings.freeze, settings.only, origin.aliases))
    plain = None if chosen is loaded else loaded
    if plain is None and not settings.hold_zeros and settings.masks is None:
        for line in zeros.told(chosen.params, [name for name in names if name not in chosen.added]):
            log(line)
    return Prepared(settings, chosen, task_for(task, loaded, settings), learn, held, fitted, names, plain)


def _task_of_texts(own: str | None, source: Any, settings: Settings) -> str | None:
    """Return what the head of a model of texts is for; labels that are no numbers are classes, whatever it has."""
    is_amount = own != "regress" or bool(numbers_of(source, settings.columns))
    return own if is_amount else "classify"


def _classes_told(own: Head | None, head: Head | None) -> list[str]:
    """Say that a head is kept for other classes than it had."""
    if head is own or not isinstance(own, Classifier) or not isinstance(head, Classifier):
        return []
    if head.n_classes != own.n_classes or head.pooling not in (None, own.pooling):
        return []  # then it is a new one, and that is said
    classes = f"the head's classes were {few(own.names)} and are now {few(head.names)}"
    return [f"{classes}: it goes on from its weights; {option('new_head')} draws them anew"]


def n_outputs(origin: TensorMap, config: Mapping[str, Any], architecture: Any) -> int:
    """Return how many numbers a model of arrays gives a row; 0 for a model of texts."""
    head = None if architecture.kind in SEQUENCES else head_of(origin, config, architecture, "regress")
    return head.n_targets if isinstance(head, Regressor) else 0


def task_before(origin: TensorMap) -> str | None:
    """Return the task of the last training that a file's metadata tells of."""
    last = records(origin.metadata)[-1:]
    return _BEFORE.get(str(last[0].get("task"))) if last and isinstance(last[0], Mapping) else None


_BEFORE = {"classification": "classify", "binary": "classify", "regression": "regress"}


def _head(data: Read, own: Head | None, task: str, settings: Settings) -> tuple[Read, Head | None]:
    """Return the data, its labels as the head numbers them, and the head: the checkpoint's own if it fits."""
    if isinstance(data, Sequences) or task == "lm" or data.target is None:
        return data, None
    options: dict[str, Any] = {"pooling": settings.pooling, "init": settings.init, "seed": settings.seed}
    options |= {"dropout": settings.dropout}
    if task == "regress":
        n = 1 if data.target.ndim == 1 else data.target.shape[1]
        fits = isinstance(own, Regressor) and own.n_targets == n and settings.pooling in (None, own.pooling)
        return data, own if fits else Regressor(n, **options)
    if own is not None and not isinstance(own, Embedder) and settings.pooling in (None, own.pooling):
        names = own.names if isinstance(own, Classifier) else ("0", "1") * (own.n_targets == 1)
        known = onto(data, names)
        if known is not None:
            return known, own
    if len(data.names) < 2:
        raise SpecError(f"every label is {data.names[0]!r}", subject="the data", expected="two classes or more")
    return data, Classifier(len(data.names), names=data.names, **options)


def _parts(data: Read, base: Base, kind: str, task: str, settings: Settings) -> tuple[Any, Any]:
    """Return the samples to learn from, and those to measure by."""
    given = settings.validation
    if given is None:
        return data, None
    if isinstance(given, str):
        return data, read(given, base, kind, task, settings.columns, getattr(data, "names", None) or None)
    labels = column(data, "target") if task == "classify" else None
    return split(data, given, settings.seed, labels)


def scaled(learn: Any, held: Any, data: Read, origin: TensorMap, is_wanted: bool) -> tuple[Any, Any, Read]:
    """Scale a table's features: as the model's file says, or by what is learnt from; never by what is held out."""
    known = stored_scaling(origin) if isinstance(data, Table) else None
    if not isinstance(data, Table) or (known is None and not is_wanted):
        return learn, held, data
    rows = data if not isinstance(learn, Subset) else replace(data, x=data.x[learn.indices])
    chosen = known or rows.scaled().scaling
    whole = data.scaled(chosen)

    def of_part(part: Any) -> Any:
        if isinstance(part, Subset):
            return Subset(whole, part.indices)
        return whole if part is data else part.scaled(chosen) if isinstance(part, Table) else part

    return of_part(learn), of_part(held), whole


def check_width(architecture: Any, data: Read) -> None:
    """Raise SpecError where a table has more or fewer features than a plain stack takes."""
    if not isinstance(data, Table) or architecture.kind != "mlp":
        return
    first = architecture.body.keywords["sums"][0]
    if data.x.ndim != 2 or data.x.shape[1] != first.n_in:
        names = f" ({', '.join(data.columns[:20])})" if data.columns else ""
        raise SpecError(
            f"the data has {' × '.join(map(str, data.x.shape[1:]))} features{names}",
            expected=f"{first.n_in}, as {first.weight} takes", remedy=f"name them with {option('feature_columns')}",
        )  # fmt: skip


def _scaling_told(data: Read, origin: TensorMap) -> list[str]:
    if not isinstance(data, Table) or data.scaling is None:
        return _unscaled_told(data)
    where = "as the model's file says" if stored_scaling(origin) else "by the rows to learn from"
    told = f"features are scaled {where}, which other programs must do themselves:"
    return [told, *(f"  {line}" for line in str(data.scaling).splitlines())]


def _unscaled_told(data: Read) -> list[str]:
    """Say that features differ much in scale, which makes learning slow."""
    if not isinstance(data, Table) or data.x.ndim != 2 or len(data) < 2:
        return []
    size = np.abs(data.x).mean(0, dtype=np.float64)
    size = size[size > 0]
    if not size.size or (size.max() < 100 and size.max() < 100 * size.min()):
        return []
    remedy = f"{option('standardize')} brings them to one scale"
    return [f"features are from {size.min():.3g} to {size.max():.3g} in size: {remedy}"]


def task_for(task: str, loaded: Loaded, settings: Settings) -> Task:
    """Return the loss and metrics for a model's outputs."""
    head = loaded.head
    if task == "lm":
        return LanguageModel(label_smoothing=settings.label_smoothing)
    if task == "regress":
        return Regression(settings.error)
    if not isinstance(head, Classifier):
        if settings.class_weight is not None or settings.label_smoothing:
            raise SpecError(
                "class weights and label smoothing need a score for each class", expected="a head of two outputs",
                remedy=f"give {option('new_head')}",
            )  # fmt: skip
        return Binary(focal_gamma=settings.focal)
    names = head.names or tuple(map(str, range(head.n_classes)))
    weight = _class_weight(settings.class_weight, names)
    return Classification(head.n_classes, weight, settings.label_smoothing, settings.focal, names)


def _class_weight(given: str | Mapping[str, float] | None, names: Sequence[str]) -> str | dict[int, float] | None:
    """Return class weights by number."""
    if given is None or isinstance(given, str):
        return given
    numbers = {str(i): i for i in range(len(names))} | {name: i for i, name in enumerate(names)}
    unknown = next((name for name in given if str(name) not in numbers), None)
    if unknown is not None:
        raise SpecError(
            f"a weight for {unknown!r}", subject="class weights", expected=f"one of {', '.join(names[:20])}"
        )
    return {numbers[str(name)]: float(weight) for name, weight in given.items()}


def tune(prepared: Prepared, log: Log | None = None) -> Result:
    """Train, and return what came of it; its `tensor_map` has what data to come needs in its metadata."""
    s = prepared.settings
    return fit(
        prepared.model, prepared.data, task=prepared.task, validation=prepared.validation,
        optimizer=prepared.optimizer(), state=s.state, resume=s.resume, log=log, epochs=s.epochs,
        steps=s.steps, batch_size=s.batch_size, accumulate=s.accumulate, clip_norm=s.clip_norm, freeze=s.freeze,
        only=s.only, masks=prepared.masks(), seed=s.seed, patience=s.patience, monitor=s.monitor, every=s.every,
        prune=None if s.prune is None else gradual(s.prune), sampler=s.sampler,
        average=None if s.ema is None else ema(s.ema),
    )  # fmt: skip


def written(prepared: Prepared, result: Result) -> TensorMap:
    """Return the tuned checkpoint, for `weighttools.save`."""
    found = result.tensor_map
    if prepared.base is not None:
        prefix = adapter_prefix(prepared.base)
        found = found.rename(lambda name: peft_name(name, prefix))
        if prepared.settings.merge:
            found = merged(prepared.base, result.model, found.metadata)
    kept = {key: value for key, value in found.metadata.items() if not key.startswith(TOKENIZER)}
    return found.replace(metadata={**kept, **metadata(prepared.source, prepared.settings.activation)})

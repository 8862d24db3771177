"""How to tune: what finetune is told, and what evaluate shares with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weighttools.errors import SpecError, option
from weighttools.formats.opening import open as open_checkpoint
from weighttools.train.checkpoints.loading import SEQUENCES
from weighttools.train.data.reading import OPTION_OF, Columns
from weighttools.verbs.training.options import DATA, EPOCHS, FINETUNE


@dataclass(frozen=True, slots=True)
class Settings:
    """How to tune: `weighttools.finetune` documents each option, and `weighttools.verbs.training.options` declares it.

    Raises
    ------
    SpecError
        Options exclude each other.
    """

    columns: Columns
    task: str | None
    validation: str | float | None
    epochs: int
    steps: int | None
    batch_size: int
    accumulate: int
    lr: float | None
    optimizer: str
    schedule: str
    warmup: float
    weight_decay: float
    l1: float
    momentum: float
    layer_decay: float
    clip_norm: float | None
    freeze: Sequence[str]
    only: Sequence[str]
    masks: Mapping[str, Any] | None
    hold_zeros: bool
    prune: float | None
    sampler: str
    ema: float | None
    class_weight: str | Mapping[str, float] | None
    label_smoothing: float
    focal: float | None
    error: str
    pooling: str | None
    init: str
    dropout: float
    new_head: bool
    activation: str | None
    recompute: bool
    lora: Mapping[str, Any] | None
    merge: bool
    seed: int
    patience: int | None
    monitor: str | None
    state: str | None
    every: int | None
    resume: bool

    def __post_init__(self) -> None:
        if self.hold_zeros and (self.masks is not None or self.prune is not None or self.lora is not None):
            raise SpecError(
                "{} goes without {}, {} and {}".format(*map(option, ("hold_zeros", "masks", "prune", "lora")))
            )
        if self.every is not None and self.state is None:
            raise SpecError(f"{option('every')} goes with {option('state')}")
        if self.monitor == "":
            raise SpecError(f"{option('monitor')} is empty", expected="a figure, as val_loss")
        if self.merge and self.lora is None:
            raise SpecError(f"{option('merge')} goes with {option('lora')}")

    @classmethod
    def of(cls, **given: Any) -> Settings:
        """Return the settings of options as they were given; what was not given holds as it is declared.

        Raises
        ------
        SpecError
            Options exclude each other.
        """
        if given.get("steps") is not None and given.get("epochs") is not None:
            raise SpecError(f"{option('steps')} and {option('epochs')} exclude each other")
        every = {one.name: given.get(one.name, one.default) for one in (*DATA, *FINETUNE)}
        every["feature_columns"] = _once(every["feature_columns"])
        columns = Columns(**{field: every[name] for field, name in OPTION_OF.items()})
        every |= {"epochs": every["epochs"] or EPOCHS, "clip_norm": every["clip_norm"] or None}
        every |= {"masks": _masks(every["masks"]), "lora": _lora(every["lora"], every["lora_targets"])}
        return cls(columns, **{name: every[name] for name in cls.__dataclass_fields__ if name != "columns"})

    def refuse_for(self, task: str, kind: str) -> None:
        """Raise SpecError for an option that `task`, or a head of a model of that kind, does not know."""
        if self.pooling is not None and (task == "lm" or kind not in SEQUENCES):
            raise SpecError(f"{option('pooling')} is for a new head of a model of texts")
        if task == "lm" and (self.new_head or self.dropout):
            fact = f"{option('new_head')} and {option('dropout')} are for heads; a language model's is its own"
            raise SpecError(fact)
        if task == "regress" and self.label_smoothing:
            task_is = option("task")
            raise SpecError(f"{option('label_smoothing')} with {task_is} regress", expected=f"{task_is} classify or lm")
        kinds = {
            "class weights": ("classify", self.class_weight is not None),
            "the focal loss": ("classify", self.focal is not None),
            f"the error {self.error}": ("regress", self.error != "mse"),
        }
        for what, (wanted, is_given) in kinds.items():
            if is_given and wanted != task:
                raise SpecError(f"{what} with {option('task')} {task}", expected=f"{option('task')} {wanted}")


def _once(names: Sequence[str]) -> tuple[str, ...]:
    """Refuse a name that is given twice where once is all that it can mean."""
    given = (names,) if isinstance(names, str) else tuple(names)
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"{option('feature_columns')} {twice} is given twice", expected="each once")
    return given


def _masks(given: Any) -> Mapping[str, Any] | None:
    """Open what is not open yet."""
    return given if given is None or isinstance(given, Mapping) else open_checkpoint(given)


def _lora(given: Mapping[str, Any] | None, targets: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the adapter's options, with what it changes."""
    if not targets:
        return given
    if given is None:
        raise SpecError(f"{option('lora_targets')} goes with {option('lora')}")
    patterns = (targets,) if isinstance(targets, str) else tuple(targets)
    return {**given, "targets": "all-linear" if patterns == ("all-linear",) else patterns}

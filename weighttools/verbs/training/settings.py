"""How to tune: what the command finetune is told, and what evaluate shares with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weighttools.errors import SpecError
from weighttools.train.checkpoints.loading import SEQUENCES
from weighttools.train.data.reading import Columns
from weighttools.train.fitting.recipe import check_counts


@dataclass(frozen=True, slots=True)
class Settings:
    """How to tune.

    Parameters
    ----------
    task
        ``"classify"``, ``"regress"`` or ``"lm"``; None: what the model and the data speak for.
    columns
        Where the data has what.
    validation
        A file, or the share of the data (below 1) to hold out.
    epochs, steps, batch_size, accumulate, clip_norm, freeze, only, masks, sampler, seed, patience, monitor,
    checkpoint, every, resume
        As of `fit`.
    lr
        The peak rate; None: 5e-5 for models of texts, 1e-3 for others.
    optimizer, schedule, warmup, weight_decay, l1, momentum
        As of `choosing.optimizer`.
    layer_decay
        The share of its learning rate that a layer leaves to the one below it (`layerwise`).
    is_held
        Hold the zeros that the trained matrices have, as `masks` would.
    prune
        The share of the matrices' weights to be zero in the end, by gradual magnitude pruning.
    ema
        The decay of the moving average of the weights that is kept instead of the last ones.
    class_weight
        None, ``"balanced"``, or a weight for some classes, by number or name.
    label_smoothing, focal_gamma
        As of `Classification`.
    error
        As of `Regression`.
    pooling, init, dropout, is_new_head
        Of a new head; the last asks for one even where the checkpoint's fits.
    activation
        Between the layers of a plain stack; None: what the file says, else ReLU.
    recompute
        As of `model`.
    lora
        Train a low-rank adapter instead of the checkpoint's own weights: options of `lora`.
    is_merged
        Write the checkpoint with the adapter's change added, and not the adapter.
    adapter
        The directory of an adapter to measure with.
    """

    task: str | None = None
    columns: Columns = field(default_factory=Columns)
    validation: str | float | None = None
    epochs: int = 3
    steps: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    lr: float | None = None
    optimizer: str = "adamw"
    schedule: str = "linear"
    warmup: float = 0.0
    weight_decay: float = 0.01
    l1: float = 0.0
    momentum: float = 0.0
    layer_decay: float = 1.0
    clip_norm: float | None = 1.0
    freeze: Sequence[str] = ()
    only: Sequence[str] = ()
    masks: Mapping[str, Any] | None = None
    is_held: bool = False
    prune: float | None = None
    sampler: str = "shuffle"
    ema: float | None = None
    class_weight: str | Mapping[str, float] | None = None
    label_smoothing: float = 0.0
    focal_gamma: float | None = None
    error: str = "mse"
    pooling: str | None = None
    init: str = "xavier_normal"
    dropout: float = 0.0
    is_new_head: bool = False
    activation: str | None = None
    recompute: bool = False
    lora: Mapping[str, Any] | None = None
    is_merged: bool = False
    adapter: str | None = None
    seed: int = 0
    patience: int | None = None
    monitor: str | None = None
    checkpoint: str | None = None
    every: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        check_counts(self)
        if self.ema is not None and not 0 <= self.ema < 1:
            raise SpecError(f"a moving average of decay {self.ema:g}", expected="0 or more, below 1")
        if not 0 < self.layer_decay <= 1:
            raise SpecError(f"a layer decay of {self.layer_decay:g}", expected="above 0, up to 1")
        if self.is_held and (self.masks is not None or self.prune is not None or self.lora is not None):
            raise SpecError("--hold-zeros goes without --masks, --prune and --lora")

    def refuse_for(self, task: str, kind: str) -> None:
        """Raise SpecError for an option that `task`, or a head of a model of that kind, does not know."""
        if self.pooling is not None and (task == "lm" or kind not in SEQUENCES):
            raise SpecError("--pooling is for a new head of a model of texts")
        if task == "lm" and (self.is_new_head or self.dropout):
            raise SpecError("--new-head and --dropout are for heads; a language model's is its own")
        if task == "regress" and self.label_smoothing:
            raise SpecError("--label-smoothing with --task regress", expected="--task classify or lm")
        kinds = {
            "class weights": ("classify", self.class_weight is not None),
            "the focal loss": ("classify", self.focal_gamma is not None),
            f"the error {self.error}": ("regress", self.error != "mse"),
        }
        for option, (wanted, is_given) in kinds.items():
            if is_given and wanted != task:
                raise SpecError(f"{option} with --task {task}", expected=f"--task {wanted}")

"""The state of a training: a directory that is always whole, and continuing from it to the bit.

``model.safetensors`` holds the arrays that learn, by the file's names; ``training.safetensors`` what the optimiser,
averages and masks remember; ``training.json`` the numbers, fingerprints of the model, the data and the recipe, and
digests of all that. `weighttools.train.fitting.restoring` reads them.
There is no generator's state in it: the order of batches and the seeds follow from the seed, the epoch and the step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, SpecError
from weighttools.io.directory import atomic_directory
from weighttools.io.text import read_json
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.arrays import ArrayColumns
from weighttools.train.fitting import restoring, watching
from weighttools.train.fitting.feeding import Given
from weighttools.train.fitting.loop import Progress, Session
from weighttools.train.fitting.recipe import digest, optimizer_words, rate_words, words
from weighttools.train.fitting.restoring import ARRAYS, NUMBERS, REST, SCHEMA, WEIGHTS, file_digest, text_of
from weighttools.train.optim.chains import Optimizer
from weighttools.train.optim.schedules import Plateau
from weighttools.write.plan import plan

FILES = (*ARRAYS, NUMBERS)
Fingerprint = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Store:
    """Where a training keeps its state.

    Parameters
    ----------
    directory
        It holds nothing else.
    fingerprint
        Of the model, the data and the recipe.
    """

    directory: Path
    fingerprint: Fingerprint

    @property
    def is_there(self) -> bool:
        """Whether there is a state, whole or not."""
        return any((self.directory / name).is_file() for name in FILES)

    def saved(self) -> str:
        """Say where the last good state is."""
        if not (self.directory / NUMBERS).is_file():
            return f"there is no state in {self.directory} yet"
        step = read_json(self.directory / NUMBERS).get("step")
        return f"the last good state is {self.directory}, after step {step}"

    def save(self, session: Session, progress: Progress) -> None:
        """Write the state in the place of the one before, which stays whole until then.

        Raises
        ------
        TrainingError
            A weight is not finite: then the state before is kept.
        SourceError
            The directory cannot be written.
        SpecError
            The directory holds other files.
        """
        trained = session.trained
        watching.check_weights(trained, f"after step {progress.step}")
        numbers = _numbers(session, progress) | {"fingerprint": self.fingerprint}
        check_place(self.directory)
        with atomic_directory(self.directory, force=True) as new:
            plan(TensorMap.from_arrays(trained), str(new / WEIGHTS)).execute()
            plan(TensorMap.from_arrays(_rest(progress)), str(new / REST)).execute()
            numbers["digests"] = {name: file_digest(new / name) for name in ARRAYS}
            numbers["digest"] = restoring.digest_of(numbers)
            (new / NUMBERS).write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
            check_place(self.directory)  # again: it is exchanged whole, and writing may have taken long

    def restore(self, session: Session, progress: Progress) -> None:
        """Continue: fill the arrays that learn and `progress`, which is that of a fresh start.

        Raises
        ------
        SpecError
            The state is of another model, other data or another recipe.
        CorruptFileError
            It is damaged.
        """
        missing = [name for name in FILES if not (self.directory / name).is_file()]
        if missing:
            raise CorruptFileError(f"has no {missing[0]}", subject=self.directory, remedy=restoring.REMEDY)
        numbers = restoring.read_numbers(self.directory)
        _compare(self.directory, numbers["fingerprint"], self.fingerprint)
        restoring.restore(self.directory, numbers, session, progress)


def check_place(directory: Path) -> None:
    """Refuse to replace a directory that holds anything else: it is exchanged whole.

    Raises
    ------
    SpecError
        It holds something that is no part of a state.
    """
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    other = next((name for name in names if name not in FILES), None)
    if other is not None:
        expected = "an empty directory, or one that holds a training's state alone"
        raise SpecError(f"holds {other!r}", subject=directory, expected=expected)


def _numbers(session: Session, progress: Progress) -> dict[str, Any]:
    lr, best = session.optimizer.lr, progress.best
    return {
        "schema": SCHEMA,
        **{name: getattr(progress, name) for name in ("step", "epoch", "position", "recorded", "n_bad")},
        "loss_sum": text_of(progress.loss_sum),
        "weight_sum": text_of(progress.weight_sum),
        "optimizer_step": progress.state.step,
        "n_averaged": progress.average.n_updates if progress.average else 0,
        "plateau": {k: text_of(v) for k, v in lr.state().items()} if isinstance(lr, Plateau) else None,
        "best": {"value": text_of(best.value), "step": best.step, "metrics": _texts(best.metrics)},
        "epochs": [_texts(record) for record in progress.history.epochs],
    }


def _texts(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: text_of(value) for name, value in record.items()}


def _rest(progress: Progress) -> dict[str, Array]:
    """Return all arrays but the weights, by kind and name."""
    found = {f"slot/{slot}/{n}": a for slot, arrays in progress.state.slots.items() for n, a in arrays.items()}
    found |= {f"average/{n}": a for n, a in (progress.average.arrays if progress.average else {}).items()}
    found |= {f"best/{n}": a for n, a in progress.best.arrays.items()}
    found |= {f"kept/{n}": a for n, a in progress.held.kept.items()}
    return found | {f"step/{n}": np.array(v, np.float64) for n, v in progress.history.steps.items()}


_KINDS = {"model": "another model", "data": "other data", "recipe": "another recipe"}


def _compare(directory: Path, then: Fingerprint, now: Fingerprint) -> None:
    """Refuse a state that this training would not have written."""
    for kind, parts in now.items():
        old = then.get(kind, {})
        name = next((name for name in {**old, **parts} if old.get(name) != parts.get(name)), None)
        if name is None:
            continue
        was, now_is = old.get(name, "nothing"), parts.get(name, "nothing")
        if name == "learning rate":
            was, now_is = _first_difference(was, now_is)
        raise SpecError(
            f"is the state of a training with {_KINDS[kind]}: {name} was {was}, now it is {now_is}",
            subject=directory,
            remedy="train as then, or choose another directory",
        )


def _first_difference(was: str, now: str) -> tuple[str, str]:
    """Return of two schedules, told by their rates at some steps, the first rates that differ."""
    pairs = zip(was.split(", "), now.split(", "), strict=False)
    return next((pair for pair in pairs if pair[0] != pair[1]), (was, now))


def fingerprint(
    params: Mapping[str, Array], optimizer: Optimizer, names: Sequence[str], data: Any, validation: Any, **recipe: Any
) -> Fingerprint:
    """Tell a training by what its result depends on.

    A model by the specs of what learns (its values are the checkpoint's) and by the values of what does not; data by
    length and values; a recipe by its options.
    """
    learns = {name: params[name] for name in names}
    specs = ";".join(f"{n} {p.dtype} {p.shape}" for n, p in sorted(learns.items()))
    decayed = [name for name, p in learns.items() if optimizer.rule(name, p)]
    frozen = {n: p for n, p in params.items() if n not in learns}
    return {
        "model": {
            "trained tensors": str(len(learns)),
            "their specs": digest({specs: 0}),
            "frozen tensors": str(len(frozen)),
            "their values": digest(frozen),
        },
        "data": _data_words(data) | {f"validation {k}": v for k, v in _data_words(validation).items()},
        "recipe": {
            **{name: words(value) for name, value in recipe.items()},
            "optimizer": optimizer_words(optimizer),
            "decayed": digest({"\0".join(decayed): 0}),
            "rates": words(sorted(optimizer.rates.items())),
            "learning rate": rate_words(optimizer.lr),  # last: it changes with what stands before
        },
    }


def _data_words(data: Any) -> dict[str, str]:
    """Tell data by its length and values: of arrays all, of other data targets and some rows, of batches none."""
    if data is None or isinstance(data, (int, float)):
        return {"share": repr(data)}
    if isinstance(data, ArrayColumns):
        return {"samples": str(len(data)), "values": digest(data.columns)}
    if isinstance(data, Given):
        return {"samples": "in batches made elsewhere"}
    n = len(data)
    some = data.batch(np.unique(np.linspace(0, n - 1, min(n, 32)).astype(np.int64)))
    found = {name: value for name, value in some.items() if isinstance(value, np.ndarray)}
    if hasattr(data, "column"):
        whole = {name: data.column(name) for name in ("target", "sample_weight")}
        found |= {name: np.asarray(value) for name, value in whole.items() if value is not None}
    return {"samples": str(n), "values": digest(found)}

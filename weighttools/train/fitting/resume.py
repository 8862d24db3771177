"""Checkpoints of a training: a directory that is always whole, and continuing from it to the bit.

``model.safetensors`` holds the arrays that learn, by the file's names; ``training.safetensors`` what the optimiser,
averages and masks remember; ``training.json`` the numbers, and fingerprints of the model, the data and the recipe.
There is no generator's state in it: the order of batches and the seeds follow from the seed, the epoch and the step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weighttools import conversion
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, SpecError, TensorNotFoundError, WeighttoolsError
from weighttools.io.directory import atomic_directory
from weighttools.io.text import read_json
from weighttools.opening import open as open_checkpoint
from weighttools.train.data.arrays import Columns
from weighttools.train.fitting import watching
from weighttools.train.fitting.feeding import Given
from weighttools.train.fitting.history import STEPS
from weighttools.train.fitting.loop import Best, Progress, Session
from weighttools.train.fitting.recipe import digest, optimizer_words, rate_words, words
from weighttools.train.optimizers.optim import Optimizer
from weighttools.train.optimizers.schedules import Plateau
from weighttools.train.tape import Array

SCHEMA = "weighttools.training/1"
WEIGHTS, REST, NUMBERS = "model.safetensors", "training.safetensors", "training.json"
ARRAYS = (WEIGHTS, REST)
FILES = (*ARRAYS, NUMBERS)
Fingerprint = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Store:
    """Where a training keeps its checkpoint.

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
        """Whether there is a checkpoint, whole or not."""
        return any((self.directory / name).is_file() for name in FILES)

    def saved(self) -> str:
        """Say where the last good checkpoint is."""
        if not (self.directory / NUMBERS).is_file():
            return f"there is no checkpoint in {self.directory} yet"
        step = read_json(self.directory / NUMBERS).get("step")
        return f"the last good checkpoint is {self.directory}, after step {step}"

    def save(self, session: Session, progress: Progress) -> None:
        """Write a checkpoint in the place of the one before, which stays whole until then.

        Raises
        ------
        TrainingError
            A weight is not finite: then the checkpoint before is kept.
        SourceError
            The directory cannot be written.
        SpecError
            The directory holds other files.
        """
        trained = session.trained
        watching.check_weights(trained, f"after step {progress.step}")
        numbers = _numbers(session, progress) | {"fingerprint": self.fingerprint}
        _check_place(self.directory)
        with atomic_directory(self.directory, force=True) as new:
            conversion.write(TensorMap.from_arrays(trained), str(new / WEIGHTS))
            conversion.write(TensorMap.from_arrays(_rest(progress)), str(new / REST))
            numbers["digests"] = {name: _digest(new / name) for name in ARRAYS}
            (new / NUMBERS).write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")

    def restore(self, session: Session, progress: Progress) -> None:
        """Continue: fill the arrays that learn and `progress`, which is that of a fresh start.

        Raises
        ------
        SpecError
            The checkpoint is of another model, other data or another recipe.
        CorruptFileError
            It is damaged.
        """
        missing = [name for name in FILES if not (self.directory / name).is_file()]
        if missing:
            remedy = "bring it back, or remove the directory to begin anew"
            raise CorruptFileError(f"has no {missing[0]}", subject=self.directory, remedy=remedy)
        numbers = read_json(self.directory / NUMBERS)
        if numbers.get("schema") != SCHEMA:
            raise CorruptFileError("is no checkpoint of a training", subject=self.directory, expected=SCHEMA)
        _compare(self.directory, numbers.get("fingerprint"), self.fingerprint)
        try:
            _check_digests(self.directory, numbers["digests"])
            _restore_arrays(self.directory, session, progress)
            _restore_numbers(numbers, session, progress)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, WeighttoolsError) and not isinstance(error, TensorNotFoundError):
                raise
            raise CorruptFileError(f"a part is missing or wrong: {error}", subject=self.directory) from None


def _check_digests(directory: Path, digests: Mapping[str, Any]) -> None:
    """Refuse arrays that are not those that were written: trained on, one flipped bit would never be noticed."""
    for name in ARRAYS:
        if _digest(directory / name) != digests[name]:
            raise CorruptFileError(
                "is not what was written", subject=directory / name, expected=f"XXH3 {digests[name]}, as in {NUMBERS}"
            )


def _digest(path: Path) -> str:
    import xxhash

    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _check_place(directory: Path) -> None:
    """Refuse to replace a directory that holds anything else: it is exchanged whole."""
    others = [path.name for path in directory.iterdir() if path.name not in FILES] if directory.is_dir() else []
    if others:
        raise SpecError(f"holds {others[0]!r}", subject=directory, expected="an empty directory for checkpoints")


def _numbers(session: Session, progress: Progress) -> dict[str, Any]:
    lr, best = session.optimizer.lr, progress.best
    return {
        "schema": SCHEMA,
        **{name: getattr(progress, name) for name in ("step", "epoch", "position", "recorded", "n_bad")},
        "loss_sum": _text(progress.loss_sum),
        "weight_sum": _text(progress.weight_sum),
        "optimizer_step": progress.state.step,
        "n_averaged": progress.average.n_updates if progress.average else 0,
        "plateau": {k: _text(v) for k, v in lr.state().items()} if isinstance(lr, Plateau) else None,
        "best": {"value": _text(best.value), "step": best.step, "metrics": _texts(best.metrics)},
        "epochs": [_texts(record) for record in progress.history.epochs],
    }


def _text(value: Any) -> Any:
    """Return a float as text that gives back every bit, NaN and infinity too."""
    return float(value).hex() if isinstance(value, float) else value


def _value(text: Any) -> Any:
    return float.fromhex(text) if isinstance(text, str) else text


def _texts(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _text(value) for name, value in record.items()}


def _rest(progress: Progress) -> dict[str, Array]:
    """Return all arrays but the weights, by kind and name."""
    found = {f"slot/{slot}/{n}": a for slot, arrays in progress.state.slots.items() for n, a in arrays.items()}
    found |= {f"average/{n}": a for n, a in (progress.average.arrays if progress.average else {}).items()}
    found |= {f"best/{n}": a for n, a in progress.best.arrays.items()}
    found |= {f"kept/{n}": a for n, a in progress.held.kept.items()}
    return found | {f"step/{n}": np.array(v, np.float64) for n, v in progress.history.steps.items()}


def _restore_arrays(directory: Path, session: Session, progress: Progress) -> None:
    weights = open_checkpoint(directory / WEIGHTS)
    for name, array in session.trained.items():
        np.copyto(array, _like(weights[name].read(), array), casting="no")
    rest = open_checkpoint(directory / REST).read()
    for slot, arrays in progress.state.slots.items():
        for name, array in arrays.items():
            np.copyto(array, _like(rest[f"slot/{slot}/{name}"], array), casting="no")
    kinds: dict[str, dict[str, Array]] = {"average": {}, "best": {}, "kept": {}, "step": {}}
    for name, array in rest.items():
        kind, _, inside = name.partition("/")
        if kind in kinds:
            kinds[kind][inside] = array
    if progress.average is not None:
        progress.average.arrays = kinds["average"]
    progress.best.arrays, progress.held.kept = kinds["best"], kinds["kept"]
    progress.history.steps = {name: kinds["step"][name].tolist() for name in STEPS}


def _like(array: Array, other: Array) -> Array:
    if array.shape != other.shape:
        raise ValueError(f"shape {array.shape} instead of {other.shape}")
    return array


def _restore_numbers(numbers: Mapping[str, Any], session: Session, progress: Progress) -> None:
    for name in ("step", "epoch", "position", "recorded", "n_bad"):
        setattr(progress, name, _count(numbers, name))
    progress.loss_sum, progress.weight_sum = _value(numbers["loss_sum"]), _value(numbers["weight_sum"])
    progress.state.step = _count(numbers, "optimizer_step")
    if progress.average is not None:
        progress.average.n_updates = _count(numbers, "n_averaged")
    if isinstance(session.optimizer.lr, Plateau):
        session.optimizer.lr.restore({k: _value(v) for k, v in numbers["plateau"].items()})
    best = numbers["best"]
    metrics = {k: _value(v) for k, v in best["metrics"].items()}
    progress.best = Best(_value(best["value"]), int(best["step"]), metrics, progress.best.arrays)
    progress.history.epochs = [{k: _value(v) for k, v in record.items()} for record in numbers["epochs"]]


def _count(numbers: Mapping[str, Any], name: str) -> int:
    n, least = numbers[name], -1 if name == "recorded" else 0
    if type(n) is not int or n < least:
        raise ValueError(f"{name} is {n!r}")
    return n


_KINDS = {"model": "another model", "data": "other data", "recipe": "another recipe"}


def _compare(directory: Path, then: Any, now: Fingerprint) -> None:
    """Refuse a checkpoint that this training would not have written."""
    for kind, parts in now.items():
        old = then.get(kind) if isinstance(then, dict) else None
        if old == dict(parts):
            continue
        names = [k for k in {**(old or {}), **parts} if (old or {}).get(k) != parts.get(k)]
        was, now_is = (old or {}).get(names[0], "nothing"), parts.get(names[0], "nothing")
        if names[0] == "learning rate":
            was, now_is = _first_difference(str(was), now_is)
        raise SpecError(
            f"is a checkpoint of {_KINDS[kind]}: {names[0]} was {was}, now it is {now_is}",
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
    if isinstance(data, Columns):
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

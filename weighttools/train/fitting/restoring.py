"""Reading a training's state: all of it is checked before anything of the training is changed.

The digests tell damage; what they cannot tell (who edits a state can make new ones), kinds, shapes and sums do:
whatever is restored is a state that this training could have been in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError
from weighttools.formats.opening import open as open_checkpoint
from weighttools.io.text import read_json
from weighttools.train.autograd.gradients import Array
from weighttools.train.fitting import watching
from weighttools.train.fitting.history import STEPS
from weighttools.train.fitting.loop import Best, Progress, Session
from weighttools.train.optim.schedules import Plateau

SCHEMA = "weighttools.training/1"
WEIGHTS, REST, NUMBERS = "model.safetensors", "training.safetensors", "training.json"
ARRAYS = (WEIGHTS, REST)
COUNTS = ("step", "epoch", "position", "n_bad", "optimizer_step", "n_averaged")
FLOATS = ("loss_sum", "weight_sum")
REMEDY = "bring the files back, or remove the directory to begin anew"
Specs = dict[str, tuple[str, tuple[int, ...]]]
"""dtype and shape by name."""


def text_of(value: Any) -> Any:
    """Return a float as text that gives back every bit, NaN and infinity too."""
    return float(value).hex() if isinstance(value, float) else value


def value_of(text: Any) -> Any:
    """Return what `text_of` was given."""
    return float.fromhex(text) if isinstance(text, str) else text


def digest_of(numbers: Mapping[str, Any]) -> str:
    """Return a hash of a state's numbers, whatever their order."""
    import xxhash

    return xxhash.xxh3_128(json.dumps(numbers, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return a hash of a file."""
    import xxhash

    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def read_numbers(directory: Path) -> dict[str, Any]:
    """Return the numbers of a state, each of its kind, and none that contradicts another.

    Raises
    ------
    CorruptFileError
        They are not what was written.
    """
    path = directory / NUMBERS
    numbers = read_json(path)
    if numbers.get("schema") != SCHEMA:
        raise CorruptFileError("is no state of a training", subject=directory, expected=SCHEMA)
    if numbers.pop("digest", None) != digest_of(numbers):
        raise CorruptFileError("was edited or damaged: its digest is of other numbers", subject=path, remedy=REMEDY)
    unlike = [name for name in {**_KINDS, **numbers} if name not in _KINDS or not _fits(name, numbers)]
    _refuse(path, unlike or [name for name, agrees in _agreement(numbers).items() if not agrees])
    return numbers


def _refuse(path: Path, names: list[str]) -> None:
    if names:
        raise CorruptFileError(f"{names[0]!r} is not what was written", subject=path, remedy=REMEDY)


def _fits(name: str, numbers: Mapping[str, Any]) -> bool:
    return name in numbers and _KINDS[name](numbers[name])


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_float(value: Any) -> bool:
    try:
        return isinstance(value, str) and float.fromhex(value).hex() == value
    except (ValueError, OverflowError):
        return False


def _is_number(value: Any) -> bool:
    return _is_float(value) or (isinstance(value, int) and abs(value) < 2**63)


def _is_record(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(_is_number(number) for number in value.values())
        and all(_is_count(value.get(name)) for name in ("epoch", "step"))
    )


def _is_best(value: Any) -> bool:
    return (
        _has_keys(value, ("value", "step", "metrics"))
        and _is_float(value["value"])
        and _is_count(value["step"])
        and (value["metrics"] == {} or _is_record(value["metrics"]))
    )


def _is_plateau(value: Any) -> bool:
    return value is None or (
        _has_keys(value, ("lr", "best", "n_bad", "n_cool"))
        and all(_is_number(value[name]) for name in ("lr", "best"))
        and all(_is_count(value[name]) for name in ("n_bad", "n_cool"))
    )


def _has_keys(value: Any, names: tuple[str, ...]) -> bool:
    return isinstance(value, dict) and value.keys() == set(names)


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "schema": lambda value: value == SCHEMA,
    **dict.fromkeys(COUNTS, _is_count),
    "recorded": lambda value: value == -1 or _is_count(value),
    **dict.fromkeys(FLOATS, _is_float),
    "plateau": _is_plateau,
    "best": _is_best,
    "epochs": lambda value: isinstance(value, list) and all(map(_is_record, value)),
    "fingerprint": lambda value: isinstance(value, dict) and all(map(_are_texts, value.values())),
    "digests": lambda value: _has_keys(value, ARRAYS) and _are_texts(value),
}
"""What a state's numbers are."""


def _agreement(numbers: Mapping[str, Any]) -> dict[str, bool]:
    """Return by name whether a number is one that a training of so many steps and epochs can have."""
    step, epochs, best = numbers["step"], numbers["epochs"], numbers["best"]
    return {
        "epoch": numbers["epoch"] <= len(epochs),
        "recorded": numbers["recorded"] <= step,
        "n_bad": numbers["n_bad"] <= len(epochs),
        "optimizer_step": numbers["optimizer_step"] <= step,
        "n_averaged": numbers["n_averaged"] <= max(step, len(epochs)),
        "epochs": all(record["step"] <= step and record["epoch"] <= len(epochs) for record in epochs),
        "best": (best["metrics"] in epochs or not best["metrics"]) and best["step"] == best["metrics"].get("step", 0),
    }


def restore(directory: Path, numbers: Mapping[str, Any], session: Session, progress: Progress) -> None:
    """Fill the arrays that learn and `progress`, which is that of a fresh start.

    Raises
    ------
    CorruptFileError
        Arrays or numbers are not those of this training.
    """
    _check_digests(directory, numbers["digests"])
    _refuse(directory / NUMBERS, [name for name, fits in _fitting(numbers, session, progress).items() if not fits])
    weights, rest = (open_checkpoint(directory / name) for name in ARRAYS)
    _check_specs(weights, _specs(session.trained), directory / WEIGHTS)
    _check_specs(rest, _expected(rest, numbers, session, progress), directory / REST)
    values = rest.read()
    _check_finite(values, directory / REST)
    for name, array in session.trained.items():
        np.copyto(array, weights[name].read(), casting="no")
    _restore_rest(values, progress)
    _restore_numbers(numbers, session, progress)


def _check_digests(directory: Path, digests: Mapping[str, str]) -> None:
    """Refuse arrays that are not those that were written: trained on, one flipped bit would never be noticed."""
    for name in ARRAYS:
        if file_digest(directory / name) != digests[name]:
            raise CorruptFileError(
                "is not what was written", subject=directory / name, expected=f"XXH3 {digests[name]}, as in {NUMBERS}"
            )


def _fitting(numbers: Mapping[str, Any], session: Session, progress: Progress) -> dict[str, bool]:
    """Return by name whether a number is one that this training can have."""
    best, metrics = numbers["best"]["value"], numbers["best"]["metrics"]
    watched = value_of(metrics.get(session.monitor)) if metrics else float("nan")
    return {
        "position": numbers["position"] <= numbers["step"] * session.accumulate,
        "n_averaged": progress.average is not None or not numbers["n_averaged"],
        "plateau": isinstance(session.optimizer.lr, Plateau) == (numbers["plateau"] is not None),
        "best": watched is not None and text_of(float(watched)) == best,
    }


def _specs(arrays: Mapping[str, Array], prefix: str = "") -> Specs:
    return {prefix + name: (array.dtype.name, array.shape) for name, array in arrays.items()}


def _expected(rest: TensorMap, numbers: Mapping[str, Any], session: Session, progress: Progress) -> Specs:
    """Return what there must be beside the weights."""
    found = _specs(progress.held.kept, "kept/")
    for slot, arrays in progress.state.slots.items():
        found |= _specs(arrays, f"slot/{slot}/")
    if numbers["n_averaged"]:
        found |= _specs(session.trained, "average/")
    if numbers["best"]["metrics"] and session.keep_best:
        found |= _specs(session.trained, "best/")
    if progress.held.schedule is not None:
        pruned = [f"kept/{name}" for name in progress.held.schedule.names(session.trained)]
        if any(name in rest and name not in found for name in pruned):  # the first pruning makes all of them
            found |= {name: ("bool", session.params[name.removeprefix("kept/")].shape) for name in pruned}
    return found | {f"step/{name}": ("float64", (numbers["step"],)) for name in STEPS}


def _check_specs(held: TensorMap, expected: Specs, path: Path) -> None:
    found: Specs = {name: (tensor.dtype.name, tensor.shape) for name, tensor in held.items()}
    wrong = next((name for name in {**expected, **found} if expected.get(name) != found.get(name)), None)
    if wrong is not None:
        now, then = (_told(specs.get(wrong)) for specs in (found, expected))
        raise CorruptFileError(f"{wrong!r} is {now}", subject=path, expected=f"{then}, as this training has it")


def _check_finite(rest: Mapping[str, Array], path: Path) -> None:
    """Refuse weights to be kept that are not finite: training stops before it keeps such."""
    kept = {name: array for name, array in rest.items() if name.startswith(("average/", "best/"))}
    _refuse(path, [name for name in [watching.not_finite(kept)] if name])


def _told(spec: tuple[str, tuple[int, ...]] | None) -> str:
    return "not there" if spec is None else f"{spec[0]} {spec[1]}"


def _restore_rest(rest: Mapping[str, Array], progress: Progress) -> None:
    kinds: dict[str, dict[str, Array]] = {"average": {}, "best": {}, "kept": {}, "step": {}, "slot": {}}
    for name, array in rest.items():
        kind, _, inside = name.partition("/")
        kinds[kind][inside] = array
    for slot, arrays in progress.state.slots.items():
        for name, array in arrays.items():
            np.copyto(array, kinds["slot"][f"{slot}/{name}"], casting="no")
    if progress.average is not None:
        progress.average.arrays = kinds["average"]
    progress.best.arrays, progress.held.kept = kinds["best"], kinds["kept"]
    progress.history.steps = {name: kinds["step"][name].tolist() for name in STEPS}


def _restore_numbers(numbers: Mapping[str, Any], session: Session, progress: Progress) -> None:
    for name in ("step", "epoch", "position", "recorded", "n_bad"):
        setattr(progress, name, numbers[name])
    for name in FLOATS:
        setattr(progress, name, value_of(numbers[name]))
    progress.state.step = numbers["optimizer_step"]
    if progress.average is not None:
        progress.average.n_updates = numbers["n_averaged"]
    if isinstance(session.optimizer.lr, Plateau):
        session.optimizer.lr.restore(_values(numbers["plateau"]))
    best = numbers["best"]
    progress.best = Best(value_of(best["value"]), best["step"], _values(best["metrics"]), progress.best.arrays)
    progress.history.epochs = [_values(record) for record in numbers["epochs"]]


def _values(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value_of(value) for name, value in record.items()}

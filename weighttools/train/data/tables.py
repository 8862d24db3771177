"""Numbers as training data: a CSV of features with a target column, or an NPZ with ``x`` and ``y``."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from weighttools.core.budgets import data_values, samples
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, SpecError, option
from weighttools.train.autograd.gradients import Array
from weighttools.train.data import labels as labelling
from weighttools.train.data.batches import Batch
from weighttools.train.data.rows import Rows, Source, read_rows
from weighttools.train.data.texts import weights

ARRAYS = ("x", "y", "sample_weight")
"""What an NPZ archive may hold; the last may be left out."""
FLAT = 1e-12
"""Below this share of its mean a column's deviation is rounding: the column is constant."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """``(x - mean) / scale``, column by column: stored with the model, for data to come.

    Parameters
    ----------
    columns
        The features' names.
    mean, scale
        A number each; a constant column has scale 1.
    """

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, x: Array, columns: Sequence[str]) -> Scaling:
        """Measure the columns of `x` (n, n_features)."""
        mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
        scale = np.where(std > FLAT * np.maximum(np.abs(mean), 1e-300), std, 1.0)
        return cls(tuple(columns), tuple(mean.tolist()), tuple(scale.tolist()))

    def apply(self, x: Array) -> Array:
        """Return `x` scaled, float32."""
        found: Array = ((x - np.array(self.mean)) / np.array(self.scale)).astype(np.float32)
        return found

    def record(self) -> dict[str, list[Any]]:
        """Return it as JSON can hold it."""
        return {"columns": list(self.columns), "mean": list(self.mean), "scale": list(self.scale)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Scaling:
        """Return what `record` gave.

        Raises
        ------
        SpecError
            It is no such record.
        """
        try:
            parts = [tuple(record[key]) for key in ("columns", "mean", "scale")]
            numbers = [tuple(float(n) for n in part) for part in parts[1:]]
        except (KeyError, TypeError, ValueError):
            raise SpecError("the stored scaling is damaged", expected="columns, mean, scale") from None
        if len({len(part) for part in parts}) != 1 or not np.isfinite(numbers).all() or not all(numbers[1]):
            raise SpecError("the stored scaling is damaged", expected="as many finite numbers as columns")
        return cls(tuple(str(name) for name in parts[0]), *numbers)

    def __str__(self) -> str:
        rows = [
            f"{name}: (x - {mean:.6g}) / {scale:.6g}"
            for name, mean, scale in zip(self.columns, self.mean, self.scale, strict=True)
        ]
        return "\n".join([*rows[:20], *([f"… {len(rows) - 20:,} more columns"] if len(rows) > 20 else [])])


@dataclass(frozen=True, slots=True)
class Table:
    """Features with their targets.

    Parameters
    ----------
    x
        (n, …), float32.
    target
        (n,) labels, integers, or (n,) or (n, n_targets) numbers, float32.
    names
        The classes' names, by label.
    columns
        The features' names.
    scaling
        What was done to the features, if anything.
    sample_weight
        (n,), or None.
    notes
        What was read, as lines.
    """

    x: Array
    target: Array
    names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    scaling: Scaling | None = None
    sample_weight: Array | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Array) -> Batch:
        """Return samples: ``inputs``, ``target``, ``sample_weight`` where there are any."""
        found = {"inputs": self.x[indices], "target": self.target[indices]}
        return found if self.sample_weight is None else found | {"sample_weight": self.sample_weight[indices]}

    def column(self, name: str) -> Array | None:
        """Return what all samples have under a name; None if they have nothing."""
        return {"inputs": self.x, "target": self.target, "sample_weight": self.sample_weight}.get(name)

    def scaled(self, scaling: Scaling | None = None) -> Table:
        """Return it with its features scaled: by `scaling`, or to mean 0 and deviation 1.

        Raises
        ------
        SpecError
            `scaling` is one of other columns.
        """
        if self.x.ndim != 2:
            raise SpecError(f"features of shape {self.x.shape[1:]}", expected="one axis, to be scaled column by column")
        names = self.columns or tuple(f"x{i}" for i in range(self.x.shape[1]))
        chosen = scaling or Scaling.of(self.x, names)
        if len(chosen.columns) != len(names) or (self.columns and chosen.columns != names):
            raise SpecError(f"the model was trained on the columns {', '.join(chosen.columns)}", expected="the same")
        return replace(self, x=chosen.apply(self.x), scaling=chosen)


def table(
    source: Source,
    *,
    target: str | Sequence[str] = "target",
    features: Sequence[str] | None = None,
    weight: str | None = None,
    task: str = "classify",
    names: Sequence[str] | None = None,
) -> Table:
    """Read a table of numbers.

    Parameters
    ----------
    source
        A path (``.csv``, ``.tsv``, ``.jsonl``), or mappings.
    target
        The column to predict; several, for regression.
    features
        The columns to predict from, in the order of the model's inputs; by default all others.
    weight
        The column of sample weights.
    task
        ``"classify"`` takes targets as classes, ``"regress"`` as numbers.
    names
        The classes, if they are known: the training data's for the validation data.

    Raises
    ------
    SpecError
        A column is missing, or a cell is no finite number; the line is named.
    """
    rows = read_rows(source)
    targets = [target] if isinstance(target, str) else list(target)
    for name in targets:
        rows.column(name)
    chosen = list(features) if features else [c for c in rows.columns if c not in (*targets, weight)]
    both = next((name for name in chosen if name in targets), None)
    if both is not None:
        raise SpecError(f"column {both!r} is to be predicted from itself", subject=rows.name, expected="other features")
    if not chosen:
        raise SpecError("there is no column to predict from", subject=rows.name, expected="features beside the target")
    x = np.ascontiguousarray(np.array([rows.singles(name) for name in chosen]).T)
    y, classes = _targets(rows, targets, task, names)
    notes = [
        f"{rows.name}: {len(rows):,} rows, {len(chosen):,} features ({_listed(chosen)})",
        describe_target(y, classes),
    ]
    return Table(x, y, classes, tuple(chosen), None, weights(rows, weight), tuple(notes))


def _targets(
    rows: Rows, targets: Sequence[str], task: str, names: Sequence[str] | None
) -> tuple[Array, tuple[str, ...]]:
    if task == "regress":
        columns = np.array([rows.singles(name) for name in targets])
        return (columns[0] if len(targets) == 1 else np.ascontiguousarray(columns.T)), ()
    if len(targets) > 1:
        raise SpecError(
            f"{len(targets)} columns of classes", expected="one", remedy=f"numbers are {option('task')} regress"
        )
    return labelling.classes(rows, targets[0], names)


def describe_target(target: Array, names: Sequence[str]) -> str:
    """Return what there is to predict, as a line."""
    if names:
        return labelling.counted(target, names)
    return f"targets from {target.min():g} to {target.max():g}, mean {target.mean(dtype=np.float64):g}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:8], *(["…"] if len(names) > 8 else [])])


def npz(path: str | os.PathLike[str], *, task: str = "classify", names: Sequence[str] | None = None) -> Table:
    """Read an NPZ archive with ``x`` (n, …), ``y`` (n,) or (n, n_targets), and perhaps ``sample_weight`` (n,).

    Raises
    ------
    SpecError
        An array is missing, they are not of one length, or hold NaN, infinities, or labels that are no integers.
    CorruptFileError
        It is no NPZ archive, or holds pickled objects.
    """
    subject, held = os.fspath(path), archive(path)
    y, classes = _npz_target(held["y"], task, names, subject)
    weight = _finite(held["sample_weight"], "sample_weight", subject) if "sample_weight" in held else None
    if weight is not None and weight.min() < 0:
        raise SpecError(f"sample_weight of {weight.min():g}", subject=subject, expected="0 or more")
    x = _finite(held["x"], "x", subject)
    notes = (f"{subject}: {len(x):,} samples of shape {x.shape[1:]}", describe_target(y, classes))
    return Table(x, y, classes, (), None, weight, notes)


def archive(path: str | os.PathLike[str]) -> Mapping[str, Tensor]:
    """Return ``x``, ``y`` and perhaps ``sample_weight`` of an NPZ archive, checked by their headers; no value is read.

    Raises
    ------
    SpecError, CorruptFileError
        As of `npz`.
    """
    from weighttools.formats.opening import open as open_archive

    subject, held = os.fspath(path), open_archive(path)
    if held.origin.format != "npz":
        raise CorruptFileError(f"is {held.origin.format}", subject=subject, expected="an NPZ archive of x and y")
    for key in ARRAYS:
        _check_held(held, key, subject)
    found = {key: held[key] for key in ARRAYS if key in held}
    for key, tensor in found.items():
        _check_spec(key, tensor, subject)
    _check_lengths(found, subject)
    _check_size(found, subject)
    return found


def _check_held(held: TensorMap, key: str, subject: str) -> None:
    """Refuse an archive without an array that is needed, or with one that holds no numbers."""
    if key in held:
        return
    with zipfile.ZipFile(subject) as archive:
        is_there = f"{key}.npy" in archive.namelist()
    if is_there:
        remedy = "number classes by numpy.unique(labels, return_inverse=True)" if key == "y" else None
        raise SpecError(f"{key} holds text or objects", subject=subject, expected="numbers", remedy=remedy)
    if key != "sample_weight":
        names = ", ".join(list(held)[:10]) or "nothing"
        raise SpecError(f"no array {key!r}", subject=subject, expected=f"x and y; there is {names}")


def _check_spec(key: str, tensor: Tensor, subject: str) -> None:
    """Refuse what cannot be a row of numbers a sample, before a value is read: it may be far larger than its file."""
    if tensor.dtype.kind == "complex":
        raise SpecError(f"{key} is of {tensor.dtype}", subject=subject, expected="numbers that are not complex")
    if not tensor.shape:
        raise SpecError(f"{key} is a single number", subject=subject, expected="an array with a row a sample")
    if tensor.shape[0] and not tensor.n_elements:
        raise SpecError(f"{key} is of shape {tensor.shape}", subject=subject, expected="one number a row, or more")
    if key == "x" and len(tensor.shape) == 1:
        fact, fix = f"x is of shape {tensor.shape}", "a single feature is x[:, None]"
        raise SpecError(fact, subject=subject, expected="a row of features a sample", remedy=fix)
    if key == "sample_weight" and len(tensor.shape) > 1:
        raise SpecError(f"{key} is of shape {tensor.shape}", subject=subject, expected="one number a row")


def _check_lengths(held: Mapping[str, Tensor], subject: str) -> None:
    lengths = {key: tensor.shape[0] for key, tensor in held.items()}
    if len(set(lengths.values())) > 1 or not lengths["x"]:
        fact = ", ".join(f"{key} has {n:,}" for key, n in lengths.items())
        raise SpecError(f"{fact} rows", subject=subject, expected="one number of them, above 0")


def _check_size(held: Mapping[str, Tensor], subject: str) -> None:
    """Refuse what is out of all proportion to its file: deflate makes a thousandth of samples that are all alike."""
    n_file, n_samples = os.path.getsize(subject), held["x"].shape[0]
    n_values = sum(tensor.n_elements for tensor in held.values())
    if n_samples <= samples(n_file) and n_values <= data_values(n_file):
        return
    fact = f"claims {n_samples:,} samples, {n_values:,} numbers, in {n_file:,} bytes"
    raise CorruptFileError(
        fact,
        subject=subject,
        expected=f"{samples(n_file):,} samples and {data_values(n_file):,} numbers at most",
        remedy="save it without compression (numpy.savez) if it is meant",
    )


def _finite(tensor: Tensor, name: str, subject: str) -> Array:
    """Return a tensor's values as finite float32."""
    values = tensor.read()
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.ascontiguousarray(values, np.float32)
    bad = np.flatnonzero(~np.isfinite(found).reshape(len(found), -1).all(1))
    if not bad.size:
        return found
    row = np.asarray(values[bad[0]], np.float64).reshape(-1)
    if np.isfinite(row).all():
        fact = f"{name} goes up to {np.abs(row).max():g} in row {bad[0]:,}, beyond float32"
        raise SpecError(fact, subject=subject, expected="3.4e38 at most", remedy="rescale it")
    fact = f"{name} holds NaN or infinity in {bad.size:,} rows, first {bad[0]:,}"
    raise SpecError(fact, subject=subject, expected="finite numbers")


def _npz_target(tensor: Tensor, task: str, names: Sequence[str] | None, subject: str) -> tuple[Array, tuple[str, ...]]:
    if task == "regress":
        return _finite(tensor, "y", subject), ()
    if len(tensor.shape) != 1 or tensor.dtype.kind not in ("int", "uint", "bool"):
        fact = f"y is of {tensor.dtype} and shape {tensor.shape}"
        raise SpecError(
            fact, subject=subject, expected="integers, one a row", remedy=f"numbers are {option('task')} regress"
        )
    y = tensor.read()
    least, most = int(y.min()), int(y.max())
    if least < 0 or (names is None and most >= labelling.MOST_CLASSES):
        at = least if least < 0 else most
        raise SpecError(f"label {at}", subject=subject, expected=f"0 to {labelling.MOST_CLASSES - 1:,}")
    known = tuple(names) if names is not None else tuple(str(i) for i in range(most + 1))
    if most >= len(known):
        raise SpecError(f"label {most}", subject=subject, expected=f"0 to {len(known) - 1}")
    return y.astype(np.int64), known

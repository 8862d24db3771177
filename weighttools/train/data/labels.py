"""Classes by their names: from the labels of a file to 0, 1, … and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from weighttools.errors import SpecError, option
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.rows import Rows, has_surrogate, number_of

MOST_CLASSES = 10_000
"""More than that are numbers or texts taken for classes."""


def class_names(values: Sequence[Any]) -> tuple[str, ...]:
    """Return the classes among `values`, in their order: numbers by size, else names by the alphabet.

    >>> class_names(["spam", "ham", "spam"]), class_names(["10", "9"]), class_names([1, -1])
    (('ham', 'spam'), ('9', '10'), ('-1', '1'))
    """
    found = {str(value) for value in values}
    if all(_is_integer(name) for name in found):
        return tuple(str(n) for n in sorted(map(int, found)))
    return tuple(sorted(found))


def _is_integer(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19 and str(int(name)) == name


def classes(rows: Rows, column: str, names: Sequence[str] | None = None) -> tuple[Array, tuple[str, ...]]:
    """Return a column's labels as integers (int64) and the classes' names, by number.

    Parameters
    ----------
    rows, column
        Where the labels are: integers, texts, or truth values.
    names
        The classes, if a model or the training data already say which there are; integers below their number are then
        taken as they are, unless they are names.

    Raises
    ------
    SpecError
        A label is missing, no integer or text, or none of `names`; or no label repeats.
    """
    values = [_label(value, rows, column, i) for i, value in enumerate(rows.column(column))]
    _refuse_amounts(values, rows, column)
    known = tuple(names) if names is not None else class_names(values)
    if names is None and len(known) > min(MOST_CLASSES, max(1, len(values) - 1)) and len(known) > 2:
        fact = f"column {column!r} has {len(known):,} different labels in {len(values):,} rows"
        raise SpecError(
            fact, subject=rows.name, expected="classes", remedy=f"numbers to predict are {option('task')} regress"
        )
    numbers = {name: i for i, name in enumerate(known)} if set(values) <= set(known) else _by_number(known)
    missing = next((i for i, value in enumerate(values) if value not in numbers), None)
    if missing is not None:
        raise SpecError(
            f"label {values[missing][:60]!r} is none of the model's",
            subject=rows.place(missing),
            expected=f"one of {', '.join(known[:20])}",
        )
    return np.array([numbers[value] for value in values], np.int64), known


def _refuse_amounts(values: Sequence[str], rows: Rows, column: str) -> None:
    """Refuse labels that are all numbers, and not all whole: amounts, which a CSV cannot tell from texts."""
    try:
        numbers = [number_of(value) for value in values]
    except ValueError:
        return
    at = next((i for i, number in enumerate(numbers) if not number.is_integer()), None)
    if at is not None:
        raise SpecError(
            f"label {column!r} is {values[at][:60]}", subject=rows.place(at), expected="an integer or a text",
            remedy=f"numbers to predict are {option('task')} regress",
        )  # fmt: skip


def _by_number(known: Sequence[str]) -> dict[str, int]:
    return {str(i): i for i in range(len(known))} | {name: i for i, name in enumerate(known)}


def _label(value: Any, rows: Rows, column: str, i: int) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (str, int)) or value == "":
        what = "empty" if value == "" else f"{value!r}"[:60]
        remedy = f"numbers to predict are {option('task')} regress" if isinstance(value, float) else None
        raise SpecError(
            f"label {column!r} is {what}", subject=rows.place(i), expected="an integer or a text", remedy=remedy
        )
    if has_surrogate(str(value)):
        fact = f"label {column!r} holds half of a surrogate pair, which is no character"
        raise SpecError(fact, subject=rows.place(i), expected="an integer or a text")
    return str(value)


def counted(labels: Array, names: Sequence[str]) -> str:
    """Return how many samples each class has, as one line.

    >>> counted(np.array([0, 1, 1]), ["ham", "spam"])
    '2 classes: 0 = ham (1), 1 = spam (2)'
    """
    counts = Counter(labels.tolist())
    shown = [f"{i} = {name} ({counts[i]:,})" for i, name in enumerate(names[:20])]
    more = [f"… {len(names) - 20:,} more"] if len(names) > 20 else []
    return f"{len(names):,} classes: {', '.join([*shown, *more])}"

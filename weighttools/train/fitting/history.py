"""What happened while training: a record an epoch, a row an update; as CSV, JSON or a picture.

Nothing here depends on the clock, so the same run gives the same history to the byte.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weighttools.errors import MissingDependencyError, SourceError, install

SCHEMA = "weighttools.history/1"
STEPS = ("loss", "lr", "grad_norm")


def _columns() -> dict[str, list[float]]:
    return {name: [] for name in STEPS}


@dataclass(slots=True)
class History:
    """Records of the epochs and of the updates.

    Parameters
    ----------
    epochs
        For each, ``epoch`` (from 1), ``step`` (updates made), ``lr`` (the last), ``loss`` (the weighted mean over
        the epoch, each batch before its update), ``val_loss`` and the other metrics of the validation data, and
        ``sparsity`` where weights are held at zero.
    steps
        Columns with a number an update: ``loss``, ``lr`` and ``grad_norm`` (the 2-norm before clipping).
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=_columns)

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.epochs)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.epochs[i]

    def csv(self, path: str | os.PathLike[str] | None = None, *, force: bool = True) -> str:
        """Return a row an epoch as CSV (a missing value is empty, NaN is ``nan``), and write it to `path` if given.

        Without `force` a file that is there is not replaced; so too for `json` and `plot`.
        """
        import csv

        names = list(dict.fromkeys(name for record in self.epochs for name in record))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.epochs)
        return _written(text.getvalue(), path, force)

    def json(self, path: str | os.PathLike[str] | None = None, *, force: bool = True) -> str:
        """Return all as one JSON object (NaN and infinity are null), and write it to `path` if given."""
        found = {"schema": SCHEMA, "epochs": [_plain(r) for r in self.epochs]}
        steps = {name: [_number(v) for v in values] for name, values in self.steps.items()}
        return _written(json.dumps(found | {"steps": steps}, indent=1) + "\n", path, force)

    def plot(self, path: str | os.PathLike[str] | None = None, *, format: str | None = None, force: bool = True) -> Any:
        """Return a matplotlib figure of the loss by update and of the metrics by epoch; save it to `path` if given.

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        SourceError
            It cannot draw, or the file cannot be written.
        """
        picture = io.BytesIO()
        try:
            figure = self._drawn()
            if path is not None:
                figure.savefig(picture, format=format or Path(path).suffix[1:] or None)
        except ImportError as error:
            raise MissingDependencyError(f"plotting needs matplotlib: {_line(error)}", remedy=install("plot")) from None
        except MemoryError:
            raise
        except Exception as error:  # of fonts, styles, settings and versions: anything
            fact = f"the plot cannot be drawn: matplotlib says {_line(error)}"
            raise SourceError(fact, subject=path, remedy="all else is as it was written" if path else None) from None
        if path is not None:
            _write(picture.getvalue(), path, force)
        return figure

    def _drawn(self) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot(xlabel="update", ylabel="loss")
        axes.plot(range(1, len(self.steps["loss"]) + 1), self.steps["loss"], lw=0.6, alpha=0.5, label="batch")
        for name, label in (("loss", "training"), ("val_loss", "validation")):
            rows = [(r["step"], r[name]) for r in self.epochs if name in r]
            if rows:
                axes.plot(*zip(*rows, strict=True), marker="o", ms=3, label=label)
        axes.legend()
        return figure


def _line(error: Exception) -> str:
    """Return the first line of an error; an operating system's without its number."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (said.splitlines() or [type(error).__name__])[0][:200]


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {name: _number(value) for name, value in record.items()}


def _written(text: str, path: str | os.PathLike[str] | None, force: bool) -> str:
    if path is not None:
        _write(text.encode("utf-8"), path, force)
    return text


def _write(content: bytes, path: str | os.PathLike[str], force: bool) -> None:
    """Write a file in the place of the one before, which stays whole until then."""
    from weighttools.io.sink import atomic_file

    with atomic_file(path, force=force) as sink:
        sink.write(content)

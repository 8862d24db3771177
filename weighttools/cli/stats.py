"""``weighttools stats``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from weighttools.analyzers import ANALYZERS
from weighttools.cli import options, output
from weighttools.cli.output import Record
from weighttools.cli.sparklines import counts_line
from weighttools.verbs.stats import OPTIONS

_LABELS = {
    "tensor": ("name", "dtype", "shape"),
    "module": ("group", "n_tensors"),
    "dtype": ("group", "n_tensors"),
    "depth": ("group", "n_tensors"),
}
_USUAL = ("count", "min", "max", "mean", "std")
_NORMS = {"l1": "l1", "l2": "l2", "inf": "linf", "spectral": "spectral", "nuclear": "nuclear"}
_WHERE_THERE = ("n_nan", "n_inf", "first_nan", "first_inf")
_HEADS = {"n_zero": "zeros", "n_near_zero": "near zero", "n_nan": "NaN", "n_inf": "Inf", "n_tensors": "tensors"}
_FLAGS = ("sparsity", "kurtosis", "outliers")
"""Analyzers that have an option of their own."""


def _complete_analyzers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the last of several names of analyzers."""
    done, comma, last = incomplete.rpartition(",")
    return [done + comma + name for name in (*ANALYZERS, *ANALYZERS.plugins) if name.startswith(last)]


@click.command()
@click.argument("path", type=click.Path())
@options.declared(*OPTIONS, analyzers=_complete_analyzers)
@options.output_format
def stats(path: str, style: str, as_json: bool, **settings: Any) -> None:
    """Describe the values: moments, norms, zeros, NaN and Inf, quantiles, histograms, sparsity patterns.

    NaN and Inf are counted, and left out of every other figure; std is the population's; -0.0 is a zero. Everything
    that is asked for is computed in one pass over the file (exact histograms and quantiles of 32- and 64-bit dtypes
    take a few more), in memory that does not grow with it.

    \b
    Examples:
      weighttools stats model.safetensors
      weighttools stats checkpoint/ --by module --sort l2 --top 10
      weighttools stats model.safetensors --where 'n_nan > 0 or n_inf > 0'
      weighttools stats model.safetensors --quantiles 0.01,0.5,0.99 --hist -i '*mlp*'
    """
    from weighttools.verbs.stats import stats as verb

    with options.late_progress("stats") as (planned, done):
        record: Record = verb(path, **settings, planned=planned, progress=done)
    _show(record, settings, "json" if as_json else style)


def _show(record: Record, settings: Mapping[str, Any], chosen: str) -> None:
    if chosen == "json":
        output.emit_json([record])
        return
    rows = record["tensors" if record["by"] == "tensor" else "groups"]
    labels = _LABELS[record["by"]]
    if chosen == "table":
        totals = _totals(record, labels[0])
        shown = _columns(settings, [*rows, *totals])
        lines = [[_cell(row, column) for column in (*labels, *shown)] for row in (*rows, *totals)]
        right = "".join(
            " " if column in ("name", "group", "dtype", "shape", "hist") else "r" for column in (*labels, *shown)
        )
        output.echo("\n".join(output.table([_HEADS.get(c, c) for c in (*labels, *shown)], lines, right)))
    else:
        flat = [_flat(row) for row in rows]
        output.emit_rows(flat, list(flat[0]) if flat else labels, chosen)
    output.notes(record)


def _totals(record: Record, label: str) -> list[Record]:
    """Return the last lines: figures over the parameters, and what is counted of all else."""
    parameters, others = record["parameters"], record["others"]
    if others is None or parameters is None:
        return [_total(record["total"], label, "total")]
    return [_total(parameters, label, "total of parameters"), _total(others, label, "buffers and others")]


def _total(row: Record, label: str, what: str) -> Record:
    return {**row, label: f"{what} ({output.counted(row['n_tensors'], 'tensor')})", "n_tensors": None}


def _columns(settings: Mapping[str, Any], rows: Sequence[Record]) -> list[str]:
    """Return the columns that were asked for, and those of NaN and Inf where there is any."""
    from weighttools.analyzers.choosing import chosen

    there = [column for column in _WHERE_THERE if any(row.get(column) not in (None, 0) for row in rows)]
    analyzers = chosen([*(name for name in _FLAGS if settings[name]), *settings["analyzers"]])
    more = [
        *(["n_near_zero"] if settings["eps"] is not None else []),
        *(column for analyzer in analyzers.values() for column in analyzer.columns),
        *(["entropy", "n_distinct"] if settings["entropy"] else []),
        *(["hist"] if settings["hist"] is not None else []),
    ]
    norms = [_NORMS[name] for name in settings["norms"]]
    probabilities = [f"{p:g}" for p in settings["quantiles"]]
    return [*_USUAL, *norms, "n_zero", "sparsity", *there, *more, *probabilities]


def _cell(row: Record, column: str) -> str:
    value = row.get(column, (row.get("quantiles") or {}).get(column))
    if value is None:
        return ""
    if column == "hist":
        return counts_line(value["counts"])
    if column == "sparsity" or column.startswith("nm_"):
        return f"{value:.2%}"
    if column == "shape":
        return output.shape(value)
    if isinstance(value, list):
        return str(value)
    return f"{value:,}" if column in ("count", "min", "max") and isinstance(value, int) else _number(value)


def _number(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _flat(row: Record) -> Record:
    """Return a row without nesting: a column for each quantile, counts of a histogram as text."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key == "quantiles":
            flat |= {f"q{p}": figure for p, figure in value.items()}
        elif key == "hist":
            flat["hist"] = " ".join(map(str, value["counts"])) if value else None
        elif key.startswith("first_"):
            flat[key] = None if value is None else str(value)
        else:
            flat[key] = value
    return flat

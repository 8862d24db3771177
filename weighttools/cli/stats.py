"""``weighttools stats``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from weighttools.analyzers import ANALYZERS
from weighttools.cli import options, output

Record = dict[str, Any]

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
_BARS = "▁▂▃▄▅▆▇█"


def _numbers(ctx: click.Context, param: click.Parameter, text: str) -> tuple[float, ...]:
    """Read numbers separated by commas."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 0.01,0.5,0.99", ctx, param) from None


def _names(ctx: click.Context, param: click.Parameter, text: str) -> tuple[str, ...]:
    """Read names separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _norm_names(ctx: click.Context, param: click.Parameter, text: str) -> tuple[str, ...]:
    """Read names of norms separated by commas."""
    names = _names(ctx, param, text)
    unknown = [name for name in names if name not in _NORMS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(_NORMS)}", ctx, param)
    return names


def _complete_analyzers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the last of several names of analyzers."""
    done, comma, last = incomplete.rpartition(",")
    return [done + comma + name for name in (*ANALYZERS, *ANALYZERS.plugins) if name.startswith(last)]


@click.command()
@click.argument("path", type=click.Path())
@click.option("--by", type=click.Choice(list(_LABELS)), default="tensor", show_default=True, help="One row for each.")
@click.option("--depth", type=click.IntRange(min=1), help="Parts of the name that make a group; implies --by depth.")
@click.option(
    "--norm", "norms", callback=_norm_names, default="l2", show_default=True, metavar="NAME,...",
    help="Norms to show: l1, l2, inf; spectral and nuclear decompose every matrix.",
)  # fmt: skip
@click.option(
    "--quantiles", callback=_numbers, default="", metavar="P,...", help="Exact quantiles, e.g. 0.01,0.5,0.99."
)
@click.option("--hist", type=click.IntRange(1, 10_000), is_flag=False, flag_value=20, metavar="[BINS]",
              help="Histogram from min to max; drawn in the table, counted in JSON. [default bins: 20]")  # fmt: skip
@click.option("--sparsity", is_flag=True, help="2:4 and 4:8 compliance; empty rows, columns, channels, blocks.")
@click.option("--eps", type=click.FloatRange(min=0), help="Count magnitudes up to this as near zero.")
@click.option("--entropy", is_flag=True, help="Bits of information an element; distinct values (up to 16 bits).")
@click.option("--kurtosis", is_flag=True, help="Skewness and excess kurtosis.")
@click.option("--outliers", is_flag=True, help="Channels whose largest magnitude is far above the median channel's.")
@click.option("--analyzers", callback=_names, default="", metavar="NAME,...", shell_complete=_complete_analyzers,
              help="Further figures by name: those that an installed package adds, or our own.")  # fmt: skip
@click.option("--where", metavar="CONDITION", help="Show rows that meet it: 'sparsity > 0.5 and dtype == bf16'.")
@click.option("--sort", metavar="FIGURE", help="Order of the rows: largest first.")
@click.option("--top", type=click.IntRange(min=0), help="Show this many rows.")
@options.patterns
@click.option("--threads", type=click.IntRange(min=1), help="Worker threads. [default: one a CPU]")
@click.option("--kernel", type=click.Choice(["auto", "numpy", "numba"]), default="auto", show_default=True,
              help="numba needs the extra [fast]; auto takes it for gigabytes.")  # fmt: skip
@options.output_format
@options.reading
def stats(path: str, depth: int | None, style: str, as_json: bool, **settings: Any) -> None:
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
    from weighttools.verbs import api

    settings["by"] = "depth" if depth else settings["by"]
    asked = {**settings, "depth": depth or 1}
    tensor_map = api.open(path, assume=settings["assume"], root=settings["root"])
    with options.progress(lambda: int(api.stats(tensor_map, **asked, dry_run=True)["read_bytes"]), "stats") as done:
        record = {**api.stats(tensor_map, **asked, progress=done), "path": path}
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
        return _sparkline(value["counts"])
    if column == "sparsity" or column.startswith("nm_"):
        return f"{value:.2%}"
    if column == "shape":
        return output.shape(value)
    if isinstance(value, list):
        return str(value)
    return f"{value:,}" if column in ("count", "min", "max") and isinstance(value, int) else _number(value)


def _number(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _sparkline(counts: Sequence[int]) -> str:
    """Return counts as a line of bars; any count above zero shows.

    >>> _sparkline([0, 1, 100, 50])
    ' ▁█▄'
    """
    most = max(counts, default=0)
    return "".join(_BARS[max(0, -(-n * len(_BARS) // most) - 1)] if n else " " for n in counts)


def _flat(row: Record) -> Record:
    """Return a row without nesting: a column for each quantile, counts of a histogram as text."""
    flat: Record = {}
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

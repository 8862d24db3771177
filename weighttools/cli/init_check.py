"""``weighttools init-check``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options, output
from weighttools.cli.output import Record
from weighttools.verbs.init_check import OPTIONS

_FLAT = (
    "name", "shape", "fan_in", "fan_out", "std", "law", "ks", "skewness", "kurtosis", "scheme", "untouched", "why",
    "gain", "signal",
)  # fmt: skip
_HEAD = ("name", "shape", "fan in", "fan out", "std", "Xavier", "He", "law", "KS", "verdict", "gain", "signal")


@click.command("init-check")
@click.argument("path")
@options.declared(*OPTIONS)
@options.output_format
def init_check(path: str, style: str, as_json: bool, **settings: Any) -> None:
    """Find the layers that look untouched by training: independent draws from one law, as initialisers make them.

    For each matrix and kernel: fan-in and fan-out, the standard deviation that Xavier and He give, the measured one,
    the law that fits best, and the gain that the layer gives to the mean square of a signal.

    \b
    Examples:
      weighttools init-check model.safetensors
      weighttools init-check checkpoint/ -i '*mlp*' --activation gelu
      weighttools init-check model.safetensors --json
    """
    from weighttools.verbs.init_check import init_check as verb

    with options.late_progress("init-check") as (planned, done):
        record: Record = verb(path, **settings, planned=planned, progress=done)
    chosen = "json" if as_json else style
    if chosen == "json":
        output.emit_json([record])
        return
    if chosen == "table":
        rows = [_cells(row) for row in record["layers"]]
        output.echo("\n".join(output.table(_HEAD, rows, "  rrrrr r r ")))
        output.echo(_summary(record))
    else:
        output.emit_rows([{key: row[key] for key in _FLAT} for row in record["layers"]], _FLAT, chosen)
    output.notes(record)


def _cells(row: Record) -> list[str]:
    expected = row["expected_std"]
    verdict = "untouched: " + (row["scheme"] or "another scale") if row["untouched"] else row["why"] or ""
    return [
        row["name"], output.shape(row["shape"]), f"{row['fan_in']:,}", f"{row['fan_out']:,}", _number(row["std"]),
        _number(expected["xavier_normal"]), _number(expected["he_normal"]), row["law"] or "", _number(row["ks"]),
        verdict, _number(row["gain"]), row["signal"],
    ]  # fmt: skip


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _summary(record: Record) -> str:
    gain = "" if record["mean_gain"] is None else f"; mean gain {record['mean_gain']:.3g} ({record['activation']})"
    return f"{record['n_untouched']:,} of {record['n_layers']:,} layers look untouched{gain}"

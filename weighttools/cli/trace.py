"""``weighttools trace``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from weighttools.cli import options, output
from weighttools.cli.output import Record
from weighttools.cli.sparklines import values_line
from weighttools.verbs.trace import OPTIONS

_STEPS = ("step", "norm", "update", "cosine", "sparsity", "NaN, Inf")
_ROWS = ("norm", "norm by step", "update", "update by step", "cosine", "sparsity", "remark")


@click.command()
@click.argument("paths", metavar="CHECKPOINT...", nargs=-1, required=True, type=click.Path())
@options.declared(*OPTIONS)
@options.output_format
def trace(paths: tuple[str, ...], style: str, as_json: bool, **settings: Any) -> None:
    """Trace how weights moved over the checkpoints of one run: a directory of numbered ones, or a list in order.

    "update" is the norm of the change since the checkpoint before by that checkpoint's norm; "cosine" is that of the
    angle between one update and the next: near 1 while they go one way, below 0 where they go back and forth. Each
    checkpoint is read once.

    \b
    Examples:
      weighttools trace run/
      weighttools trace run/ --by module --sort update_last --top 10
      weighttools trace epoch1.pt epoch2.pt epoch3.pt -i '*attn*'
    """
    from weighttools.verbs.trace import trace as verb

    with options.late_progress("trace") as (planned, done):
        record: Record = verb(list(paths), **settings, planned=planned, progress=done)
    chosen = "json" if as_json else style
    if chosen == "json":
        output.emit_json([record])
    elif chosen == "table":
        output.lines(_lines(record))
    else:
        rows = [output.flat(row) for row in record["rows"]]
        output.emit_rows(rows, list(rows[0]) if rows else [], chosen)
    output.notes(record)


def _lines(record: Record) -> Iterator[str]:
    total = record["total"]
    lines = [
        [
            f"{one['step']:,}",
            _number(total["norm"][i]),
            _number(total["update"][i]),
            _cosine(total["cosine"][i]),
            _percent(total["sparsity"][i]),
            f"{total['n_not_finite'][i]:,}" if total["n_not_finite"][i] else "",
        ]
        for i, one in enumerate(record["checkpoints"])
    ]
    yield from output.table(list(_STEPS), lines, "rrrrrr")
    label = "name" if record["by"] == "tensor" else "group"
    rows = [[row[label], *_cells(row)] for row in record["rows"]]
    yield ""
    yield from output.table([label, *_ROWS], rows, " r r rr ")


def _cells(row: Record) -> list[str]:
    return [
        _number(row["norm_last"]),
        values_line(row["norm"]),
        _number(row["update_last"]),
        values_line(row["update"]),
        _cosine(row["cosine_mean"]),
        _percent(row["sparsity_last"]),
        _remark(row),
    ]


def _remark(row: Record) -> str:
    found = row["first_not_finite"]
    if found:
        where = "" if row.get("name") == found["tensor"] else f" of {found['tensor']}"
        return f"NaN or Inf from step {found['step']:,} on, first at element {found['at']:,}{where}"
    return "" if row["unchanged_since"] is None else f"unchanged since step {row['unchanged_since']:,}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"

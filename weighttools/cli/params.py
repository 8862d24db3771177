"""``weighttools params``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from weighttools.cli import options, output
from weighttools.cli.output import Record
from weighttools.errors import printable
from weighttools.verbs.params import OPTIONS

_COLUMNS = ("path", "group", "n_tensors", "n_parameters", "n_buffers", "n_state", "stored_bytes")


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@options.declared(*OPTIONS)
@options.output_format
def params(paths: Sequence[str], style: str, as_json: bool, **settings: Any) -> None:
    """Count parameters and buffers exactly.

    A parameter is an element of a floating tensor; buffers (integers, running statistics, position tables, masks,
    scales of quantised tensors) and training state (an optimizer's, a callback's) are counted apart. Tied tensors count
    once; packed 4- and 6-bit dtypes count as elements.

    \b
    Examples:
      weighttools params model.safetensors
      weighttools params checkpoint/ --by depth --depth 3
      weighttools params model.safetensors --by role
      weighttools params before.safetensors after.safetensors
      weighttools params model.safetensors -x 'embeddings.*' --json
    """
    from weighttools.verbs.params import params as verb

    records: list[Record] = [verb(path, **settings) for path in paths]
    chosen = "json" if as_json else style
    if chosen == "json":
        output.emit_json(records)
        return
    if chosen == "table":
        output.echo("\n\n".join(_table(record, named=len(records) > 1) for record in records))
    else:
        rows = [{"path": record["path"], **group} for record in records for group in record["groups"]]
        output.emit_rows(rows, _COLUMNS, chosen)
    for record in records:
        output.notes(record)


def _table(record: Record, named: bool) -> str:
    total = {**record, "group": "total", "n_tensors": sum(group["n_tensors"] for group in record["groups"])}
    has_state = record["n_state"] > 0
    rows = [_cells(group, has_state) for group in (*record["groups"], total)]
    heads = ["group", "tensors", "parameters", "", "buffers", *(["training state"] if has_state else []), "size"]
    lines = [f"{printable(record['path'])}:"] if named else []
    right = " " + "r" * (len(heads) - 1)
    if any("because" in group for group in record["groups"]):
        heads, right = [*heads, "because"], right + " "
        rows = [[*row, _because(group)] for row, group in zip(rows, (*record["groups"], total), strict=True)]
    lines += output.table(heads, rows, right)
    if record["aliases"]:
        tied = ", ".join(f"{alias} = {kept}" for alias, kept in record["aliases"].items())
        lines.append(printable(f"tied, counted once: {tied}"))
    return "\n".join(lines)


def _because(group: Record) -> str:
    """Return what most often says that tensors are what they are."""
    found = sorted(group.get("because", {}).items(), key=lambda item: -item[1])
    more = f"; {len(found) - 1:,} more reasons" if len(found) > 1 else ""
    return f"{found[0][0]} ({found[0][1]:,} tensors){more}" if found else ""


def _cells(row: Record, has_state: bool) -> list[str]:
    n = row["n_parameters"]
    state = [f"{row['n_state']:,}"] if has_state else []
    size = output.short_size(row["stored_bytes"])
    return [row["group"], f"{row['n_tensors']:,}", f"{n:,}", output.count(n), f"{row['n_buffers']:,}", *state, size]

"""``weighttools formats``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from weighttools.cli import options, output
from weighttools.cli.output import Record

_COLUMNS = ("format", "what", "suffixes", "reads", "writes", "extra")


@click.command()
@options.output_format
def formats(style: str, as_json: bool) -> None:
    """List what is read and written, and which extra it needs; what installed packages add stands last.

    \b
    Examples:
      weighttools formats
      weighttools formats --json
    """
    from weighttools.verbs.formats import list_formats

    rows = list_formats()
    _show(rows, "json" if as_json else style)
    for row in rows:
        if row["error"]:
            output.note(row["error"])


def _show(rows: Sequence[Record], chosen: str) -> None:
    if chosen == "json":
        output.echo(output.dump(rows))
    elif chosen != "table":
        flat = [{**row, "suffixes": _suffixes(row)} for row in rows]
        output.emit_rows(flat, _COLUMNS, chosen)
    else:
        cells = [
            [str(r["format"]), _suffixes(r), _yes(r["reads"]), _yes(r["writes"]), str(r["extra"]), str(r["what"])]
            for r in rows
        ]
        output.echo("\n".join(output.table(["format", "suffixes", "read", "write", "extra", "what"], cells)))


def _suffixes(row: Record) -> str:
    suffixes = row["suffixes"]
    assert isinstance(suffixes, list)
    return " ".join(suffixes)


def _yes(value: object) -> str:
    return "yes" if value else "no"

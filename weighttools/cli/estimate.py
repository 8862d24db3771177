"""``weighttools estimate``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from weighttools.cli import options, output
from weighttools.cli.output import Record
from weighttools.verbs.estimate import OPTIONS

_COLUMNS = ("what", "dtype", "optimizer", "n_bytes")


@click.command()
@click.argument("path")
@options.declared(*OPTIONS)
@options.output_format
def estimate(path: str, style: str, as_json: bool, **settings: Any) -> None:
    """Say what memory a checkpoint takes: to load, to train, and for the cache of keys and values.

    From headers and config.json alone. Training counts weights, gradients and the optimizer's state, in float32 or
    mixed (bfloat16 beside a float32 copy of the weights). Activations are not included.

    \b
    Examples:
      weighttools estimate model.safetensors
      weighttools estimate checkpoint/ --context 32768 --batch 4
      weighttools estimate checkpoint/ --json
    """
    from weighttools.verbs.estimate import estimate as verb

    record: Record = verb(path, **settings)
    chosen = "json" if as_json else style
    if chosen == "json":
        output.emit_json([record])
        return
    rows = list(_rows(record))
    if chosen != "table":
        output.emit_rows(rows, _COLUMNS, chosen)
    else:
        cells = [[r["what"], r["dtype"] or "", r["optimizer"] or "", output.size(r["n_bytes"])] for r in rows]
        output.echo("\n".join(output.table(["to", "dtype", "optimizer", "memory"], cells, "   r")))
        output.echo(f"not included: {', '.join(record['not_included'])}")
    if record["kv_cache_note"]:
        output.note(f"no cache of keys and values: {record['kv_cache_note']}")
    output.notes(record)


def _rows(record: Record) -> Iterator[Record]:
    for row in record["load"]:
        yield {"what": "load", "dtype": row["dtype"], "optimizer": None, "n_bytes": row["n_bytes"]}
    for row in record["train"]:
        yield {"what": "train", "dtype": row["precision"], "optimizer": row["optimizer"], "n_bytes": row["n_bytes"]}
    cache = record["kv_cache"]
    if cache:
        what = f"cache {cache['context']:,} x {cache['batch']:,} tokens"
        yield {"what": what, "dtype": cache["dtype"], "optimizer": None, "n_bytes": cache["n_bytes"]}

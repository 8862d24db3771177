"""``weighttools hash``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from weighttools.cli import options, output
from weighttools.cli.output import Record
from weighttools.verbs.hash import OPTIONS

_COLUMNS = ("name", "dtype", "shape", "hash")


@click.command("hash")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@options.declared(*OPTIONS)
@click.option("--tensors", is_flag=True, help="Also the digest of each tensor.")
@options.output_format
def hash_(paths: tuple[str, ...], tensors: bool, style: str, as_json: bool, **settings: Any) -> None:
    """Fingerprint what a checkpoint holds: equal for equal names, dtypes, shapes and bits, whatever file it is in.

    Format, order, sharding and ties make no difference; metadata are not part of it. Another program can compute it:
    the definition is examples/content-hash.md.

    \b
    Examples:
      weighttools hash model.safetensors model.gguf
      weighttools hash checkpoint/ --tensors
      weighttools hash model.safetensors --algorithm sha256 --files --json
    """
    from weighttools.verbs.hash import hash as verb

    if settings["manifest"] is not None and len(paths) > 1:
        raise click.UsageError("--manifest is of one checkpoint; give one PATH.")
    records: list[Record] = []
    for path in paths:
        with options.late_progress("hash") as (planned, done):
            records.append(verb(path, **settings, planned=planned, progress=done))
    if settings["manifest"] != "-":  # standard output has the manifest
        _show(records, tensors, "json" if as_json else style)
    for record in records:
        output.notes(record)


def _show(records: Sequence[Record], has_tensors: bool, chosen: str) -> None:
    if chosen == "json":
        output.emit_json(records)
    elif chosen == "table":
        for record in records:
            output.lines(_lines(record, has_tensors))
    else:
        rows = [output.flat(row) for record in records for row in record["tensors"]]
        output.emit_rows(rows, _COLUMNS, chosen)


def _lines(record: Record, has_tensors: bool) -> Iterator[str]:
    """Yield the content's line, as sha256sum has it, then those of tensors and files."""
    yield f"{record['algorithm']}:{record['content']}  {record['path']}"
    if has_tensors:
        for row in record["tensors"]:
            yield f"  {row['hash']}  {row['name']}  {row['dtype']}  {output.shape(row['shape'])}"
        for alias, kept in record["aliases"].items():
            yield f"  {alias} is tied to {kept}"
    for file in record.get("files", ()):
        more = f"  AutoV3 {file['autov3']}" if file["autov3"] else ""
        yield f"  sha256:{file['sha256']}  AutoV2 {file['autov2']}{more}  {file['path']}"

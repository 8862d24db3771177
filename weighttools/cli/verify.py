"""``weighttools verify``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from weighttools.cli import options, output
from weighttools.cli.output import Record
from weighttools.verbs.verify import OPTIONS

_COLUMNS = ("what", "kind", "name", "detail")


@click.command()
@click.argument("path", metavar="MANIFEST|PATH", type=click.Path())
@click.argument("checkpoint", metavar="[CHECKPOINT]", required=False, type=click.Path())
@options.declared(*OPTIONS)
@options.output_format
def verify(path: str, checkpoint: str | None, style: str, as_json: bool, **settings: Any) -> None:
    """Verify a checkpoint against a manifest, or a model in a Hugging Face cache against the names of its blobs.

    Nothing is fetched. A missing, extra or changed file or tensor is named, with the elements that changed. The exit
    code is 0 if all is as it should be, 1 if not, 2 if the manifest could not be read.

    \b
    Examples:
      weighttools hash checkpoint/ --manifest checkpoint/manifest.json
      weighttools verify checkpoint/manifest.json
      weighttools verify manifest.json copy.safetensors
      weighttools verify ~/.cache/huggingface/hub/models--org--name
    """
    from weighttools.verbs.verify import verify as verb

    with options.late_progress("verify") as (planned, done):
        record: Record = verb(path, checkpoint, **settings, planned=planned, progress=done)
    chosen = "json" if as_json else style
    if chosen == "json":
        output.emit_json([record])
    elif chosen == "table":
        output.lines(_lines(record))
    else:
        output.emit_rows(record["problems"], _COLUMNS, chosen)
    output.notes(record)
    click.get_current_context().exit(0 if record["same"] else 1)


def _lines(record: Record) -> Iterator[str]:
    for row in record["problems"]:
        detail = f": {row['detail']}" if row["detail"] else ""
        yield f"{row['what']} {row['kind']} {row['name']}{detail}"
    told = [output.counted(record["n_files"], "file")] if record["n_files"] else []
    told += [output.counted(record["n_tensors"], "tensor")] if record["n_tensors"] else []
    verdict = "verified" if record["same"] else f"{output.counted(len(record['problems']), 'problem')} found"
    yield f"{record['checkpoint']}: {verdict} ({', '.join(told) or 'nothing to verify'})"

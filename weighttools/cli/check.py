"""``weighttools check``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from weighttools.cli import options, output
from weighttools.cli.output import Record
from weighttools.errors import SourceError
from weighttools.verbs.check import OPTIONS

_COLUMNS = ("path", "severity", "code", "tensor", "message", "remedy")
_CODE_COLUMNS = ("code", "severities", "reads", "meaning", "remedy")


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...", type=click.Path())
@options.declared(*OPTIONS)
@click.option("--strict", is_flag=True, help="Exit 1 on warnings too.")
@click.option("--codes", is_flag=True, help="List every code with its meaning.")
@options.output_format
def check(paths: Sequence[str], strict: bool, codes: bool, style: str, as_json: bool, **settings: Any) -> None:
    """Look for what is dangerous, damaged or doubtful in a checkpoint.

    What its pickles would run; NaN and Inf; zero, constant and duplicate tensors; values that a flipped bit left;
    an index that does not fit its shards; a config.json or tokenizer.json that does not fit the shapes. Nothing of
    the file is run, imported or unpickled. -i and -x choose the tensors whose values are read. The exit code is 1 if
    a finding is an error (with --strict: or a warning), and 2 if a checkpoint could not be read at all.

    \b
    Examples:
      weighttools check model.bin
      weighttools check checkpoint/ --headers --strict
      weighttools check *.safetensors --json
      weighttools check checkpoint/ --fix-index
      weighttools check adapter/ --base checkpoint/
      weighttools check mine.safetensors --against theirs.safetensors --json
      weighttools check --codes
    """
    from weighttools.verbs import check as verb

    chosen = "json" if as_json else style
    if codes:
        _show_codes(verb.codes(), chosen)
        return
    if not paths:
        raise click.UsageError("Missing argument 'PATH...'.")
    records = [record for path in paths if (record := _checked(path, settings)) is not None]
    if records:
        _show(records, chosen, len(paths) > 1)
    worst = 2 if len(records) < len(paths) else 0
    click.get_current_context().exit(max([worst, *(_exit_code(record, strict) for record in records)]))


def _exit_code(record: Record, strict: bool) -> int:
    """Return 2 for what could not be read as a checkpoint, 1 for bad findings, 0 for none."""
    if any(map(_is_unreadable, record["findings"])):
        return 2
    bad = ("error", "warning") if strict else ("error",)
    return int(any(finding["severity"] in bad for finding in record["findings"]))


def _is_unreadable(finding: Record) -> bool:
    """Whether the checkpoint as a whole could not be read; a tensor of it may be unreadable by itself."""
    return bool(finding["code"] == "unreadable" and finding["tensor"] is None)


def _checked(path: str, settings: dict[str, Any]) -> Record | None:
    """Check one path; where nothing is there, say so on stderr, so that the others' findings are not lost."""
    from weighttools.verbs import check as verb

    try:
        with options.late_progress("check") as (planned, done):
            record: Record = verb.check(path, **settings, planned=planned, progress=done)
    except SourceError as error:
        output.failure(str(error))
        return None
    for finding in filter(_is_unreadable, record["findings"]):
        output.failure(f"{finding['message']} [{finding['code']}]")
    return record


def _show(records: Sequence[Record], chosen: str, are_many: bool) -> None:
    if chosen == "json":
        output.echo(output.dump(list(records) if are_many else records[0]))
    elif chosen == "table":
        for record in records:
            output.lines(_lines(record, named=are_many))
    else:
        rows = [{"path": record["path"], **finding} for record in records for finding in record["findings"]]
        output.emit_rows(rows, _COLUMNS, chosen)


def _lines(record: Record, named: bool) -> list[str]:
    lines = [f"{one['index']}: written anew, {one['n_tensors']:,} tensors" for one in record.get("fixed", ())]
    told = [finding for finding in record["findings"] if not _is_unreadable(finding)]  # those are told on stderr
    lines += [f"{finding['severity']}: {finding['message']} [{finding['code']}]" for finding in told]
    lines += _renames(record["against"]) if "against" in record else []
    if not lines:
        return [] if record["findings"] else [f"{record['path']}: nothing found"]
    return [f"{record['path']}:", *(f"  {line}" for line in lines)] if named else lines


def _renames(against: Record) -> list[str]:
    told = [f"rename: {rule['src']!r} -> {rule['dst']!r}  ({rule['n_names']:,} names)" for rule in against["rename"]]
    return [*told, against["command"]] if "command" in against else told


def _show_codes(rows: Sequence[Record], chosen: str) -> None:
    if chosen == "json":
        output.echo(output.dump(list(rows)))
    elif chosen == "table":
        head = ["code", "severity", "meaning"]
        output.echo("\n".join(output.table(head, [[r["code"], r["severities"], r["meaning"]] for r in rows])))
    else:
        output.emit_rows(rows, _CODE_COLUMNS, chosen)

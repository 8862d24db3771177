"""``weighttools check``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from weighttools.cli import options, output
from weighttools.errors import printable

Record = dict[str, Any]

_COLUMNS = ("path", "severity", "code", "tensor", "message", "remedy")
_CODE_COLUMNS = ("code", "severities", "reads", "meaning", "remedy")


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...", type=click.Path())
@click.option("--headers", is_flag=True, help="Read headers only: skip the checks of values.")
@click.option("--strict", is_flag=True, help="Exit 1 on warnings too.")
@click.option("--base", metavar="PATH", help="The base of this adapter: its factors must fit.")
@click.option("--against", metavar="OTHER", help="Find the renaming that makes the names those of another checkpoint.")
@click.option("--fix-index", is_flag=True, help="First write model.safetensors.index.json anew from the shards.")
@click.option("--codes", is_flag=True, help="List every code with its meaning.")
@options.patterns
@click.option("--threads", type=click.IntRange(min=1), help="Worker threads. [default: one a CPU]")
@options.output_format
@options.reading
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
    from weighttools import diagnosis

    chosen = "json" if as_json else style
    if codes:
        _show_codes(diagnosis.codes(), chosen)
        return
    if not paths:
        raise click.UsageError("Missing argument 'PATH...'.")
    records = [_checked(path, settings) for path in paths]
    _show(records, chosen)
    click.get_current_context().exit(max(_exit_code(record, strict) for record in records))


def _exit_code(record: Record, strict: bool) -> int:
    """Return 2 for what could not be read as a checkpoint, 1 for bad findings, 0 for none."""
    if any(finding["code"] == "unreadable" and finding["tensor"] is None for finding in record["findings"]):
        return 2
    bad = ("error", "warning") if strict else ("error",)
    return int(any(finding["severity"] in bad for finding in record["findings"]))


def _checked(path: str, settings: dict[str, Any]) -> Record:
    from weighttools import diagnosis

    with options.late_progress("check") as (planned, done):
        return diagnosis.check(path, **settings, planned=planned, progress=done)


def _show(records: Sequence[Record], chosen: str) -> None:
    if chosen == "json":
        output.emit_json(records)
    elif chosen == "table":
        for record in records:
            for line in _lines(record, named=len(records) > 1):
                output.echo(printable(line))
    else:
        rows = [{"path": record["path"], **finding} for record in records for finding in record["findings"]]
        output.emit_rows(rows, _COLUMNS, chosen)


def _lines(record: Record, named: bool) -> list[str]:
    lines = [f"{one['index']}: written anew, {one['n_tensors']:,} tensors" for one in record.get("fixed", ())]
    lines += [f"{finding['severity']}: {finding['message']} [{finding['code']}]" for finding in record["findings"]]
    lines += _renames(record["against"]) if "against" in record else []
    if not lines:
        return [f"{record['path']}: nothing found"]
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

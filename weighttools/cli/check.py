"""``weighttools check``."""

from __future__ import annotations

import click

from weighttools.cli import options, output
from weighttools.errors import printable


@click.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@options.reading
@click.pass_context
def check(ctx: click.Context, /, path: str, as_json: bool, **reading: str | None) -> None:
    """Look for what is dangerous or doubtful in a checkpoint: above all, what its pickles would run.

    Nothing of the file is run, imported or unpickled. The exit code is 1 if a finding is an error.

    \b
    Examples:
      weighttools check model.bin
      weighttools check checkpoint/ --json
    """
    from weighttools import api

    record = api.check(path, **reading)
    if as_json:
        output.emit_json([record])
    else:
        for finding in record["findings"]:
            output.echo(printable(f"{finding['severity']}: {finding['message']} [{finding['code']}]"))
        if not record["findings"]:
            output.echo(printable(f"{path}: nothing found"))
    if any(finding["severity"] == "error" for finding in record["findings"]):
        ctx.exit(1)

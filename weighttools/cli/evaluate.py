"""``weighttools evaluate``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import click

from weighttools.cli import data as texts
from weighttools.cli import options, output
from weighttools.errors import printable
from weighttools.verbs.evaluate import OPTIONS


@click.command()
@click.argument("src", metavar="CKPT", type=click.Path())
@texts.data
@options.declared(*OPTIONS)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def evaluate(src: str, data: str, as_json: bool, **settings: Any) -> None:
    """Measure a checkpoint on a file of texts or numbers: loss, accuracy, F1, error, perplexity.

    With --weight-column, a row counts its weight in every figure and in the table of classes.

    Exits 1 where a figure is not finite.

    \b
    Examples:
      weighttools evaluate tuned/ --data test.jsonl
      weighttools evaluate tuned/ --data test.csv --text-column review --label-column stars --json
      weighttools evaluate SmolLM2-135M/ --data held-out.txt --adapter adapter/
    """
    from weighttools.verbs import evaluate as verb

    def say(line: str) -> None:
        click.echo(printable(line), err=as_json)

    found = verb.evaluate(src, data, **settings, log=say)
    if as_json:
        output.emit_json([{**found, "metrics": output.as_json(found["metrics"])}])
    else:
        _print(found)
    broken = [name for name, value in found["metrics"].items() if not math.isfinite(value)]
    if broken:
        output.note(f"not finite: {', '.join(broken)}; weighttools check {src} says whether the weights are")
        click.get_current_context().exit(1)


def _print(found: Mapping[str, Any]) -> None:
    by = found.get("weighted_by")
    output.figures(found["metrics"], "value" if by is None else f"value weighted by {by}")
    if "confusion" in found and len(found["classes"]) <= 12:
        shown = str if by is None else "{:.4g}".format
        cells = [[name, *map(shown, row)] for name, row in zip(found["classes"], found["confusion"], strict=True)]
        output.echo()
        output.echo("\n".join(output.table(["true \\ given", *found["classes"]], cells, " " + "r" * len(cells))))

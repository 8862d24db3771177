"""``weighttools finetune``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from weighttools.cli import data as texts
from weighttools.cli import options, output
from weighttools.errors import printable
from weighttools.verbs.training.options import DATA, FINETUNE


@click.command()
@click.argument("src", metavar="CKPT", type=click.Path())
@texts.data
@options.declared(*DATA, *FINETUNE)
@click.option("--checkpoint", "old_state", type=click.Path(), hidden=True, help="--state by its old name.")
@options.output
@options.reading
def finetune(src: str, dst: str, data: str, as_json: bool, old_state: str | None, **settings: Any) -> None:
    """Train a checkpoint further on a file of texts or numbers.

    DATA is .jsonl, .csv, .tsv or .npz; for a language model also plain text. A classifier or regressor gets a head,
    under the names that transformers has for it, unless the checkpoint's own fits. The result has the checkpoint's
    names, dtypes and metadata; a directory also its config.json and tokenizer.

    \b
    Examples:
      weighttools finetune all-MiniLM-L6-v2/ --data reviews.jsonl --validation 0.2 -o tuned/
      weighttools finetune bert/ --data train.csv --text-column review --label-column stars \\
          --freeze 'embeddings.*' --class-weight balanced --lr 1e-4 -o tuned/
      weighttools finetune mlp.safetensors --data table.csv --label-column price --task regress -o tuned.safetensors
      weighttools finetune SmolLM2-135M/ --data lines.txt --lora r=8,alpha=16 -o adapter/
      weighttools finetune bert/ --data train.csv --dry-run -o tuned/
    """
    from weighttools.cli import writing
    from weighttools.verbs import finetune as verb

    def say(line: str) -> None:
        click.echo(printable(line), err=as_json or dst == "-")

    _take_old_spelling(settings, old_state)
    settings["validation"] = texts.share_or_file(settings["validation"])
    settings |= {"lora": texts.lora(settings["lora"]), "class_weight": texts.class_weight(settings["class_weight"])}

    def tell(record: Mapping[str, Any]) -> None:
        _print(record, as_json, dst)
        infinite = [line for done in record.get("transforms", ())[-1:] for line in writing.not_finite(done)]
        output.notes({"notes": [*record["notes"], *infinite]})

    try:
        with options.late_progress("finetune") as (planned, progress):
            how = {**settings, "log": say, "planned": planned, "progress": progress, "written": tell}
            record = verb.finetune(src, dst, data, **how)
    except KeyboardInterrupt as error:
        output.notes({"notes": getattr(error, "__notes__", [])})
        raise
    if settings["dry_run"]:
        tell(record)


def _take_old_spelling(settings: dict[str, Any], old: str | None) -> None:
    """Take --checkpoint, as --state was called, and say so."""
    if old is None:
        return
    if settings["state"] is not None:
        raise click.UsageError("--checkpoint is --state by its old name: give one")
    settings["state"] = old
    output.note("--checkpoint is now called --state")


def _print(record: Mapping[str, Any], as_json: bool, dst: str) -> None:
    """Print what was done, or would be."""
    from weighttools.cli import writing

    if as_json:
        epochs = {"epochs": [output.as_json(epoch) for epoch in record["epochs"]]} if "epochs" in record else {}
        metrics = {"metrics": output.as_json(record["metrics"])} if "metrics" in record else {}
        output.emit_json([{**record, **metrics, **epochs}])
    elif "n_validation" in record:
        _print_plan(record)
    elif dst != "-":
        writing.report(record)


def _print_plan(found: Mapping[str, Any]) -> None:
    shares = f"{found['n_trained']:,} of {found['n_parameters']:,} parameters"
    output.echo(
        f"would train {shares} for {output.counted(found['n_steps'], 'update')} on {found['n_samples']:,} samples"
    )
    for line in (*found["groups"], *found["class_weights"]):
        output.echo(printable(f"  {line}"))
    parts = [(name, found[f"{key}_bytes"]) for name, key in _PARTS]
    total = sum(n for _, n in parts)
    output.echo(f"memory: about {output.size(total)}: " + ", ".join(f"{n} {output.short_size(b)}" for n, b in parts))
    output.echo(
        f"time: about {found['step_seconds'] * found['n_steps']:.3g} s "
        f"({found['step_seconds']:.2g} s for a step over the longest batch, measured)"
    )


_PARTS = (("weights", "weights"), ("state of the optimizer", "state"), ("a step over the longest batch", "step_peak"))

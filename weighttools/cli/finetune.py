"""``weighttools finetune``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from weighttools.cli import options
from weighttools.cli.data import data_options, settings_of


def _share_or_file(ctx: click.Context, param: click.Parameter, value: str | None) -> float | str | None:
    try:
        return value if value is None else float(value)
    except ValueError:
        return value


_LORA: dict[str, Any] = {"r": int, "alpha": float, "dropout": float}


def _lora(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, Any] | None:
    """Return options of `train.lora` from ``r=8,alpha=16,rslora``."""
    if value is None:
        return None
    found: dict[str, Any] = {}
    for part in value.split(","):
        name, _, number = part.strip().partition("=")
        try:
            one = {"rslora": True} if part.strip() == "rslora" else {name: _LORA[name](number)}
        except (KeyError, ValueError):
            raise click.BadParameter(f"{part!r}: expected r=8, alpha=16, dropout=0.1 or rslora") from None
        if one.keys() & found.keys():
            raise click.BadParameter(f"{part!r}: {', '.join(one)} is given twice")
        found |= one
    return found


OPTIONS = (
    click.option(
        "--validation", callback=_share_or_file, metavar="FILE|SHARE",
        help="Data to measure by after each epoch: a file, or the share of --data to hold out, such as 0.2.",
    ),
    click.option("--epochs", type=click.IntRange(min=1), default=3, show_default=True, help="Passes over the data."),
    click.option("--steps", type=click.IntRange(min=1), help="Updates in all, instead of epochs."),
    click.option("--accumulate", type=click.IntRange(min=1), default=1, show_default=True, help="Batches an update."),
    click.option(
        "--lr", type=float, help="The peak learning rate. [default: 5e-5 for texts, 5e-4 with --lora, else 1e-3]"
    ),
    click.option(
        "--optimizer", default="adamw", show_default=True, metavar="NAME",
        help="adamw, adamw-8bit, adam, sgd, lion, adafactor, muon, rmsprop, adagrad.",
    ),
    click.option(
        "--schedule", default="linear", show_default=True, metavar="NAME",
        help="linear and cosine fall to 0; constant, one-cycle, inverse-sqrt, plateau.",
    ),
    click.option("--warmup", type=float, default=0.0, show_default=True, help="Updates, or below 1 their share."),
    click.option(
        "--weight-decay", type=float, default=0.01, show_default=True,
        help="Of matrices only; for adam, sgd, rmsprop and adagrad it is the L2 penalty.",
    ),
    click.option(
        "--l1", type=float, default=0.0, show_default=True, help="L1 penalty of matrices; it makes exact zeros."
    ),
    click.option("--momentum", type=float, default=0.0, show_default=True, help="Of sgd."),
    click.option(
        "--layer-decay", type=float, default=1.0, show_default=True, metavar="SHARE",
        help="Each layer's learning rate is this share of that of the one above.",
    ),
    click.option(
        "--clip-norm", type=float, default=1.0, show_default=True, help="The largest norm of the gradients; 0: any.",
    ),
    click.option(
        "--freeze", multiple=True, metavar="PATTERN", shell_complete=options.complete_names,
        help="Tensors to leave as they are: a glob (* crosses dots) or re:REGEX. Repeatable.",
    ),
    click.option(
        "--only", multiple=True, metavar="PATTERN", shell_complete=options.complete_names,
        help="Train these only. Repeatable.",
    ),
    click.option("--masks", metavar="FILE", help="Hold weights at 0 where `prune --mask-out` wrote false."),
    click.option("--hold-zeros", "is_held", is_flag=True, help="Hold the zeros that a pruned checkpoint has."),
    click.option("--prune", type=float, metavar="SHARE", help="Prune matrices on the way, up to this share of zeros."),
    click.option(
        "--sampler", type=click.Choice(["shuffle", "weighted"]), default="shuffle", show_default=True,
        help="Each sample once an epoch, or drawn by its weight and its class's, which then leave the loss.",
    ),
    click.option("--ema", type=float, metavar="DECAY", help="Keep the moving average of the weights, e.g. 0.999."),
    click.option("--class-weight", metavar="balanced|A=1,B=5", help="What each class counts for in the loss."),
    click.option("--label-smoothing", type=float, default=0.0, show_default=True, help="Spread over all classes."),
    click.option("--focal", "focal_gamma", type=float, metavar="GAMMA", help="Use the focal loss."),
    click.option(
        "--error", type=click.Choice(["mse", "mae", "huber"]), default="mse", show_default=True,
        help="The loss of --task regress.",
    ),
    click.option(
        "--pooling", type=click.Choice(["cls", "last", "mean"]),
        help="What a new head of a text model sees. [default: as in transformers]",
    ),
    click.option(
        "--init", default="xavier_normal", show_default=True, metavar="NAME", help="How a new head begins; see init.",
    ),
    click.option("--dropout", type=float, default=0.0, show_default=True, help="Before a new head."),
    click.option("--new-head", "is_new_head", is_flag=True, help="Draw a new head even where the old one fits."),
    click.option("--recompute", is_flag=True, help="Less memory, more time: compute layers again on the way back."),
    click.option(
        "--lora", callback=_lora, metavar="r=8,alpha=16",
        help="Train a low-rank adapter beside the frozen weights, and write it as PEFT does; also dropout=P, rslora.",
    ),
    click.option(
        "--lora-targets", multiple=True, metavar="PATTERN", shell_complete=options.complete_names,
        help="The weights that the adapter changes, or all-linear. Repeatable. [default: queries and values]",
    ),
    click.option("--merge", "is_merged", is_flag=True, help="With --lora: write the checkpoint, the change added."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the order, the split and the new head."),
    click.option(
        "--patience", type=click.IntRange(min=1),
        help="Stop after so many epochs that were no better; with --validation the best weights are kept.",
    ),
    click.option(
        "--monitor", metavar="FIGURE",
        help="What better means: val_loss, val_accuracy, …. [default: val_loss; without --validation loss]",
    ),
    click.option("--checkpoint", type=click.Path(), metavar="DIR", help="Keep the state there after each epoch."),
    click.option("--every", type=click.IntRange(min=1), metavar="N", help="… and after every N updates."),
    click.option("--resume", is_flag=True, help="Continue from --checkpoint, to the bit, if it holds anything."),
    click.option("--history", type=click.Path(), metavar="FILE", help="Write the figures: .csv, or .json."),
    click.option("--plot", type=click.Path(), metavar="FILE", help="Draw the losses: .png, .svg, .pdf."),
)  # fmt: skip


def training(command: options.F) -> options.F:
    """Add what says how to train."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("src", metavar="CKPT", type=click.Path())
@data_options
@click.option("--standardize", "is_scaled", is_flag=True, help="Bring a table's features to mean 0, deviation 1.")
@training
@options.output
@options.reading
def finetune(src: str, dst: str, data: str, as_json: bool, **settings: Any) -> None:
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
    from weighttools.cli import tuning

    targets, masks = settings.pop("lora_targets"), settings["masks"]
    _refuse_contradictions(settings)
    if settings["lora"] is None and (targets or settings["is_merged"]):
        raise click.UsageError("--lora-targets and --merge go with --lora")
    if targets:
        settings["lora"]["targets"] = "all-linear" if targets == ("all-linear",) else targets
    tuning.run(src, dst, data, as_json, settings_of(settings), settings, masks)


def _refuse_contradictions(settings: Mapping[str, Any]) -> None:
    """Refuse options of which one would pass over the other."""
    epochs = click.get_current_context().get_parameter_source("epochs")
    if settings["steps"] is not None and epochs is not ParameterSource.DEFAULT:
        raise click.UsageError("--steps and --epochs exclude each other")
    if settings["every"] is not None and settings["checkpoint"] is None:
        raise click.UsageError("--every goes with --checkpoint")
    if settings["monitor"] == "":
        raise click.UsageError("--monitor is empty: expected a figure, as val_loss")

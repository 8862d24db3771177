"""Options that finetune and evaluate share: where a data file has what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighttools.verbs.training.settings import Settings

F = TypeVar("F", bound="Callable[..., Any]")

OPTIONS = (
    click.option(
        "--data", required=True, type=click.Path(), metavar="FILE",
        help="Rows as .jsonl, .json, .csv or .tsv, arrays x and y as .npz, or plain text.",
    ),
    click.option(
        "--task", type=click.Choice(["classify", "regress", "lm"]),
        help="What to learn: classes, numbers, or the next token. [default: what model and data speak for]",
    ),
    click.option(
        "--text-column", "text", default="text", show_default=True, metavar="NAME", help="The column of the text.",
    ),
    click.option("--pair-column", "pair", metavar="NAME", help="The column of a second text, for pairs."),
    click.option(
        "--label-column", "label", metavar="NAME",
        help="The column of the label. [default: label, target, class, y or score]",
    ),
    click.option(
        "--weight-column", "weight", metavar="NAME",
        help="The column of each row's weight, in the loss and in all other figures.",
    ),
    click.option(
        "--feature-column", "features", multiple=True, metavar="NAME",
        help="A column of a table to predict from, in order. Repeatable. [default: all others]",
    ),
    click.option(
        "--prompt-column", "prompt", metavar="NAME",
        help="The column that a language model is given, and does not learn. [default: prompt, where there is no text]",
    ),
    click.option(
        "--completion-column", "completion", default="completion", show_default=True, metavar="NAME",
        help="The column to learn after it.",
    ),
    click.option("--tokenizer", type=click.Path(), metavar="PATH", help="Where tokenizer.json is. [default: CKPT]"),
    click.option(
        "--max-length", type=click.IntRange(min=1), metavar="N",
        help="Tokens of a text at most. [default: what tokenizer and model allow]",
    ),
    click.option(
        "--block", type=click.IntRange(min=2), default=256, show_default=True, metavar="N",
        help="Tokens of a language model's sequence: texts are laid end to end, an end token after each, and cut.",
    ),
    click.option(
        "--activation", metavar="NAME",
        help="Between the layers of a plain stack. [default: what the file says, else relu]",
    ),
    click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Samples a batch."),
)  # fmt: skip
_COLUMNS = (
    "text", "pair", "label", "weight", "features", "prompt", "completion", "is_scaled", "tokenizer", "max_length",
    "block",
)  # fmt: skip


def data_options(command: F) -> F:
    """Add them."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def settings_of(given: dict[str, Any]) -> Settings:
    """Take what training is told out of a command's options."""
    from dataclasses import fields

    from weighttools.train.data.reading import Columns
    from weighttools.verbs.training.settings import Settings

    _refuse_repeated("--feature-column", given["features"])
    columns = Columns(**{name: given.pop(name) for name in _COLUMNS if name in given})
    known = {field.name for field in fields(Settings)} & given.keys()
    taken = {name: given.pop(name) for name in known}
    if "clip_norm" in taken:
        taken["clip_norm"] = taken["clip_norm"] or None
    if "class_weight" in taken:
        taken["class_weight"] = _class_weight(taken["class_weight"])
    if taken.get("masks"):
        from weighttools.verbs import api

        taken["masks"] = api.open(taken["masks"])
    return Settings(columns=columns, **taken)


def _refuse_repeated(option: str, names: Sequence[str]) -> None:
    """Refuse a name that is given twice where once is all that it can mean."""
    from weighttools.errors import SpecError

    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"{option} {twice} is given twice", expected="each once")


def _class_weight(given: str | None) -> str | dict[str, float] | None:
    """Return ``balanced``, or ``A=1,B=5`` as a mapping."""
    from weighttools.errors import SpecError

    if given is None or given == "balanced":
        return given
    pairs = [(name.strip(), value) for name, _, value in (part.rpartition("=") for part in given.split(","))]
    try:
        found = {name: float(value) for name, value in pairs}
    except ValueError:
        found = {}
    if not found or "" in found:
        raise SpecError(f"--class-weight {given}", expected="balanced, or CLASS=NUMBER,CLASS=NUMBER")
    _refuse_repeated("--class-weight", [name for name, _ in pairs])
    return found

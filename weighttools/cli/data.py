"""What finetune and evaluate share: the option of the data, and what texts of options stand for."""

from __future__ import annotations

from typing import Any

import click

data = click.option(
    "--data", required=True, type=click.Path(), metavar="FILE",
    help="Rows as .jsonl, .json, .csv or .tsv, arrays x and y as .npz, or plain text.",
)  # fmt: skip
_LORA: dict[str, Any] = {"r": int, "alpha": float, "dropout": float}


def share_or_file(value: str | None) -> float | str | None:
    """Return a number where a text is one."""
    try:
        return value if value is None else float(value)
    except ValueError:
        return value


def lora(value: str | None) -> dict[str, Any] | None:
    """Return options of `train.lora` from ``r=8,alpha=16,rslora``."""
    if value is None:
        return None
    found: dict[str, Any] = {}
    for part in value.split(","):
        name, _, number = part.strip().partition("=")
        try:
            one = {"rslora": True} if part.strip() == "rslora" else {name: _LORA[name](number)}
        except (KeyError, ValueError):
            raise _unfit(f"{part!r}: expected r=8, alpha=16, dropout=0.1 or rslora") from None
        if one.keys() & found.keys():
            raise _unfit(f"{part!r}: {', '.join(one)} is given twice")
        found |= one
    return found


def _unfit(fact: str) -> click.BadParameter:
    return click.BadParameter(fact, param_hint="'--lora'")


def class_weight(given: str | None) -> str | dict[str, float] | None:
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
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"--class-weight {twice} is given twice", expected="each once")
    return found

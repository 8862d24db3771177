"""``weighttools clip``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options

WHICH = ("include", "exclude", "include_all")
HOW = (*WHICH, "value", "norm")


@click.command()
@click.argument("src", type=click.Path())
@click.option("--value", type=float, help="Clip each weight to -VALUE … VALUE.")
@click.option("--norm", type=float, help="Scale each tensor whose L2 norm is larger down to NORM.")
@options.changing
@options.output
@options.reading
def clip(src: str, dst: str, as_json: bool, assume: str | None, root: str | None, **settings: Any) -> None:
    """Clip weights by value, or tensors by norm.

    Norms, biases and embeddings are left alone unless you give --include-all.

    \b
    Examples:
      weighttools clip model.safetensors -o clipped.safetensors --value 2
      weighttools clip model.safetensors -o clipped.safetensors --norm 10
    """
    from weighttools.cli import writing
    from weighttools.verbs import api, edits

    how = {key: settings.pop(key) for key in HOW}
    opened = api.open(src, assume=assume, root=root)
    if not settings["dry_run"]:
        writing.early(dst, settings["force"], settings["format"])
    which = {key: how[key] for key in WHICH}
    n_bytes = 0 if how["norm"] is None else edits.reading_bytes(opened, passes="norm", **which)
    with options.progress(n_bytes, "measure") as moved:
        changed = edits.clip(opened, **how, progress=moved)
    writing.edited(changed, dst, "clipped", as_json, **settings)

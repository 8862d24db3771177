"""``weighttools noise``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options

HOW = ("include", "exclude", "include_all", "std", "seed")


@click.command()
@click.argument("src", type=click.Path())
@click.option("--std", type=float, required=True, help="The standard deviation.")
@click.option("--seed", type=int, default=0, show_default=True, help="The seed, an integer of 0 or more.")
@options.changing
@options.output
@options.reading
def noise(src: str, dst: str, as_json: bool, assume: str | None, root: str | None, **settings: Any) -> None:
    """Add normal noise to weights: by seed, name and position.

    Norms, biases and embeddings are left alone unless you give --include-all.

    \b
    Examples:
      weighttools noise model.safetensors -o noisy.safetensors --std 1e-3 --seed 7
    """
    from weighttools.cli import writing
    from weighttools.verbs import api, edits

    how = {key: settings.pop(key) for key in HOW}
    changed = edits.noise(api.open(src, assume=assume, root=root), **how)
    writing.edited(changed, dst, "added noise to", as_json, **settings)

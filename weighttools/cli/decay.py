"""``weighttools decay``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options

HOW = ("include", "exclude", "include_all", "rate", "l1", "lr", "steps")


@click.command()
@click.argument("src", type=click.Path())
@click.option("--rate", type=float, default=0.0, help="L2: each step multiplies by 1 - lr x rate.")
@click.option("--l1", type=float, default=0.0, help="L1: each step moves lr x l1 towards zero, at most to it.")
@click.option("--lr", type=float, default=1.0, show_default=True, help="The learning rate.")
@click.option("--steps", type=int, default=1, show_default=True, help="How many steps at once.")
@options.changing
@options.output
@options.reading
def decay(src: str, dst: str, as_json: bool, assume: str | None, root: str | None, **settings: Any) -> None:
    """Shrink weights as steps of decoupled weight decay would: L2, L1 (soft threshold) or both.

    Norms, biases and embeddings are left alone, as in training, unless you give --include-all. Values are computed in
    float64 and rounded once; NaN and Inf stay.

    \b
    Examples:
      weighttools decay model.safetensors -o smaller.safetensors --rate 0.01 --lr 1e-3 --steps 1000
      weighttools decay model.safetensors -o sparse.safetensors --l1 1e-4
      weighttools decay checkpoint/ -o decayed/ --rate 0.1 -i '*.mlp.*' --dry-run
    """
    from weighttools.cli import writing
    from weighttools.verbs import api, edits

    how = {key: settings.pop(key) for key in HOW}
    changed = edits.decay(api.open(src, assume=assume, root=root), **how)
    writing.edited(changed, dst, "decayed", as_json, **settings)

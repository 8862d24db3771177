"""``weighttools init``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options

HOW = ("include", "exclude", "include_all", "method", "activation", "layout", "std", "value", "seed")


@click.command()
@click.argument("src", type=click.Path())
@click.option(
    "--method", default="he_normal", show_default=True, metavar="NAME",
    help="xavier_normal, xavier_uniform, he_normal, he_uniform, lecun_normal, lecun_uniform, orthogonal, normal, "
    "truncated_normal, uniform, constant, zeros.",
)  # fmt: skip
@click.option("--activation", metavar="NAME", help="What follows the layers: relu, tanh, …; sets the gain.")
@click.option(
    "--layout", type=click.Choice(["torch", "keras"]), default="torch", show_default=True,
    help="How kernels lie: (out, in, …) or (…, in, out).",
)  # fmt: skip
@click.option("--std", type=float, help="Standard deviation of normal and truncated_normal; bound of uniform.")
@click.option("--value", type=float, help="The value of constant.")
@click.option("--seed", type=int, default=0, show_default=True, help="The seed, an integer of 0 or more.")
@options.changing
@options.output
@options.reading
def init(src: str, dst: str, as_json: bool, assume: str | None, root: str | None, **settings: Any) -> None:
    """Draw tensors anew, as before training: Xavier, He, LeCun, orthogonal and others.

    Norms, biases and embeddings are left alone unless you give --include-all. The values depend on the seed and the
    tensor's name; the seed is recorded in the metadata.

    \b
    Examples:
      weighttools init model.safetensors -o fresh.safetensors --method he_normal --seed 7
      weighttools init model.safetensors -o head.safetensors --method xavier_uniform -i 'classifier.*'
    """
    from weighttools.cli import writing
    from weighttools.verbs import api, edits

    how = {key: settings.pop(key) for key in HOW}
    changed = edits.init(api.open(src, assume=assume, root=root), **how)
    writing.edited(changed, dst, "drew anew", as_json, **settings)

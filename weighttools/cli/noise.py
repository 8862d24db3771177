"""``weighttools noise``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options
from weighttools.verbs.noise import OPTIONS


@click.command()
@click.argument("src", type=click.Path())
@options.declared(*OPTIONS)
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
    from weighttools.verbs import noise as verb
    from weighttools.verbs.open import open as open_checkpoint

    how = {one.name: settings.pop(one.name) for one in OPTIONS}
    changed = verb.noise(open_checkpoint(src, assume=assume, root=root), **how)
    writing.edited(changed, dst, "added noise to", as_json, **settings)

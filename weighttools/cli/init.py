"""``weighttools init``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options
from weighttools.verbs.init import OPTIONS


@click.command()
@click.argument("src", type=click.Path())
@options.declared(*OPTIONS)
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
    from weighttools.verbs import init as verb
    from weighttools.verbs.open import open as open_checkpoint

    how = {one.name: settings.pop(one.name) for one in OPTIONS}
    changed = verb.init(open_checkpoint(src, assume=assume, root=root), **how)
    writing.edited(changed, dst, "drew anew", as_json, **settings)

"""``weighttools scale``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options
from weighttools.verbs.scale import OPTIONS


@click.command()
@click.argument("src", type=click.Path())
@options.declared(*OPTIONS)
@options.output
@options.reading
def scale(src: str, dst: str, as_json: bool, assume: str | None, root: str | None, **settings: Any) -> None:
    """Multiply weights by a number, in float64, rounded once.

    Norms, biases and embeddings are left alone unless you give --include-all.

    \b
    Examples:
      weighttools scale model.safetensors -o scaled.safetensors --by 0.5 -i '*.lora_B.*'
    """
    from weighttools.cli import writing
    from weighttools.verbs import scale as verb
    from weighttools.verbs.open import open as open_checkpoint

    how = {one.name: settings.pop(one.name) for one in OPTIONS}
    changed = verb.scale(open_checkpoint(src, assume=assume, root=root), **how)
    writing.edited(changed, dst, "scaled", as_json, **settings)

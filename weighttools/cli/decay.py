"""``weighttools decay``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options
from weighttools.verbs.decay import OPTIONS


@click.command()
@click.argument("src", type=click.Path())
@options.declared(*OPTIONS)
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
    from weighttools.verbs import decay as verb
    from weighttools.verbs.open import open as open_checkpoint

    how = {one.name: settings.pop(one.name) for one in OPTIONS}
    changed = verb.decay(open_checkpoint(src, assume=assume, root=root), **how)
    writing.edited(changed, dst, "decayed", as_json, **settings)

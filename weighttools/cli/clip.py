"""``weighttools clip``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options
from weighttools.verbs.clip import OPTIONS


@click.command()
@click.argument("src", type=click.Path())
@options.declared(*OPTIONS)
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
    from weighttools.verbs import clip as verb
    from weighttools.verbs.editing import reading_bytes
    from weighttools.verbs.open import open as open_checkpoint
    from weighttools.verbs.save import check_targets

    how = {one.name: settings.pop(one.name) for one in OPTIONS}
    opened = open_checkpoint(src, assume=assume, root=root)
    if not settings["dry_run"]:
        check_targets(dst, format=settings["format"], force=settings["force"])
    which = {key: how[key] for key in ("include", "exclude", "include_all")}
    n_bytes = 0 if how["norm"] is None else reading_bytes(opened, passes="norm", **which)
    with options.progress(n_bytes, "measure") as moved:
        changed = verb.clip(opened, **how, progress=moved)
    writing.edited(changed, dst, "clipped", as_json, **settings)

"""``weighttools merge-adapter``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options
from weighttools.verbs.merge_adapter import OPTIONS


@click.command(name="merge-adapter")
@click.argument("base", type=click.Path())
@click.argument("adapter", type=click.Path())
@options.declared(*OPTIONS)
@options.output
@options.reading
def merge_adapter(
    base: str,
    adapter: str,
    dst: str,
    as_json: bool,
    assume: str | None,
    root: str | None,
    **settings: Any,
) -> None:
    """Add a LoRA adapter's changes to the weights of its base, so that any program can load the result.

    ADAPTER is a directory with adapter_model.safetensors and adapter_config.json. W + alpha / r * B A is computed in
    float64 and rounded once to the base's dtype; what the adapter does not change is copied.
    Factors that hold NaN or Inf are refused; a result that overflows the dtype is written, and a note counts its
    elements. A classifier's classes come from the adapter's config.json. With --names hf a directory also gets the
    config.json and the tokenizer.json that the GGUF file's metadata stand for.

    \b
    Examples:
      weighttools merge-adapter checkpoint/ adapter/ -o merged/
      weighttools merge-adapter model.safetensors adapter/ -o merged.safetensors --dry-run
      weighttools merge-adapter model.Q4_K.gguf adapter/ -o merged/ --names hf --dequantize
    """  # fmt: skip
    from weighttools.cli import writing
    from weighttools.verbs import merge_adapter as verb
    from weighttools.verbs.open import open as open_checkpoint

    how = {one.name: settings.pop(one.name) for one in OPTIONS}
    merged = verb.merge_adapter(open_checkpoint(base, assume=assume, root=root), adapter, **how)
    writing.edited(merged, dst, "changed", as_json, **settings)

"""``weighttools average``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options
from weighttools.verbs.average import OPTIONS


@click.command()
@click.argument("srcs", nargs=-1, required=True, type=click.Path())
@options.declared(*OPTIONS)
@options.output
@options.reading
def average(
    srcs: tuple[str, ...],
    dst: str,
    as_json: bool,
    assume: str | None,
    root: str | None,
    **settings: Any,
) -> None:
    """Average checkpoints of one model: a soup, a weighted mean, or a moving average over a series.

    Sums are float64 and rounded once, to the dtypes of the first. What is no parameter (integers, buffers, masks,
    vectors of spectral norm, quantised tensors and their scales, training state) and what -i leaves out is the first's;
    running statistics are averaged. Names that all files tie stay tied, others are averaged each by itself.

    \b
    Examples:
      weighttools average run1.safetensors run2.safetensors run3.safetensors -o soup.safetensors
      weighttools average a.safetensors b.safetensors -o mix.safetensors --weights 3,1
      weighttools average step*.safetensors -o ema.safetensors --ema 0.9
    """  # fmt: skip
    from weighttools.cli import writing
    from weighttools.verbs import average as verb
    from weighttools.verbs.open import open as open_checkpoint

    how = {one.name: settings.pop(one.name) for one in OPTIONS}
    maps = [open_checkpoint(src, assume=assume, root=root) for src in srcs]
    changed = verb.average(maps, **{**how, "weights": _numbers(how["weights"])})
    writing.edited(changed, dst, "averaged", as_json, **settings)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of numbers, as 3,1", param_hint="--weights") from None

"""``weighttools average``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options


@click.command()
@click.argument("srcs", nargs=-1, required=True, type=click.Path())
@click.option("--weights", metavar="W,W,…", help="A weight for each checkpoint; divided by their sum. [default: equal]")
@click.option("--ema", type=float, help="Instead: an exponential moving average with this decay, oldest first.")
@click.option(
    "--missing",
    type=click.Choice(["error", "keep", "drop"]),
    default="error",
    show_default=True,
    help="A tensor that not all have: refuse, average over those that have it, or leave it out.",
)
@options.changed_patterns
@options.output
@options.reading
def average(
    srcs: tuple[str, ...],
    dst: str,
    weights: str | None,
    ema: float | None,
    missing: str,
    as_json: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
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
    from weighttools.verbs import api, edits
    from weighttools.write import protection as targets

    maps = [api.open(src, assume=assume, root=root) for src in srcs]
    changed = edits.average(maps, weights=_numbers(weights), ema=ema, missing=missing, include=include, exclude=exclude)
    goal = writing.output_target(changed, writing.plan(changed, dst, **settings))
    targets.refuse_read([goal], [file for opened in maps for file in opened.origin.files])
    writing.edited(changed, dst, "averaged", as_json, **settings)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of numbers, as 3,1", param_hint="--weights") from None

"""``weighttools prune``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from weighttools.cli import options, output
from weighttools.core.tensormap import TensorMap
from weighttools.errors import printable
from weighttools.io.progress import Progress, silent
from weighttools.verbs.options import SELECTING
from weighttools.verbs.prune import HOW, OPTIONS
from weighttools.verbs.save import MASKS


@click.command()
@click.argument("src", type=click.Path())
@options.declared(*HOW, MASKS, *SELECTING)
@options.output
@options.reading
def prune(src: str, dst: str, as_json: bool, assume: str | None, root: str | None, **settings: Any) -> None:
    """Set the weights to 0 that matter least, and say what that saves.

    The target is met to the element: zeros go first, and of equal magnitudes those of earlier tensors and positions.
    Norms, biases and embeddings are left alone unless you give --include-all. NaN and Inf are never dropped. The file
    is as large as before; what it would be compressed, or as a bitmask and the other values, is printed. A target by
    magnitude or norm reads the values to plan, with --dry-run too.

    \b
    Examples:
      weighttools prune model.safetensors -o sparse.safetensors --sparsity 0.5
      weighttools prune model.safetensors -o sparse.safetensors --sparsity 0.9 --scope tensor --mask-out masks.npz
      weighttools prune model.safetensors -o sparse.safetensors --nm 2:4 -x 'lm_head*'
      weighttools prune checkpoint/ -o sparse/ --structure heads --sparsity 0.25
    """  # fmt: skip
    from weighttools.cli import writing
    from weighttools.verbs import prune as verb
    from weighttools.verbs.open import open as open_checkpoint
    from weighttools.verbs.save import check_targets

    how = {one.name: settings.pop(one.name) for one in OPTIONS}
    opened = open_checkpoint(src, assume=assume, root=root)
    if not settings["dry_run"]:
        where = {key: settings[key] for key in ("format", "force", "masks")}
        check_targets(dst, **where, reads=[src])
    with _looking(opened, how) as moved:
        pruned = verb.prune(opened, **how, progress=moved)
    record = writing.write(pruned, dst, "prune", **settings)
    rows = record["transforms"][-1].get("tensors")
    record["sizes"] = verb.sizes(pruned, rows and {name: row["n_zero"] for name, row in rows.items()})
    writing.tell(record, "pruned", as_json)
    if not as_json and dst != "-":
        _report(record)


@contextmanager
def _looking(opened: TensorMap, how: Mapping[str, Any]) -> Iterator[Progress]:
    """Give a bar for what is read to plan: by magnitude or at random in up to four passes, by norm in one."""
    from weighttools.verbs.editing import reading_bytes

    if how["sparsity"] is None or how["nm"] is not None:
        yield silent
        return
    passes = "norm" if how["structure"] else "random" if how["random"] else "magnitude"
    which = {one.name: how[one.name] for one in SELECTING}
    with options.progress(reading_bytes(opened, passes=passes, **which), "count") as moved:
        yield moved


def _report(record: Mapping[str, Any]) -> None:
    """Print how sparse the pruned tensors are, and what that would save."""
    done, sizes = record["transforms"][-1], record["sizes"]
    if "n_zero" in done:
        share = done["n_zero"] / max(1, done["n_elements"])
        output.echo(f"sparsity: {share:.4%} of the pruned tensors ({done['n_zero']:,} of {done['n_elements']:,} are 0)")
    elif done.get("n_pruned") is not None:
        output.echo(f"would drop {done['n_pruned']:,} elements")
    elif "most_pruned" in done:
        output.echo(f"would drop {done['most_pruned']:,} elements, less those that are NaN or Inf")
    if "least_zeros" in done and done["least_zeros"]["share"] < done["most_zeros"]["share"]:
        least, most = done["least_zeros"], done["most_zeros"]
        ends = f"{least['share']:.2%} ({least['name']}) to {most['share']:.2%} ({most['name']})"
        output.echo(printable(f"zeros by tensor: {ends}"))
    told = [f"as it is {output.short_size(sizes['raw_bytes'])}"]
    about = "about " if sizes["gzip_sample_bytes"] < sizes["raw_bytes"] else ""
    told.append(f"gzip {about}{output.short_size(sizes['gzip_bytes'])}")
    if sizes["bitmask_bytes"] is not None:
        told.append(f"bitmask and values {output.short_size(sizes['bitmask_bytes'])}")
    output.echo(f"values would take: {', '.join(told)}")
    if "masks" in record:
        output.echo(f"masks: {record['masks']}")

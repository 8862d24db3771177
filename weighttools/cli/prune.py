"""``weighttools prune``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from weighttools.cli import options, output
from weighttools.core.tensormap import TensorMap
from weighttools.errors import printable
from weighttools.io.progress import Progress, silent
from weighttools.write import protection as targets

WHICH = ("include", "exclude", "include_all")
HOW = ("sparsity", "threshold", "nm", "structure", "random", "scope", "norm", "n_heads", "seed")


@click.command()
@click.argument("src", type=click.Path())
@click.option("--sparsity", type=float, help="The share to drop, 0 to 1: of elements, or of a structure's units.")
@click.option("--threshold", type=float, help="Instead: drop weights whose magnitude is less.")
@click.option(
    "--scope",
    type=click.Choice(["global", "tensor", "group"]),
    default="global",
    show_default=True,
    help="Meet the target over all tensors, in each, or in each layer.",
)
@click.option("--nm", metavar="N:M", help="Keep the N largest of every M weights along each row, as 2:4.")
@click.option(
    "--structure",
    type=click.Choice(["rows", "columns", "channels", "heads"]),
    help="Drop whole rows (a layer's outputs), columns (its inputs), channels (inputs of convolutions) or heads.",
)
@click.option(
    "--norm",
    type=click.Choice(["1", "2", "inf"]),
    default="2",
    show_default=True,
    help="The norm by which a structure's units are compared.",
)
@click.option("--n-heads", type=int, help="How many heads each attention has; by default as config.json says.")
@click.option("--random", is_flag=True, help="Drop random weights: by seed, name and position.")
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of --random.")
@click.option("--mask-out", type=click.Path(), metavar="FILE", help="Save the masks too: booleans, true where kept.")
@options.changing
@options.output
@options.reading
def prune(
    src: str, dst: str, mask_out: str | None, as_json: bool, assume: str | None, root: str | None, **settings: Any
) -> None:
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
    from weighttools.verbs import api, edits

    how = {key: settings.pop(key) for key in (*HOW, *WHICH)}
    if mask_out is not None:
        _check_mask(mask_out, dst, src, settings["force"])
    opened = api.open(src, assume=assume, root=root)
    if not settings["dry_run"]:
        writing.early(dst, settings["force"], settings["format"])
    with _looking(opened, how) as moved:
        pruned = edits.prune(opened, **how, progress=moved)
    if mask_out is not None:  # a target that cannot be is found out before anything is written
        masks = api.convert(edits.masks(pruned), mask_out, dry_run=True)
        planned = writing.plan(pruned, dst, **settings)
        told = writing.output_target(edits.masks(pruned), masks)._replace(name="the masks")
        targets.refuse_shared([writing.output_target(pruned, planned), told])
    if mask_out is None:
        record = writing.write(pruned, dst, "prune", **settings)
    else:
        record = _written_with_masks(pruned, dst, mask_out, settings)
    rows = record["transforms"][-1].get("tensors")
    record["sizes"] = edits.sizes(pruned, rows and {name: row["n_zero"] for name, row in rows.items()})
    writing.tell(record, "pruned", as_json)
    if not as_json and dst != "-":
        _report(record)


@contextmanager
def _looking(opened: TensorMap, how: Mapping[str, Any]) -> Iterator[Progress]:
    """Give a bar for what is read to plan: by magnitude or at random in up to four passes, by norm in one."""
    from weighttools.verbs import edits

    if how["sparsity"] is None or how["nm"] is not None:
        yield silent
        return
    passes = "norm" if how["structure"] else "random" if how["random"] else "magnitude"
    which = {key: how[key] for key in WHICH}
    with options.progress(edits.reading_bytes(opened, passes=passes, **which), "count") as moved:
        yield moved


def _check_mask(mask_out: str, dst: str, src: str, force: bool) -> None:
    from weighttools.cli import writing
    from weighttools.errors import SourceError, SpecError

    if mask_out == "-":
        raise SpecError("masks need a file of their own", subject="--mask-out", expected="a path other than -o")
    if os.path.splitext(mask_out)[1] and not os.path.isdir(mask_out):
        targets.check_suffix(mask_out, "masks are saved as a file, or in a directory without a suffix")
    target = targets.file("the masks", mask_out)
    targets.refuse_read([target], [src])
    targets.refuse_shared([targets.file("the output", dst), target])
    if os.path.lexists(mask_out) and not force:
        raise SourceError("exists already", subject=mask_out, remedy="give --force to replace it")
    writing.early(mask_out, force)


def _written_with_masks(pruned: TensorMap, dst: str, mask_out: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Write the output when the masks are written too and lack only their name: both appear, or none."""
    from weighttools.cli import writing
    from weighttools.io.placing import identities, withdraw
    from weighttools.verbs import edits

    plan = {"dry_run": settings["dry_run"], "force": settings["force"]}
    record: dict[str, Any] = {}
    placed: dict[Path, tuple[int, int]] = {}
    is_new = dst != "-" and not (settings["force"] and os.path.lexists(dst))

    def write_output() -> None:
        record.update(writing.write(pruned, dst, "prune", **settings))
        if is_new and not settings["dry_run"]:
            placed.update(identities(Path(os.path.realpath(dst))))

    if settings["dry_run"]:
        write_output()
    try:
        masks = writing.write(edits.masks(pruned), mask_out, "masks", **plan, last=write_output)
    except BaseException:
        withdraw(placed)
        raise
    return record | {"masks": masks["dst"]}


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

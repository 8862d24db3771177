"""``weighttools get``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options, output
from weighttools.errors import printable
from weighttools.verbs.get import OPTIONS


@click.command()
@click.argument("path", type=click.Path())
@click.argument("name", metavar="NAME[SLICE]", shell_complete=options.complete_names)
@click.option(
    "-o", "--output", "target", type=click.Path(), metavar="FILE", help="Save it instead: .npy, .npz or .safetensors."
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--json", "as_json", is_flag=True, help="Print every value as JSON; NaN and Inf become null.")
@options.declared(*OPTIONS)
def get(path: str, name: str, target: str | None, force: bool, as_json: bool, **reading: Any) -> None:
    """Print or save one tensor, or a slice of one, reading only the byte ranges that it needs.

    NAME may also be a small value beside the tensors of a PyTorch file, such as an epoch.
    SLICE is NumPy's: integers, start:stop:step and ... separated by commas. Quote it for the shell.

    \b
    Examples:
      weighttools get model.safetensors 'fc.weight[0, :8]'
      weighttools get model.safetensors fc.weight -o fc.npy
      weighttools get model.safetensors 'fc.bias[:4]' --json
    """
    from weighttools.verbs.get import is_value, pick, save_tensor
    from weighttools.verbs.open import open as open_checkpoint

    tensor_map = open_checkpoint(path, **reading)
    if target is not None:
        record = save_tensor(tensor_map, name, target, force=force)
        tensor = pick(tensor_map, name)
        output.echo(printable(f"wrote {target}: {tensor.dtype}, {output.shape(tensor.shape)}"))
        output.notes(record)
    elif is_value(tensor_map, name):
        _show_value(tensor_map.origin.values[name], name, as_json)
    else:
        _show(pick(tensor_map, name).read(), name, as_json)


def _show_value(value: Any, name: str, as_json: bool) -> None:
    """Print a small value that stands beside the tensors."""
    if as_json:
        from weighttools.formats.base import plain

        record = {"schema": "weighttools.get/1", "name": name, "dtype": type(value).__name__, "shape": []}
        output.echo(output.dump({**record, "values": plain(value)}))
    else:
        output.echo(printable(f"{name}: {value}"))


def _show(array: Any, name: str, as_json: bool) -> None:
    if as_json:
        from weighttools.cli.values import json_pieces

        for piece in json_pieces(name, array):
            click.echo(piece, nl=False)
        output.echo()
        return
    import numpy as np

    output.echo(printable(f"{name}: {array.dtype}, {output.shape(array.shape)}"))
    output.echo(np.array2string(array, threshold=1000, separator=", "))

"""``weighttools inspect``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from weighttools.cli import options, output
from weighttools.cli.output import Record
from weighttools.core.encodings import block_of
from weighttools.errors import printable
from weighttools.verbs.inspect import OPTIONS

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.core.tree import Line

_MOST_LINES = 12
"""Lines of one kind in the headline: of values, and of what a loader would call."""
_COLUMNS = ("name", "dtype", "shape", "n_elements", "stored_bytes", "encoding")


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@options.declared(*OPTIONS)
@click.option("--depth", type=click.IntRange(min=1), help="Open the module tree only this deep, and sum up the rest.")
@click.option("--flat", is_flag=True, help="List every tensor on a line of its own, nothing collapsed.")
@click.option("--offsets", is_flag=True, help="Show where each tensor lies in its file; implies --flat.")
@options.output_format
def inspect(
    paths: Sequence[str],
    layout: bool,
    sort: str | None,
    depth: int | None,
    flat: bool,
    offsets: bool,
    style: str,
    as_json: bool,
    **opening: Any,
) -> None:
    """Say what a checkpoint is and what is in it, from its headers alone.

    PATH is a weight file, a directory of shards, an index file, org/model in the local Hugging Face cache, or -
    for standard input. Repeated layers are shown once, as in layers.[0-31].

    \b
    Examples:
      weighttools inspect model.safetensors
      weighttools inspect checkpoint/ --depth 2
      weighttools inspect model.safetensors -i '*.bias' --sort size
      weighttools inspect model.safetensors --layout
      weighttools inspect model.safetensors --json | jq .n_parameters
    """
    from weighttools.verbs.inspect import inspect as verb
    from weighttools.verbs.open import open as open_checkpoint

    chosen = "json" if as_json else style
    if layout and chosen not in ("table", "json"):
        raise click.UsageError(f"--layout is shown with --format table or json, not {chosen}")
    listed = flat or bool(sort) or offsets or chosen != "table"
    maps = [open_checkpoint(path, **opening) for path in paths]
    records: list[Record] = [
        {**verb(m, layout=layout, sort=sort, tensors=listed), "path": path} for m, path in zip(maps, paths, strict=True)
    ]
    if chosen == "json":
        output.emit_json(records)
    elif chosen != "table":
        _rows(records, chosen, offsets)
    else:
        for i, (record, tensor_map) in enumerate(zip(records, maps, strict=True)):
            _table(record, _flat(record["tensors"], offsets) if listed else _tree(tensor_map, depth), first=not i)


def _rows(records: Iterable[Record], chosen: str, offsets: bool) -> None:
    rows = [{"path": record["path"], **row} for record in records for row in record["tensors"]]
    output.emit_rows(rows, ("path", *_COLUMNS, *(("file", "offset") if offsets else ())), chosen)
    for record in records:
        output.notes(record)


def _table(record: Record, lines: list[str], first: bool) -> None:
    output.echo(("" if first else "\n") + _headline(record) + "\n")
    output.echo("\n".join(lines))
    if "layout" in record:
        from weighttools.cli.layout import show

        show(record["layout"])
    output.notes(record)


def _headline(record: Record) -> str:
    """Say what it is, how much of it there is, of which dtypes, and what it says of itself."""
    evidence = f" ({'; '.join(record['evidence'])})" if record["evidence"] else ""
    rows = [
        ("file", record["path"]),
        ("format", record["format"]),
        ("kind", record["kind"] + evidence),
        ("size", output.size(record["stored_bytes"])),
        ("tensors", f"{record['n_tensors']:,}"),
        ("parameters", output.both_counts(record["n_parameters"])),
    ]
    if record["n_buffers"]:
        rows.append(("buffers", output.counted(record["n_buffers"], "element")))
    if record["n_state"]:
        rows.append(("training state", output.counted(record["n_state"], "element")))
    rows += [("dtype", _dtype_line(name, part)) for name, part in record["dtypes"].items()]
    if masked := record.get("bitmasks"):
        sizes = f"{output.short_size(masked['stored_bytes'])} for {output.short_size(masked['raw_bytes'])}"
        tensors = output.counted(masked["n_tensors"], "tensor")
        rows.append(("stored", f"{tensors} as bitmasks and values that are not 0: {sizes}"))
    rows += [("metadata", line) for line in _metadata(record)]
    rows += [("tied", f"{alias} = {kept}") for alias, kept in record["aliases"].items()]
    rows += [("values", text) for text in _shortened(_values(record["values"]))]
    rows += [("unpickling", text) for text in _shortened([_call(entry) for entry in record["foreign_globals"]])]
    labels = [label if i == 0 or rows[i - 1][0] != label else "" for i, (label, _) in enumerate(rows)]
    return "\n".join(f"{label:<10}  {printable(text)}" for label, (_, text) in zip(labels, rows, strict=True))


def _metadata(record: Record) -> Iterator[str]:
    """Yield the lines of the metadata; a text that is JSON as what it means, indented."""
    known = record.get("expanded", {})
    for key, value in record["metadata"].items():
        if key in known:
            yield f"{key}:"
            yield from _shortened([f"  {_clipped(line)}" for line in _nested(known[key])])
        else:
            yield f"{key}: {_clipped(str(value))}"


def _nested(value: Any, indent: str = "") -> Iterator[str]:
    """Yield the lines of an object or array: an entry each, what lies within it below, indented."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in entries:
        if isinstance(part, (dict, list)) and part and not _is_plain_list(part):
            yield f"{indent}{key}:"
            yield from _nested(part, indent + "  ")
        else:
            yield f"{indent}{key}: {part if isinstance(part, str) else output.short_json(part)}"


def _is_plain_list(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(part, (dict, list)) for part in value)


def _values(found: Record) -> list[str]:
    """Say what stands beside the tensors, the outermost first: epochs before each group's rate."""
    outermost = sorted(found.items(), key=lambda item: item[0].count("."))
    return [f"{name}: {_clipped(str(value))}" for name, value in outermost]


def _call(entry: Record) -> str:
    """Say what a loader would do with a global that is no part of tensors and plain containers."""
    if not entry["n_calls"]:
        return f"would import {entry['name']}"
    return f"would call {entry['name']} ({output.counted(entry['n_calls'], 'time')})"


def _shortened(lines: list[str]) -> list[str]:
    more = [f"… and {len(lines) - _MOST_LINES:,} more"] if len(lines) > _MOST_LINES else []
    return lines[:_MOST_LINES] + more


def _dtype_line(name: str, part: Record) -> str:
    tensors, elements = output.counted(part["n_tensors"], "tensor"), output.counted(part["n_elements"], "element")
    return f"{name}: {tensors}, {elements}, {output.short_size(part['stored_bytes'])}"


def _clipped(text: str, most: int = 100) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _flat(rows: Iterable[Record], offsets: bool) -> list[str]:
    head = ["tensor", "dtype", "shape", "elements", "size"] + (["offset", "file"] if offsets else [])
    return output.table(head, (_flat_cells(row, offsets) for row in rows), "   rr" + "r" * offsets)


def _flat_cells(row: Record, offsets: bool) -> list[str]:
    cells = [
        row["name"],
        row["encoding"] if block_of(row["encoding"]) else row["dtype"],
        output.shape(row["shape"]),
        f"{row['n_elements']:,}",
        output.short_size(row["stored_bytes"]),
    ]
    return cells + ([f"{row['offset']:,}", row["file"]] if offsets and row["file"] else [""] * (2 * offsets))


def _tree(tensor_map: TensorMap, depth: int | None) -> list[str]:
    from weighttools.core.tree import outline

    cells = (_tree_cells(line) for line in outline(tensor_map, depth))
    return output.table(["module", "dtype", "shape", "elements", "size"], cells, "   rr")


def _tree_cells(line: Line) -> list[str]:
    label = "  " * line.depth + line.label + (f"  (x{line.copies})" if line.copies > 1 else "")
    sums = [f"{line.n_elements:,}", output.short_size(line.stored_bytes)]
    if line.spec is None:
        return [label, "", output.counted(line.n_tensors, "tensor"), *sums]
    return [label, line.spec.label, output.shape(line.spec.shape), *sums]

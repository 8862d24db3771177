"""What ``inspect --layout`` prints below the tensors: shares, the byte map, first values, hexadecimal dumps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from weighttools.cli import output
from weighttools.cli.output import Record
from weighttools.errors import printable

MOST_ROWS = 20
"""Rows of a table of pieces, shares or values; JSON has more."""
_ROW_BYTES = 16


def show(layout: Record) -> None:
    """Print the layout of each file, and the first values."""
    for found in layout["files"]:
        output.echo("\n" + "\n".join(_file(found)))
    if layout["first_values"]:
        output.echo("\n" + "\n".join(_first_values(layout["first_values"])))
    output.notes(layout)


def _file(found: Record) -> Iterator[str]:
    size = found["n_bytes"]
    yield f"{printable(found['path'])}: {size:,} bytes"
    yield ""
    yield from _shares("bytes", "pieces", found["parts"], size)
    for title in ("dtypes", "roles", "modules"):
        if found[title]:
            yield ""
            yield from _shares(title.removesuffix("s"), "tensors", found[title], size)
    yield ""
    rows = ([p["what"], f"{p['offset']:,}", f"{p['n_bytes']:,}"] for p in found["pieces"][:MOST_ROWS])
    yield from output.table(["in order", "offset", "bytes"], rows, " rr")
    yield from _more(found["n_pieces"], "pieces")
    yield from _oddities(found)
    yield ""
    yield from _dump("head", 0, bytes.fromhex(found["head"]))
    if found["tail_offset"]:
        yield from _dump("tail", found["tail_offset"], bytes.fromhex(found["tail"]))


def _shares(title: str, of: str, rows: Sequence[Record], size: int) -> Iterator[str]:
    cells = ([r["what"], f"{r['n']:,}", f"{r['n_bytes']:,}", _share(r["n_bytes"], size)] for r in rows[:MOST_ROWS])
    yield from output.table([title, of, "bytes", "of the file"], cells, " rrr")
    yield from _more(len(rows), "rows")


def _share(n_bytes: int, size: int) -> str:
    return f"{100 * n_bytes / size:.2f} %" if size else ""


def _more(n: int, what: str) -> Iterator[str]:
    if n > MOST_ROWS:
        yield f"… and {n - MOST_ROWS:,} more {what}"


def _oddities(found: Record) -> Iterator[str]:
    """Name gaps, and bytes that two tensors share."""
    for gap in found["gaps"][:MOST_ROWS]:
        yield f"gap: {output.counted(gap['n_bytes'], 'byte')} at {gap['offset']:,} belong to nothing"
    yield from _more(found["n_gaps"], "gaps")
    for one in found["overlaps"][:MOST_ROWS]:
        both = " and ".join(map(printable, one["tensors"]))
        yield f"overlap: {output.counted(one['n_bytes'], 'byte')} at {one['offset']:,} belong to {both}"
    yield from _more(found["n_overlaps"], "overlaps")


def _dump(title: str, offset: int, data: bytes) -> Iterator[str]:
    """Yield the lines of a hexadecimal dump; what is no printable ASCII is a dot."""
    for at in range(0, len(data), _ROW_BYTES):
        row = data[at : at + _ROW_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{title if not at else '':<4}  {offset + at:>12,}  {row.hex(' '):<{3 * _ROW_BYTES - 1}}  {text}"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _first_values(values: dict[str, Any]) -> Iterable[str]:
    rows = list(values.items())[:MOST_ROWS]
    cells = ([name, "not read" if found is None else ", ".join(map(_number, found))] for name, found in rows)
    return [*output.table(["tensor", "first values"], cells), *_more(len(values), "tensors")]

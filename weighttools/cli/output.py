"""Records to text: aligned tables, JSON, JSON lines, CSV, Markdown. Data goes to stdout, words to stderr."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from weighttools.errors import brief, printable
from weighttools.errors import counted as counted

Record = Mapping[str, Any]
WIDEST = 200
"""The widest cell that a column is aligned to: a file may hold 10,000 names, and one of them of a megabyte."""


def echo(text: str = "") -> None:
    """Print a line on stdout."""
    click.echo(text)


def lines(texts: Iterable[str]) -> None:
    """Print lines on stdout, each as it is made; what could steer a terminal is shown escaped."""
    for text in texts:
        echo(printable(text))


def piece(text: str) -> None:
    """Print a piece of a running text on stdout at once; control characters, which could steer a terminal, are not."""
    plain = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(plain.encode(encoding, "replace").decode(encoding), nl=False)
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a line on stderr."""
    click.echo(f"weighttools: note: {printable(brief(text))}", err=True)


def failure(text: str) -> None:
    """Print on stderr what one of several things failed by, as the line of an error that ends a command."""
    click.echo(f"weighttools: {printable(text)}", err=True)


def notes(record: Record) -> None:
    """Print a record's notes on stderr."""
    for text in record.get("notes", ()):
        note(text)


def dump(value: Any) -> str:
    """Return JSON that any reader takes: no bare NaN or Infinity, and text that survives any terminal's encoding."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=True)


def short_json(value: Any) -> str:
    """Return a value as JSON in one line, its letters as they are.

    >>> short_json([1, None, "é"])
    '[1, null, "é"]'
    """
    return json.dumps(value, ensure_ascii=False)


def emit_json(records: Sequence[Record]) -> None:
    """Print one object for one record, an array for several."""
    echo(dump(records[0] if len(records) == 1 else list(records)))


def as_json(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures as JSON can hold them: NaN and infinity are null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}


def flat(row: Record) -> Record:
    """Return a row with lists and objects as texts: what a cell of CSV or Markdown holds."""
    return {key: str(value) if isinstance(value, (list, dict)) else value for key, value in row.items()}


def emit_rows(rows: Iterable[Record], columns: Sequence[str], output: str) -> None:
    """Print flat rows as ``jsonl``, ``csv`` or ``markdown``."""
    if output == "jsonl":
        for row in rows:
            echo(json.dumps(row, allow_nan=False))
    elif output == "csv":
        _csv(rows, columns)
    else:
        _markdown(rows, columns)


def _csv(rows: Iterable[Record], columns: Sequence[str]) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_inert(row[column]) for column in columns])


def _markdown(rows: Iterable[Record], columns: Sequence[str]) -> None:
    from tabulate import tabulate

    cells = [[_text(printable(_plain(row[c]))) for c in columns] for row in rows]
    is_narrow = all(len(cell) <= WIDEST for row in cells for cell in row)
    aligned = "left" if is_narrow else None  # None is not at all
    echo(tabulate(cells, headers=list(columns), tablefmt="github", disable_numparse=True, stralign=aligned))


_MARKDOWN = re.compile(r"\\(?=[!-/:-@\[-`{-~])|[|`*\]~&<>:@]|www(?=\.)", re.IGNORECASE)
"""What would make a cell of Markdown more than text: marks, HTML, links, and what GitHub turns into links by itself."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes a text that begins with for a formula, in full width too."""
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")


def _text(cell: str) -> str:
    """Return a cell of Markdown that shows just this text."""

    def escaped(found: re.Match[str]) -> str:
        mark = found[0]
        return f"\\{mark}" if mark in "\\|`*]~" else f"{mark[:-1]}&#{ord(mark[-1])};"

    return _MARKDOWN.sub(escaped, cell)


def _inert(value: Any) -> str:
    """Return a cell of CSV that no spreadsheet computes: an apostrophe goes before what begins like a formula."""
    text = _plain(value)
    is_formula = isinstance(value, str) and text.startswith(_FORMULA) and not _NUMBER.fullmatch(text)
    return ("'" if is_formula else "") + printable(text)


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "x".join(map(str, value)) if value else "scalar"
    return "" if value is None else str(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> list[str]:
    """Return the lines of an aligned table; `right` has an ``r`` for each column to align right.

    A cell wider than `WIDEST` sticks out. Written here because it is asked of every ``inspect``, where importing a
    library takes longer than the work.
    """
    cells = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(min(len(cell), WIDEST) for cell in column) for column in zip(*cells, strict=True)]
    aligned = [
        "  ".join(
            c.rjust(w) if side == "r" else c.ljust(w)
            for c, w, side in zip(row, widths, right.ljust(len(head)), strict=True)
        )
        for row in cells
    ]
    return [line.rstrip() for line in [aligned[0], "  ".join("─" * w for w in widths), *aligned[1:]]]


def figures(found: Record, heading: str = "value") -> None:
    """Print named figures as a table; `heading` is that of their values."""
    echo("\n".join(table(["figure", heading], [[name, f"{value:.4g}"] for name, value in found.items()], " r")))


def size(n_bytes: int) -> str:
    """Return a size in decimal and binary units.

    >>> size(4_980_000_000)
    '4.98 GB (4.64 GiB)'
    """
    if n_bytes < 1000:
        return f"{n_bytes} B"
    return f"{_scaled(n_bytes, 1000, _DECIMAL)} ({_scaled(n_bytes, 1024, _BINARY)})"


def short_size(n_bytes: int) -> str:
    """Return a size in decimal units.

    >>> short_size(46_882_000)
    '46.9 MB'
    """
    return f"{n_bytes} B" if n_bytes < 1000 else _scaled(n_bytes, 1000, _DECIMAL)


def count(n: int) -> str:
    """Return a count as people say it.

    >>> count(7_620_000_000), count(999)
    ('7.62B', '999')
    """
    return str(n) if n < 1000 else _scaled(n, 1000, ["", "K", "M", "B", "T", "Q"]).replace(" ", "")


def both_counts(n: int) -> str:
    """Return a count as people say it, and exactly.

    >>> both_counts(22_713_216), both_counts(15)
    ('22.7M (22,713,216)', '15')
    """
    return f"{count(n)} ({n:,})" if n >= 1000 else str(n)


_DECIMAL = ["B", "kB", "MB", "GB", "TB", "PB"]
_BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]


def _scaled(n: int, base: int, units: Sequence[str]) -> str:
    power = 0
    while power < len(units) - 1 and round(n / base**power, 2) >= base:
        power += 1
    value = n / base**power
    return f"{value:.3g} {units[power]}" if value < 100 else f"{value:.0f} {units[power]}"


MOST_AXES = 64
"""Axes that a shape is shown with, as many as NumPy's arrays have."""


def shape(lengths: Sequence[int]) -> str:
    """Return a shape as text.

    >>> shape([30522, 384]), shape([])
    ('30522 × 384', 'scalar')
    >>> shape([1] * 400_000)
    '1 × 1 × 1 × 1 × 1 × 1 × 1 × 1 × … (400,000 axes)'
    """
    if len(lengths) > MOST_AXES:
        return f"{' × '.join(map(str, lengths[:8]))} × … ({len(lengths):,} axes)"
    return " × ".join(map(str, lengths)) if lengths else "scalar"

"""What a notebook shows: maps as module trees that fold, tensors and records as tables; text escaped, all bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from weighttools.core.dtypes import DTYPES
from weighttools.core.spec import Spec
from weighttools.core.tree import Line, NamedSpecs, outline
from weighttools.errors import brief, printable

if TYPE_CHECKING:
    from weighttools.core.tensor import Tensor
    from weighttools.core.tensormap import TensorMap

MOST_LINES = 400
"""Lines of a tree that are shown: a browser that is given a million stands still."""
MOST_ROWS = 60
"""Rows of a list, and entries of a mapping, that are shown."""
MOST_TEXT = 300
"""Characters of a name or a value that are shown."""
MOST_LEVELS = 6
"""How deep a record is shown."""

_LEFT = "style='text-align:left'"


def map_html(tensor_map: TensorMap, headline: str) -> str:
    """Return a map for a notebook: its headline, its module tree with repeated layers collapsed, its metadata."""
    ties = {alias: f"= {kept}" for alias, kept in tensor_map.aliases.items()}
    below = [_folded("metadata", tensor_map.metadata), _folded("tied", ties), _folded("notes", tensor_map.origin.notes)]
    return f"<div><p>{_text(headline)}</p>{_tree(tensor_map)}{''.join(below)}</div>"


def tensor_html(tensor: Tensor) -> str:
    """Return a tensor for a notebook: what `repr` says, a row each."""
    rows = [(label or ("dtype" if not i else "size"), text) for i, (label, text) in enumerate(tensor.described())]
    return f"<table>{''.join(_row(row, 'td') for row in rows)}</table>"


def record_html(record: Mapping[str, Any]) -> str:
    """Return a verb's record for a notebook: its entries, lists of rows as tables, lists of tensors as a tree."""
    return f"<div>{_mapping(record, MOST_LEVELS)}</div>"


def _text(value: object) -> str:
    return escape(brief(printable(str(value)), MOST_TEXT))


def _row(cells: Iterable[object], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag} {_LEFT}>{_text(cell)}</{tag}>' for cell in cells)}</tr>"


def _more(n: int) -> str:
    return f"<p>… and {n:,} more</p>" if n > 0 else ""


def _folded(title: str, value: object) -> str:
    """Return a mapping or list that opens when its title is clicked; nothing for an empty one."""
    if not value:
        return ""
    n = len(value) if isinstance(value, (Mapping, Sequence)) else 1
    return f"<details><summary>{_text(title)} ({n:,})</summary>{_value(value, MOST_LEVELS)}</details>"


def _tree(listing: NamedSpecs) -> str:
    """Return the module tree: modules fold, and stand closed; no more than `MOST_LINES` lines of it."""
    lines = outline(listing)
    parts = ["<div style='font-family:monospace'>"]
    open_at: list[int] = []
    for line in lines[:MOST_LINES]:
        while open_at and line.depth <= open_at[-1]:
            open_at.pop()
            parts.append("</div></details>")
        parts.append(_tree_line(line))
        if line.spec is None:
            open_at.append(line.depth)
    parts += ["</div></details>"] * len(open_at)
    return "".join([*parts, _more(len(lines) - MOST_LINES), "</div>"])


def _tree_line(line: Line) -> str:
    """Return a tensor's line; or the beginning of a module's, which its content and its end must follow."""
    size = f"{line.n_elements:,} elements, {line.stored_bytes:,} bytes"
    if line.spec is not None:
        sides = " × ".join(map(str, line.spec.shape[:8])) + (" × …" if len(line.spec.shape) > 8 else "") or "scalar"
        return f"<div>{_text(line.label)}: {_text(line.spec.label)} {sides}, {size}</div>"
    times = f" (×{line.copies:,})" if line.copies > 1 else ""
    summary = f"<b>{_text(line.label)}</b>{times}: {line.n_tensors:,} tensors, {size}"
    return f"<details><summary>{summary}</summary><div style='margin-left:1.5em'>"


class _Rows:
    """The rows of a record's tensors, as an outline takes them."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = rows
        self._specs = [Spec(DTYPES[row["dtype"]], tuple(row["shape"]), row["encoding"]) for row in rows]

    def __iter__(self) -> Iterator[str]:
        return (row["name"] for row in self._rows)

    def specs(self) -> list[Spec]:
        return self._specs

    def sizes(self) -> list[int]:
        return [row["stored_bytes"] for row in self._rows]


_TENSOR_KEYS = {"name", "dtype", "shape", "encoding", "stored_bytes"}
"""The keys of rows that are shown as a module tree: `inspect`'s."""


def _value(value: object, levels: int) -> str:
    if isinstance(value, Mapping):
        return _mapping(value, levels - 1) if levels else "…"
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return _list(value, levels - 1) if levels else "…"
    return _text(value)


def _mapping(value: Mapping[Any, Any], levels: int) -> str:
    shown = list(value.items())[:MOST_ROWS]
    rows = (f"<tr><th {_LEFT}>{_text(key)}</th><td>{_entry(part, levels)}</td></tr>" for key, part in shown)
    return f"<table>{''.join(rows)}</table>{_more(len(value) - len(shown))}"


def _entry(value: object, levels: int) -> str:
    """Return a value of a mapping; where it holds several, folded."""
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, (str, bytes)) and value:
        return f"<details><summary>{len(value):,}</summary>{_value(value, levels)}</details>"
    return _value(value, levels)


def _list(rows: Sequence[Any], levels: int) -> str:
    if rows and isinstance(rows[0], Mapping):
        return _tree(_Rows(rows)) if rows[0].keys() >= _TENSOR_KEYS else _table(rows, levels)
    shown = rows[:MOST_ROWS]
    return "".join(f"<div>{_value(row, levels)}</div>" for row in shown) + _more(len(rows) - len(shown))


def _table(rows: Sequence[Mapping[str, Any]], levels: int) -> str:
    shown = rows[:MOST_ROWS]
    columns = list(dict.fromkeys(key for row in shown for key in row))[:MOST_ROWS]
    body = (f"<tr>{''.join(f'<td>{_entry(row.get(c), levels)}</td>' for c in columns)}</tr>" for row in shown)
    return f"<table>{_row(columns, 'th')}{''.join(body)}</table>{_more(len(rows) - len(shown))}"

"""``weighttools diff``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from weighttools.cli import options, output
from weighttools.cli.output import Record
from weighttools.verbs.diff import OPTIONS

_MOST = 50
"""Lines of a section in a table; the rest are counted."""
_TENSOR = ("name", "dtype", "shape", "share", "max_abs", "max_at", "rel_l2", "cosine")
_GROUP = ("group", "n_tensors", "n_tensors_changed", "share", "max_abs", "rel_l2")
_HEADS = {
    "share": "changed", "max_abs": "max abs", "max_at": "at", "rel_l2": "rel. L2", "n_tensors": "tensors",
    "n_not_finite": "NaN, Inf", "n_tensors_changed": "of them changed",
}  # fmt: skip


@click.command()
@click.argument("before", metavar="A", type=click.Path())
@click.argument("after", metavar="B", type=click.Path())
@options.declared(*OPTIONS)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; the exit code tells.")
@options.output_format
def diff(before: str, after: str, quiet: bool, style: str, as_json: bool, **settings: Any) -> None:
    """Say what differs between two checkpoints, A the old and B the new, in any formats, layouts and shardings.

    Names, shapes, dtypes, metadata and every value are compared; NaN equals NaN. "changed" is the part of a tensor's
    elements whose values differ, "rel. L2" the norm of the difference by the old tensor's. The exit code is 0 if
    nothing differs, 1 if something does, 2 if a checkpoint could not be read.

    \b
    Examples:
      weighttools diff base.safetensors tuned.safetensors
      weighttools diff checkpoint/ model.gguf --rtol 1e-2
      weighttools diff old/ new/ --by module --sort rel_l2 --top 10
      weighttools diff a.pt b.safetensors --map 'module.*=*' -q && echo same
      weighttools diff base.safetensors average.safetensors --and tuned.safetensors
    """
    from weighttools.verbs.diff import diff as verb

    settings["explain"] = settings["explain"] and not quiet
    with options.late_progress("diff") as (planned, done):
        record: Record = verb(before, after, **settings, planned=planned, progress=done)
    if not quiet:
        _show(record, "json" if as_json else style)
    click.get_current_context().exit(0 if record["same"] else 1)


def _show(record: Record, chosen: str) -> None:
    if chosen == "json":
        output.emit_json([record])
        return
    if chosen == "table":
        output.lines(table_lines(record))
    else:
        output.emit_rows([output.flat(row) for row in _rows(record)], _columns(record), chosen)
        for text in _beyond_rows(record):
            output.note(text)
    output.notes(record)


def _beyond_rows(record: Record) -> list[str]:
    """Say what differs that rows of changed tensors do not tell."""
    keys = ("added", "removed", "renamed", "reshaped", "recast", "metadata", "explanation")
    told = [f"{len(record[key]):,} {key}" for key in keys if record[key]]
    told += [f"{output.counted(len(ties), 'tie')} {what}" for what, ties in record["ties"].items() if ties]
    return [f"the rows tell how values changed; --json has {', '.join(told)} as well"] if told else []


def _columns(record: Record) -> Sequence[str]:
    from weighttools.analyzers.compare.rows import GROUP_COLUMNS, TENSOR_COLUMNS

    return TENSOR_COLUMNS if record["by"] == "tensor" else GROUP_COLUMNS


def _rows(record: Record) -> Sequence[Record]:
    found: Sequence[Record] = record["changed"] if record["by"] == "tensor" else record["groups"]
    return found


def table_lines(record: Record) -> list[str]:
    """Return a record of differences as lines to read; names in them may hold anything."""
    sections = [
        _named("added", [f"+ {_spec(row)}" for row in record["added"]]),
        _named("removed", [f"- {_spec(row)}" for row in record["removed"]]),
        _named("renamed", _renamed(record["renamed"])),
        _named("reshaped", [f"{row['dst']}: {_shapes(row)}" for row in record["reshaped"]]),
        _recast(record["recast"]),
        _ties(record["ties"]),
        _changed(record, _rows(record)),
        _named("metadata", [_entry(row) for row in record["metadata"]]),
        _named("explanation", [row["text"] for row in record["explanation"]]),
    ]
    lines = [_headline(record)]
    for section in filter(None, sections):
        lines += ["", *section]
    return lines


def _headline(record: Record) -> str:
    if record["same"] and not (record["n_changed"] or record["recast"] or record["metadata"]):
        return f"same: {output.counted(record['n_unchanged'], 'tensor')}"
    n, total = record["n_unchanged"] + record["n_changed"], record["total"]
    changed = f"{record['n_changed']:,} of {output.counted(n, 'tensor')} changed"
    elements = f"{total['n_changed']:,} of {output.counted(total['n_elements'], 'element')}"
    more = [f"{len(record[key]):,} {key}" for key in ("added", "removed", "renamed", "reshaped") if record[key]]
    more += [f"{output.counted(len(ties), 'tie')} {what}" for what, ties in record["ties"].items() if ties]
    verdict = "no difference that counts: " if record["same"] else ""
    return verdict + ", ".join([f"{changed} ({elements})", *more])


def _named(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    rest = [f"  … and {len(lines) - _MOST:,} more"] if len(lines) > _MOST else []
    return [f"{title}:", *(f"  {line}" for line in lines[:_MOST]), *rest]


def _renamed(rows: Sequence[Record]) -> list[str]:
    """Return a line for each renaming; several that differ by the same beginning are one."""
    kinds: dict[tuple[str, str, str], list[Record]] = {}
    for row in rows:
        old, new = _beginnings(row["src"], row["dst"])
        kinds.setdefault((old, new, row["how"]), []).append(row)
    return [
        f"{rows[0]['src']} -> {rows[0]['dst']}  ({how})"
        if len(rows) == 1
        else f"{old}* -> {new}*  ({how}, {output.counted(len(rows), 'tensor')})"
        for (old, new, how), rows in kinds.items()
    ]


def _beginnings(old: str, new: str) -> tuple[str, str]:
    """Return two names without the last parts that both have.

    >>> _beginnings("bert.layer.0.weight", "layer.0.weight"), _beginnings("a", "b")
    (('bert.', ''), ('a', 'b'))
    """
    one, two = old.split("."), new.split(".")
    n = 0
    while n < min(len(one), len(two)) and one[-1 - n] == two[-1 - n]:
        n += 1
    if not n:
        return old, new
    before, after = ("".join(f"{part}." for part in parts[: len(parts) - n]) for parts in (one, two))
    return before, after


def _spec(row: Record) -> str:
    return f"{row['name']}  {row['dtype']}  {output.shape(row['shape'])}"


def _shapes(row: Record) -> str:
    return f"{output.shape(row['before'])} -> {output.shape(row['after'])}"


def _recast(rows: Sequence[Record]) -> list[str]:
    """Return which dtypes became which, counted."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        kinds.setdefault((row["before"], row["after"]), []).append(row["dst"])
    told = [
        f"{old} -> {new}: {names[0] if len(names) == 1 else output.counted(len(names), 'tensor')}"
        for (old, new), names in kinds.items()
    ]
    return _named("dtype", told)


def _ties(ties: Record) -> list[str]:
    told = [f"+ {alias} = {kept}" for alias, kept in ties["added"].items()]
    return _named("ties", told + [f"- {alias} = {kept}" for alias, kept in ties["removed"].items()])


def _changed(record: Record, rows: Sequence[Record]) -> list[str]:
    if not record["n_changed"]:
        return []
    columns = _TENSOR if record["by"] == "tensor" else _GROUP
    if any(row.get("n_not_finite") for row in rows):
        columns = (*columns, "n_not_finite")
    lines = [[_cell(row, column) for column in columns] for row in rows]
    right = "".join(" " if column in ("name", "group", "dtype", "shape", "max_at") else "r" for column in columns)
    table = output.table([_HEADS.get(column, column) for column in columns], lines, right) if lines else []
    hidden = record["n_changed"] - len(rows) if record["by"] == "tensor" else 0
    return [*table, f"… and {output.counted(hidden, 'changed tensor')} not shown"] if hidden else table


def _cell(row: Record, column: str) -> str:
    value = row[column]
    if column == "share":
        return "bits only" if row.get("what") == "bits" else _percent(value)
    if value is None:
        return "not finite" if column == "max_abs" and row["n_not_finite"] else ""
    if column == "shape":
        return output.shape(value)
    if column == "max_at":
        return str(value)
    if column == "cosine":
        return f"{value:.6f}"
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _percent(share: float | None) -> str:
    """Return a part as percents that are 0 or 100 only where it is so."""
    if not share:
        return "0%"
    text = f"{share:.2%}"
    return "<0.01%" if text == "0.00%" else ">99.99%" if text == "100.00%" and share < 1 else text


def _entry(row: Record) -> str:
    """Return a line of the patch of metadata."""
    if row["op"] == "~":
        return f"~ {row['key']}: {_value(row['before'])} -> {_value(row['after'])}"
    return f"{row['op']} {row['key']}: {_value(row['after' if row['op'] == '+' else 'before'])}"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else output.dump(value)
    return text if len(text) <= 60 else f"{text[:59]}…"

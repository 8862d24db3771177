"""What the commands that write share: a write with a bar; and telling what was written and changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from weighttools.cli import options, output
from weighttools.core.tensormap import TensorMap
from weighttools.errors import brief, printable
from weighttools.io.progress import Progress, silent


def write(tensor_map: TensorMap, dst: str, label: str, *, dry_run: bool, **settings: Any) -> dict[str, Any]:
    """Write a map as `weighttools.save` does, with a bar, and return its record."""
    from weighttools.verbs.save import save

    with bar(label, dry_run) as (planned, moved):
        return save(dst, tensor_map, dry_run=dry_run, **settings, planned=planned, progress=moved)


@contextmanager
def bar(label: str, dry_run: bool) -> Iterator[tuple[Progress, Progress]]:
    """Give `planned` and `progress` of a verb that writes; in a dry run they draw nothing."""
    if dry_run:
        yield silent, silent
        return
    with options.late_progress(label) as found:
        yield found


def report(record: Mapping[str, Any]) -> None:
    """Print what was written, and where."""
    verb = "wrote" if record["written"] else "would write"
    changes = [(record[f"n_{how}"], how) for how in ("cast", "dequantized", "quantized")]
    tensors = f"{record['n_tensors']:,} tensors" + "".join(f", {n:,} {how}" for n, how in changes if n)
    output.echo(
        printable(f"{verb} {record['dst']}: {record['format']}, {tensors}, {output.size(record['stored_bytes'])}")
    )
    if len(record["files"]) > 1 or not record["written"]:
        for file in record["files"]:
            size = output.short_size(file["stored_bytes"])
            output.echo(printable(f"  {file['name']}: {file['n_tensors']:,} tensors, {size}"))
    if record["replaced"]:
        output.echo(
            printable(brief(f"  {'replaced' if record['written'] else 'replaces'}: {', '.join(record['replaced'])}"))
        )
    if not record["written"]:
        output.echo(f"planned peak memory for values: {output.size(record['planned_peak_bytes'])}")


def edited(changed: TensorMap, dst: str, did: str, as_json: bool, **settings: Any) -> None:
    """Write a changed map, and print what was done to it.

    Parameters
    ----------
    changed
        A map with a report.
    dst
        The target.
    did
        What was done, e.g. ``"decayed"``.
    as_json
        Print the record, not lines.
    settings
        As `write` takes them.
    """
    record = write(changed, dst, changed.report["transform"], **settings)
    tell(record, did, as_json)


def tell(record: dict[str, Any], did: str, as_json: bool) -> None:
    """Print the record of a write of a changed map: as JSON, or what was changed and what was left alone."""
    done = record["transforms"][-1]
    if as_json:
        output.emit_json([{**record, "schema": f"weighttools.{done['transform']}/1"}])
    elif record["dst"] != "-":
        verb = did if record["written"] else f"would have {did}"
        output.echo(f"{verb} {done['n_changed']:,} of {output.counted(record['n_tensors'], 'tensor')}")
        for rule, n in done.get("left_alone", {}).items():
            output.echo(f"  left alone: {n:,} {rule}")
        report(record)
    output.notes({"notes": [*record["notes"], *not_finite(done)]})


def restructured(
    changed: TensorMap,
    dst: str,
    lines: Callable[[Mapping[str, Any], bool], Iterable[str]],
    as_json: bool,
    **settings: Any,
) -> None:
    """Write a map whose structure was edited, and print what was done.

    Parameters
    ----------
    changed
        A map with a report of `weighttools.transforms.restructuring`.
    dst
        The target.
    lines
        What to print of that report, given whether it is done already.
    as_json
        Print the record, not lines.
    settings
        As `write` takes them.
    """
    record = write(changed, dst, changed.report["transform"], **settings)
    done = record["transforms"][-1]
    if as_json:
        output.emit_json([{**record, "schema": f"weighttools.{done['transform']}/1"}])
    elif record["dst"] != "-":
        output.lines(lines(done, record["written"]))
        report(record)
    output.notes(record)


def not_finite(done: Mapping[str, Any]) -> list[str]:
    """Return a note if changed tensors hold NaN or Inf: how many elements, in how many tensors, and where first."""
    n_nan, n_inf = done.get("n_nan", 0), done.get("n_inf", 0)
    if not n_nan + n_inf:
        return []
    where = [name for name, row in done["tensors"].items() if row["n_nan"] + row["n_inf"]]
    elements = output.counted(n_nan + n_inf, "element")
    counts = f"{elements} in {output.counted(len(where), 'changed tensor')} ({n_nan:,} NaN, {n_inf:,} Inf)"
    return [f"not finite: {counts}, first in {where[0]}"]

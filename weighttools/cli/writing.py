"""What the commands that write share: plan, then write with a bar; and telling what was written and changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from weighttools.cli import options, output
from weighttools.cli.targets import Target
from weighttools.core.tensormap import TensorMap
from weighttools.errors import brief, printable


def write(
    tensor_map: TensorMap, dst: str, label: str, last: Callable[[], object] | None = None, **settings: Any
) -> dict[str, Any]:
    """Plan a write, do it unless ``dry_run`` is set, and return the record of `weighttools.convert`.

    Before what is written gets its name, `last` is called (of `conversion.write`; it takes fewer settings).
    """
    from weighttools.verbs import api
    from weighttools.write import writing as conversion

    if settings["dry_run"]:
        return api.convert(tensor_map, dst, **settings)
    planned = plan(tensor_map, dst, **settings)
    n_passes = 1 + bool(settings.get("store")) + bool(settings.get("verify"))
    with options.progress(n_passes * planned["stored_bytes"], label) as moved:
        if last is not None:
            return conversion.write(tensor_map, dst, **settings, progress=moved, last=last)
        return api.convert(tensor_map, dst, **settings, progress=moved)


def plan(tensor_map: TensorMap, dst: str, **settings: Any) -> dict[str, Any]:
    """Return the record that a write would have, without the counts for which values would be read."""
    from weighttools.verbs import api

    return api.convert(tensor_map, dst, **{**settings, "store": None, "dry_run": True})


def early(dst: str, force: bool, format_name: str | None = None) -> None:
    """Refuse a target that could not be written, before values are read for long."""
    from weighttools.io import directory, sink
    from weighttools.write.plan import means_directory

    place = directory if means_directory(dst, format_name) else sink
    place.check_writable(dst, force=force)


def output_target(tensor_map: TensorMap, record: Mapping[str, Any], beside: Iterable[str] = ()) -> Target:
    """Return the target of a planned write, to be held against others; parameters as of `conversion.places`."""
    from weighttools.write.writing import places

    is_directory = record["format"] == "huggingface"
    return Target("the output", record["dst"], frozenset(places(tensor_map, record, beside)), is_directory)


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


def not_finite(done: Mapping[str, Any]) -> list[str]:
    """Return a note if changed tensors hold NaN or Inf: how many elements, in how many tensors, and where first."""
    n_nan, n_inf = done.get("n_nan", 0), done.get("n_inf", 0)
    if not n_nan + n_inf:
        return []
    where = [name for name, row in done["tensors"].items() if row["n_nan"] + row["n_inf"]]
    elements = output.counted(n_nan + n_inf, "element")
    counts = f"{elements} in {output.counted(len(where), 'changed tensor')} ({n_nan:,} NaN, {n_inf:,} Inf)"
    return [f"not finite: {counts}, first in {where[0]}"]

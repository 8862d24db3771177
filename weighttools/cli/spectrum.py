"""``weighttools spectrum``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options, output
from weighttools.cli.output import Record
from weighttools.verbs.spectrum import OPTIONS

_SHOWN = {
    "spectral_norm": "spectral",
    "stable_rank": "stable rank",
    "effective_rank": "eff. rank",
    "rank": "rank",
    "alpha": "alpha",
    "alpha_ks": "KS",
    "mp_edge": "MP edge",
    "n_above_mp_edge": "above",
}


@click.command()
@click.argument("path")
@options.declared(*OPTIONS)
@options.output_format
def spectrum(path: str, style: str, as_json: bool, **settings: Any) -> None:
    """Describe the singular values of every matrix; kernels are folded to their first axis by all others.

    Spectral norm; stable rank, effective rank (by entropy) and rank; energy at given ranks; the exponent alpha of the
    power law that the tail of the squared singular values follows, and its Kolmogorov-Smirnov distance; the
    Marchenko-Pastur edge, and how many singular values are above that noise.

    \b
    Examples:
      weighttools spectrum model.safetensors
      weighttools spectrum checkpoint/ -i '*query*' --ranks 8,64
      weighttools spectrum model.safetensors --values --json
    """
    from weighttools.verbs.spectrum import spectrum as verb

    with options.late_progress("spectrum") as (planned, done):
        record: Record = verb(path, **settings, planned=planned, progress=done)
    chosen = "json" if as_json else style
    if chosen == "json":
        output.emit_json([record])
        return
    ranks = [str(rank) for rank in settings["ranks"]]
    if chosen == "table":
        output.echo("\n".join(_table(record["tensors"], ranks)))
    else:
        rows = [_flat(row, ranks) for row in record["tensors"]]
        output.emit_rows(rows, list(rows[0]) if rows else ["name"], chosen)
    _notes(record)


def _table(rows: list[Record], ranks: list[str]) -> list[str]:
    head = ["name", "shape", *_SHOWN.values(), *(f"E({rank})" for rank in ranks)]
    cells = [
        [row["name"], output.shape(row["shape"]), *(_number(row[key]) for key in _SHOWN),
         *(_number(row["energy"].get(rank)) for rank in ranks)]
        for row in rows
    ]  # fmt: skip
    return output.table(head, cells, "  " + "r" * (len(head) - 2))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _flat(row: Record, ranks: list[str]) -> Record:
    flat = {key: value for key, value in row.items() if not isinstance(value, (dict, list))}
    energies = {f"energy_{rank}": row["energy"].get(rank) for rank in ranks}
    return {"name": row["name"], "shape": row["shape"], **flat, **energies}


def _notes(record: Record) -> None:
    for row in record["tensors"]:
        if row["skipped"]:
            output.note(f"{row['name']}: no spectrum, {row['skipped']}")
        elif row["method"] == "randomized":
            output.note(f"{row['name']}: randomized; the largest singular value is within {row['error']:.2g}")
    output.notes(record)

"""Options that several verbs share, each declared once."""

from __future__ import annotations

from weighttools.core.options import Option

TAKING = (
    Option(
        "include", default=(), many=True, metavar="PATTERN", flags=("-i", "--include"),
        help="Take only tensors whose whole name matches, case and all: a glob (* crosses dots) or re:REGEX. "
        "Repeatable.",
    ),
    Option(
        "exclude", default=(), many=True, metavar="PATTERN", flags=("-x", "--exclude"),
        help="Leave out tensors whose name matches; wins over -i.",
    ),
)  # fmt: skip
"""Which tensors to take; the others are left out."""

SELECTING = (
    Option(
        "include", default=(), many=True, metavar="PATTERN", flags=("-i", "--include"),
        help="Change only tensors whose whole name matches, case and all: a glob (* crosses dots) or re:REGEX. "
        "Repeatable.",
    ),
    Option(
        "exclude", default=(), many=True, metavar="PATTERN", flags=("-x", "--exclude"),
        help="Leave tensors alone whose name matches; wins over -i.",
    ),
    Option(
        "include_all", bool, False,
        help="Change norms, biases and embeddings too; integers, buffers and quantised tensors never are.",
    ),
)  # fmt: skip
"""Which tensors an edit changes; the others stay as they are."""

READING = (
    Option(
        "assume", metavar="DTYPE",
        help="The dtype of NumPy elements of unknown type (V1, V2), e.g. bfloat16.",
    ),
    Option(
        "root", metavar="NAME",
        help="The part of a nested checkpoint to read, e.g. ema; . for all of it by full names.",
    ),
)  # fmt: skip
"""How to read a file."""

OPENING = (*TAKING, *READING)
"""What opening a checkpoint takes, and with it every verb that reads one."""

THREADS = (Option("threads", int, least=1, help="Worker threads. [default: one a CPU]", decides=False),)
"""How many workers there are."""

KERNEL = (
    Option(
        "kernel",
        default="auto",
        choices=("auto", "numpy", "numba"),
        shows_default=True,
        decides=False,
        help="numba needs the extra [fast]; auto takes it for gigabytes.",
    ),
)
"""What computes figures of values."""

DEPTH = Option("depth", int, least=1, help="Parts of the name that make a group; implies --by depth.")
"""How many parts of the name make a group."""

GROUPING = (
    Option(
        "by", default="tensor", choices=("tensor", "module", "dtype", "depth"), shows_default=True,
        help="One row for each.",
    ),
    DEPTH,
)  # fmt: skip
"""What there is a row of figures for."""


def showing(example: str) -> tuple[Option, ...]:
    """Return which rows of figures to show, and in which order; `example` is a condition on the verb's own."""
    return (
        Option("where", metavar="CONDITION", help=f"Show rows that meet it: {example!r}."),
        Option("sort", metavar="FIGURE", help="Order of the rows: largest first."),
        Option("top", int, least=0, help="Show this many rows."),
    )


WRITING = (
    Option("format", flags=("--to",), metavar="FORMAT", help="The target's format, if its suffix does not say it."),
    Option("max_shard_size", metavar="SIZE", help="Largest shard of a target directory. [default: 5GB]"),
    Option("single", bool, False, "One file, however large, in a target directory."),
    Option(
        "compression", flags=("--compress",), metavar="METHOD",
        help="Compress the values: gzip, for an HDF5 file. [default: none]",
    ),
    Option(
        "store", choices=("bitmask",),
        help="Store tensors with many zeros as a bitmask and the other values, in safetensors. [default: as ever]",
    ),
    Option(
        "npz_bf16", default="keep", choices=("keep", "float32"), shows_default=True,
        help="How NPZ and NPY hold floats that NumPy does not know: their bits, or widened exactly.",
    ),
    Option("dry_run", bool, False, "Print the plan and the planned peak memory; write nothing."),
    Option("force", bool, False, "Replace an existing target."),
)  # fmt: skip
"""How to write a file or a directory, and whether."""

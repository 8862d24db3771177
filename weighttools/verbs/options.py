"""Options that several verbs share, each declared once."""

from __future__ import annotations

from weighttools.core.options import Option

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

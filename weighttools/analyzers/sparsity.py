"""The structure of sparsity: N:M patterns, empty rows, columns, channels and blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighttools.analyzers.axes import Strip, along, folded, padded
from weighttools.analyzers.base import Analyzer
from weighttools.core.spec import Spec
from weighttools.families.axes import TORCH, Axes

if TYPE_CHECKING:
    from weighttools.analyzers.run import Block, Record
    from weighttools.core.spec import Array

PATTERNS = ((2, 4), (4, 8))
"""N:M patterns: of every M neighbours at most N are not zero."""

TILE = 16
"""Rows and columns of the blocks that are looked at for being empty."""


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """Where a tensor, as a matrix of its first axis by the others (or as its layout says), holds anything but zeros.

    Parameters
    ----------
    rows, columns
        Whether each row and column holds anything; None where the tensor has one axis or its rows are too long.
    tiles
        The same for strips of `TILE` rows, by blocks of `TILE` columns.
    n_groups, n_kept
        For each of `PATTERNS`, groups along the last axis, and those that keep to the pattern.
    axes
        Where outputs and inputs lie.
    """

    rows: Strip | None
    columns: Array | None
    tiles: Strip | None
    n_groups: tuple[int, ...]
    n_kept: tuple[int, ...]
    axes: Axes = TORCH

    def merge(self, other: Structure) -> Structure:
        """Return the structure of both parts of one tensor together."""
        import numpy as np

        groups = tuple(a + b for a, b in zip(self.n_groups, other.n_groups, strict=True))
        kept = tuple(a + b for a, b in zip(self.n_kept, other.n_kept, strict=True))
        if self.rows is None or other.rows is None or self.tiles is None or other.tiles is None:
            return Structure(None, None, None, groups, kept)
        columns: Array = np.logical_or(self.columns, other.columns)  # type: ignore[arg-type]
        return Structure(self.rows.merge(other.rows), columns, self.tiles.merge(other.tiles), groups, kept, self.axes)

    def apart(self) -> Structure:
        """Return what of it can be added up over several tensors."""
        return Structure(None, None, None, self.n_groups, self.n_kept)

    def finish(self, spec: Spec | None = None) -> Record:
        """Return N:M compliance as fractions, and counts of empty rows, columns, channels and 16 x 16 blocks.

        Rows are output channels (torch's first axis, Keras's last), channels input channels; for a matrix the
        channels are its columns. What the shape does not admit is null.
        """
        pairs = zip(PATTERNS, self.n_groups, self.n_kept, strict=True)
        fractions = {f"nm_{n}_{m}": kept / groups if groups else None for (n, m), groups, kept in pairs}
        return {**fractions, **self._empty(spec)}

    def _empty(self, spec: Spec | None) -> Record:
        if spec is None or self.rows is None or self.columns is None or self.tiles is None:
            return dict.fromkeys(("n_empty_rows", "n_empty_columns", "n_empty_channels", "n_empty_blocks"))
        rows, axes = self.rows.values, self.axes
        outputs, inputs = (along(rows, self.columns, spec.shape, axes, which) for which in (axes.outputs, axes.inputs))
        across = self.columns if axes.outputs[0] < axes.cut else rows
        return {
            "n_empty_rows": None if outputs is None else int((~outputs).sum()),
            "n_empty_columns": int((~across).sum()),
            "n_empty_channels": None if inputs is None else int((~inputs).sum()),
            "n_empty_blocks": int((~self.tiles.values).sum()),
        }


def structure(block: Block) -> Structure:
    """Return the structure of a block; NaN is not zero."""
    import numpy as np

    filled = _filled(block.values)
    n_groups, n_kept = zip(*(_groups(filled, n, m, block.spec) for n, m in PATTERNS), strict=True)
    matrix = folded(block.spec, block.axes)
    if matrix is None:
        return Structure(None, None, None, n_groups, n_kept)
    first, rows = padded(filled, block.start, matrix[1])
    lines = Strip(first, np.any(rows, axis=1)), np.any(rows, axis=0), _tiles(first, rows)
    return Structure(*lines, n_groups, n_kept, block.axes)


def _filled(values: Array) -> Array:
    """Return which values are not zero; by their bits where comparing the values would be slow."""
    if values.dtype.itemsize == 1:
        from weighttools.analyzers.kernels.meanings import meanings

        by_bits: Array = (meanings(values.dtype).values != 0)[values.view("u1")]
        return by_bits
    if values.dtype.name in ("bfloat16", "float16"):
        values = values.view("u2") & 0x7FFF
    filled: Array = values != 0
    return filled


def _groups(filled: Array, n: int, m: int, spec: Spec) -> tuple[int, int]:
    """Return how many groups of `m` there are along the last axis, and in how many at most `n` are filled."""
    if not spec.shape or spec.shape[-1] % m:
        return 0, 0
    import numpy as np

    counts = np.bitwise_count(np.ascontiguousarray(filled).view(f"u{m}"))  # a bool is a byte of 0 or 1
    return counts.size, int(np.count_nonzero(counts <= n))


def _tiles(first: int, rows: Array) -> Strip:
    """Return which blocks of `TILE` x `TILE` are filled, by strips of rows."""
    import numpy as np

    if not rows.size:
        return Strip(first // TILE, np.zeros((0, -(-rows.shape[1] // TILE)), bool))
    across = np.logical_or.reduceat(rows, np.arange(0, rows.shape[1], TILE), axis=1)
    cuts = [0, *range(TILE - first % TILE, rows.shape[0], TILE)]
    return Strip(first // TILE, np.logical_or.reduceat(across, cuts, axis=0))


STRUCTURE = Analyzer(
    structure,
    ("nm_2_4", "nm_4_8", "n_empty_rows", "n_empty_columns", "n_empty_channels", "n_empty_blocks"),
    "2:4 and 4:8 compliance; empty rows, columns, channels, blocks",
    by_axes=True,
)

"""A random sketch of the change of a matrix, from which its numerical rank and its energy beyond that are told.

The change D, of m rows by n columns, is multiplied by a random matrix of k columns on its longer side, so that the
sketch has min(m, n) rows and k columns; it is made in the second reading, in float32, and held
while its pair is read: min(m, n) · k · 4 bytes for each job under way. The random numbers depend on nothing but the
place.

References
----------
N. Halko, P. G. Martinsson and J. A. Tropp, "Finding structure with randomness", SIAM Review 53, 2011.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weighttools.analyzers.axes import padded
from weighttools.analyzers.compare.explain.context import ChangedPair, ExplanationContext
from weighttools.analyzers.compare.explain.questions import SideBySide
from weighttools.analyzers.compare.explain.rounding import rounding_energy
from weighttools.analyzers.compare.row_sums import RowSums
from weighttools.core.random_numbers import Numbers

if TYPE_CHECKING:
    from weighttools.core.spec import Array

CODE = "sketch"
MOST_RANK = 64
"""The largest rank that is told of."""
MORE = 16
"""Columns of a sketch beyond the largest rank, which tell what is left."""
LEAST_SIDE = 16
"""Of smaller matrices nothing is told."""
MOST_SIDES = (1 << 15, 1 << 20)
"""Of larger ones neither, for the memory it would take: the shorter and the longer side."""
LEAST_ENERGY = 10
"""Of a change, by that of rounding alone: in less, nothing can be told."""
MOST_COLUMNS = 1 << 17
"""Likewise of wide ones, whose random matrix is held whole."""


class SketchFigures(NamedTuple):
    """What a sketch tells of a change.

    Parameters
    ----------
    values
        Its singular values, largest first, scaled so that their squares sum up to the energy of D, about.
    side
        The shorter side of the matrix.
    fourth
        The sum of fourth powers of the elements of D.
    """

    values: tuple[float, ...]
    side: int
    fourth: float


class Sketched(NamedTuple):
    """A sketch of some elements: of rows, or of all columns; and the sum of fourth powers."""

    product: RowSums
    fourth: float


@dataclass(frozen=True, slots=True)
class SketchQuestion:
    """Asks for the sketch of a change, of so many rows and columns; `scale` is its largest magnitude."""

    n_rows: int
    n_columns: int
    scale: float

    @property
    def width(self) -> int:
        """The columns of the sketch."""
        return min(MOST_RANK + MORE, min(self.n_rows, self.n_columns) // 2)

    def of(self, block: SideBySide) -> Sketched:
        change = self._change(block)
        squares = change * change
        fourth = float(squares @ squares)
        first, rows = padded(change, block.start, self.n_columns)
        if self.n_rows <= self.n_columns:
            return Sketched(RowSums(first, rows @ held_numbers(self.n_columns, self.width)), fourth)
        return Sketched(RowSums(0, rows.T @ numbers(first, first + len(rows), self.width)), fourth)

    def _change(self, block: SideBySide) -> Array:
        """Return the change by its largest magnitude, in float32: from float32 where that holds both sides."""
        holds = max(block.before.itemsize, block.after.itemsize) <= 4 and 1e-30 < self.scale < 1e30
        if not holds:
            wide: Array = (block.difference / self.scale).astype(np.float32)
            return wide
        change: Array = block.after.astype(np.float32, copy=False) - block.before.astype(np.float32, copy=False)
        change /= np.float32(self.scale)
        return change

    def merge(self, first: Sketched, second: Sketched) -> Sketched:
        return Sketched(first.product.merge(second.product), first.fourth + second.fourth)

    def finish(self, state: Sketched) -> SketchFigures | None:
        """Return singular values of the sketch, the random matrix being made orthogonal beforehand."""
        long, short = max(self.n_rows, self.n_columns), min(self.n_rows, self.n_columns)
        sketch = state.product.values.astype(np.float64) @ _whitening(long, self.width)
        values = np.sqrt(np.maximum(np.linalg.eigvalsh(sketch.T @ sketch)[::-1], 0)) * self.scale
        scaled = values * np.sqrt(long / self.width)
        return SketchFigures(tuple(map(float, scaled)), short, state.fourth * self.scale**4)


def numbers(start: int, stop: int, width: int) -> Array:
    """Return rows `start` to `stop` of the random matrix of so many columns."""
    drawn = Numbers(0, f"sketch {width}", "explain").normals(start * width, stop * width)
    rows: Array = drawn.reshape(-1, width).astype(np.float32)
    return rows


@functools.lru_cache(maxsize=4)
def held_numbers(n_rows: int, width: int) -> Array:
    """Return the whole random matrix, kept for the next pair of that shape."""
    return numbers(0, n_rows, width)


@functools.lru_cache(maxsize=16)
def _whitening(n_rows: int, width: int) -> Array:
    """Return what makes the columns of the random matrix orthonormal: the inverse root of its Gram matrix."""
    gram = np.zeros((width, width))
    for start in range(0, n_rows, 1 << 12):
        part = numbers(start, min(start + (1 << 12), n_rows), width).astype(np.float64)
        gram += part.T @ part
    values, vectors = np.linalg.eigh(gram)
    whitening: Array = (vectors / np.sqrt(values)) @ vectors.T
    return whitening


def sketch_question(change: ChangedPair, context: ExplanationContext) -> SketchQuestion | None:
    """Return what to ask of a parameter that is a matrix and changed in a quarter of its elements or more."""
    figures = change.figures
    if change.matrix is None or not context.role(change.pair).is_parameter:
        return None
    noise = rounding_energy(figures.l2_after, figures.n_elements, change.pair.after.dtype)
    if not figures.max_abs or 4 * figures.n_changed < figures.n_elements or figures.l2**2 < LEAST_ENERGY * noise:
        return None
    rows, columns = change.matrix
    short, long = min(rows, columns), max(rows, columns)
    fits = LEAST_SIDE <= short <= MOST_SIDES[0] and long <= MOST_SIDES[1] and columns <= MOST_COLUMNS
    return SketchQuestion(rows, columns, figures.max_abs) if fits else None

"""Matrix products, cut over our own threads where BLAS keeps to one."""

from __future__ import annotations

from typing import Any

import numpy as np

from weighttools.core import blas
from weighttools.train.autograd.gradients import Array
from weighttools.train.parallel import BLOCK, n_threads, spread

PIECE = 1 << 22
"""Multiplications that are worth a thread: some 80 microseconds, about what handing them over takes."""
HEAD_START = 1 << 21
"""Multiplications that the caller's thread has done before another one wakes: its share is larger by so many."""


def product(a: Array, b: Array, row: Array | None = None, low: tuple[Array, Array] | None = None) -> Any:
    """Return ``a @ b + row + left @ right`` for matrices (m, k) and (k, n), a vector (n,), and `low`, (left, right).

    `low` is a product of low rank, (m, r) and (r, n), of which there is never more than a block. How the work is cut
    depends on the shapes and the number of threads alone, so equal runs give equal bits.
    """
    (m, k), n = a.shape, b.shape[1]
    y = np.empty((m, n), np.result_type(a, b))
    pieces = min(n_threads(), m * n * k // PIECE) if blas.is_single() else 1

    def kernel(rows: slice, columns: slice) -> None:
        out = y[rows, columns]
        np.matmul(a[rows], b[:, columns], out=out)
        if low is not None:
            _add_product(out, low[0][rows], low[1][:, columns])
        if row is not None:
            out += row[columns]

    everything = slice(None)
    if m >= n:
        spread(kernel, [(part, everything) for part in _parts(m, pieces, n * k)])
    else:
        spread(kernel, [(everything, part) for part in _parts(n, pieces, m * k)])
    return y


def _add_product(y: Array, left: Array, right: Array) -> None:
    step = max(1, BLOCK // max(1, y.shape[1]))
    for start in range(0, len(y), step):
        at = slice(start, start + step)
        y[at] += left[at] @ right


def _parts(n: int, pieces: int, each: int) -> list[slice]:
    """Cut n, of `each` multiplications, into runs of a multiple of 16, the width of BLAS's kernels."""
    if pieces < 2:
        return [slice(None)]
    step = max(16, round((n - HEAD_START / each) / pieces / 16) * 16)
    first = max(n - step * (pieces - 1), n % step)
    return [slice(0, first), *(slice(start, min(n, start + step)) for start in range(first, n, step))]

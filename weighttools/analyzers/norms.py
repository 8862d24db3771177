"""Norms that need the singular values: spectral (the largest) and nuclear (their sum).

They come from the eigenvalues of the smaller Gram matrix where these are exact enough for both, as they are but for
matrices that lack rank; else from a singular value decomposition. Either is within `_ALLOWED` of it, relatively.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from weighttools.analyzers.power_law import scaled
from weighttools.analyzers.spectrum import ZERO, Spectrum, bands, exact_spectrum
from weighttools.core import blas
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor

if TYPE_CHECKING:
    from weighttools.analyzers.run import Record
    from weighttools.core.spec import Array

ALWAYS = ("l1", "l2", "inf")
SINGULAR = ("spectral", "nuclear")

_ALLOWED = 1e-9


def is_matrix(spec: Spec) -> bool:
    """Whether a tensor has these norms: two axes or more, elements, and no complex numbers."""
    return len(spec.shape) > 1 and spec.n_elements > 0 and spec.dtype.kind != "complex"


def singular_norms(tensors: Sequence[Tensor], names: tuple[str, ...], threads: int | None = None) -> Iterator[Record]:
    """Yield the norms called `names` of each tensor as a matrix: its first axis by all others.

    Null for what is no matrix (`is_matrix`), and for tensors with NaN or Inf. Memory is, for each of the threads, 16
    bytes times the square of the smaller side; and where rows are fewer than columns, or the matrix lacks rank, the
    whole of it in float64.
    """
    yield from blas.over(partial(_norms, names=names), tensors, threads)


def _norms(tensor: Tensor, names: tuple[str, ...]) -> Record:
    if not is_matrix(tensor.spec):
        return dict.fromkeys(names)
    try:
        found = exact_spectrum(tensor)
        if isinstance(found, str):
            return dict.fromkeys(names, 0.0 if found == ZERO else None)
        values = found.values
        if "nuclear" in names and _error(found) > _ALLOWED * values.sum():
            values = _decomposed(tensor, found.exponent)
    except np.linalg.LinAlgError:  # it did not converge
        return dict.fromkeys(names)
    norms = {"spectral": values[0], "nuclear": values.sum()}
    return {name: scaled(norms[name], found.exponent) for name in names}


def _error(found: Spectrum) -> float:
    """Return a bound on the error of the sum of the singular values of a Gram matrix; see `gram_spectrum`."""
    s = found.values
    of_squares = np.finfo(np.float64).eps * s.size * s[0] ** 2
    return float(np.minimum(of_squares / np.maximum(s, np.finfo(np.float64).tiny), math.sqrt(of_squares)).sum())


def _decomposed(tensor: Tensor, exponent: int) -> Array:
    matrix = np.concatenate([band.copy() for _, band in bands(tensor, exponent)])
    values: Array = np.linalg.svd(matrix, compute_uv=False)
    return values

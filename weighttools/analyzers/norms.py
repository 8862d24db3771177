"""Norms that need the singular values: spectral (the largest) and nuclear (their sum)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from weighttools.core.tensor import Tensor

if TYPE_CHECKING:
    from weighttools.analyzers.run import Record

ALWAYS = ("l1", "l2", "inf")
SINGULAR = ("spectral", "nuclear")


def singular_norms(tensor: Tensor, names: tuple[str, ...]) -> Record:
    """Return the norms called `names` of a tensor as a matrix: its first axis by all others.

    Null for tensors of fewer than two axes, without elements, complex, or with NaN or Inf. The whole tensor is read
    and decomposed in float64: memory is about four times 8 bytes an element.
    """
    if len(tensor.shape) < 2 or not tensor.n_elements or tensor.dtype.kind == "complex":
        return dict.fromkeys(names)
    matrix = tensor.read().astype(np.float64).reshape(tensor.shape[0], -1)
    if not np.isfinite(matrix).all():
        return dict.fromkeys(names)
    exponent = math.frexp(float(np.abs(matrix).max()))[1]
    try:
        values = np.ldexp(np.linalg.svd(np.ldexp(matrix, -exponent), compute_uv=False), exponent)
    except np.linalg.LinAlgError:  # it did not converge
        return dict.fromkeys(names)
    norms = {"spectral": float(values[0]), "nuclear": float(values.sum())}
    return {name: norms[name] for name in names}

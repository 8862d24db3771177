"""A transform for ``weighttools convert --apply times:FACTOR``: every floating tensor times a number."""

from __future__ import annotations

from functools import partial

import numpy as np

from weighttools.core.readers import Elementwise
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import SpecError


def times(factor: float) -> Transform:
    """Return a transform that multiplies floating tensors; what it refuses, it refuses before a value is read."""
    if not isinstance(factor, (int, float)):
        raise SpecError(f"a factor of {factor!r}", expected="a number")

    def transform(tensor_map: TensorMap) -> TensorMap:
        return tensor_map.map(lambda name, tensor: _times(tensor, factor) if tensor.dtype.is_float else tensor)

    return transform


def _times(tensor: Tensor, factor: float) -> Tensor:
    """Return the tensor to come: its spec now, its values block by block when they are asked for."""
    return Tensor(Spec(tensor.dtype, tensor.shape), Elementwise(tensor.reader, partial(_product, factor=factor)))


def _product(block: np.ndarray, factor: float) -> np.ndarray:
    """Return a block times the factor, in the block's dtype. A function of a module, so that tensors pickle."""
    with np.errstate(all="ignore"):
        return (block.astype(np.float64) * factor).astype(block.dtype)

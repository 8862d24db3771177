"""Elements as NumPy lays them out: in Fortran order too, and a byte for each of 4 and 6 bits, as in ml_dtypes."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from weighttools.core.dtypes import DTYPES
from weighttools.core.readers import Elementwise, Strided
from weighttools.core.spec import Reader, Span, Spec
from weighttools.core.tensor import Tensor

if TYPE_CHECKING:
    from weighttools.core.spec import Array


def tensor_of(spec: Spec, elements: Reader, span: Span | None) -> Tensor:
    """Return the tensor whose stored elements `elements` reads, undoing Fortran order and byte-wide packing."""
    if spec.dtype.bits < 8:
        elements = Elementwise(elements, partial(_as_dtype, name=spec.dtype.name))
    if spec.encoding == "fortran":
        strides = tuple(math.prod(spec.shape[:axis]) for axis in range(len(spec.shape)))
        elements = Strided(elements, spec.n_elements, spec.shape, strides, 0)
    return Tensor(spec, elements, span)


def byte_wide(tensor: Tensor) -> Tensor:
    """Return the tensor whose raw bytes are those NPY stores: itself, but a byte an element at 4 and 6 bits."""
    if tensor.dtype.bits >= 8:
        return tensor
    return Tensor(Spec(DTYPES["uint8"], tensor.shape), Elementwise(tensor.reader, _as_bytes))


def _as_dtype(block: Array, name: str) -> Array:
    return block.view(DTYPES[name].numpy)


def _as_bytes(block: Array) -> Array:
    return block.view("u1")

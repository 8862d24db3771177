"""A tensor with its axes in another order: nothing moves until it is read."""

from __future__ import annotations

from dataclasses import replace

from weighttools.core.readers import Elementwise, Strided
from weighttools.core.spec import Reader, Spec
from weighttools.core.strides import c_strides, is_contiguous
from weighttools.core.tensor import Tensor


def permuted(tensor: Tensor, folded: tuple[int, ...], axes: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """Return `tensor` reshaped to `folded`, transposed by `axes` and reshaped to `shape`; nothing is read."""
    turned = tuple(folded[axis] for axis in axes)
    strides = tuple(c_strides(folded)[axis] for axis in axes)
    if is_contiguous(turned, strides):
        return replace(tensor, spec=Spec(tensor.dtype, shape, tensor.spec.encoding))
    reader = _strided(tensor.reader, tensor.n_elements, turned, strides)
    return Tensor(Spec(tensor.dtype, shape), reader)


def _strided(reader: Reader, n_elements: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Reader:
    """Permute below element by element work (a cast), so that the same element is not worked on twice."""
    if isinstance(reader, Elementwise):
        return Elementwise(_strided(reader.reader, n_elements, shape, strides), reader.fn)
    return Strided(reader, n_elements, shape, strides, 0)

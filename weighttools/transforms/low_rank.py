"""Weights plus low-rank changes: ``W + scale B A``, computed in float64 and rounded once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.core.dtypes import DType
from weighttools.core.readers import Positioned, aligned_read
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, option
from weighttools.transforms.cast import cast_block
from weighttools.transforms.counting import widened
from weighttools.transforms.editing import replaced

if TYPE_CHECKING:
    from weighttools.core.spec import Array


@dataclass(frozen=True, slots=True)
class Update:
    """A change of one weight (out, in, …): ``scale * b @ a``.

    Parameters
    ----------
    a, b
        (rank, in, …) and (out, rank, …); what follows in `b` has length 1, as a convolution's.
    scale
        The factor.
    is_turned
        The weight is stored as (in, out): the change is transposed.
    """

    a: Tensor
    b: Tensor
    scale: float
    is_turned: bool = False

    @property
    def rank(self) -> int:
        """The number of rows of `a`."""
        return self.a.shape[0] if self.a.shape else 0

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it changes a weight of `shape`, turned as it is."""
        a, b = self.a.shape, self.b.shape
        if len(a) < 2 or len(b) < 2 or not a[0] == b[1] > 0 or math.prod(b[2:]) != 1:
            return False
        return shape == ((a[1], b[0]) if self.is_turned and len(a) == 2 else (b[0], *a[1:]))

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse what does not change the weight `name` of `shape`.

        Raises
        ------
        SpecError
            Shapes do not fit, or a factor holds no floats.
        """
        if not self.fits(shape):
            told = f"factors {self.a.shape} and {self.b.shape} do not fit a weight {shape}"
            raise SpecError(told, subject=name, expected="(rank, in) and (out, rank)")
        odd = next((factor for factor in (self.a, self.b) if not factor.dtype.is_float), None)
        if odd is not None:
            raise SpecError(f"a factor holds {odd.dtype}", subject=name, expected="floats")

    def rows(self, first: int, last: int) -> Array:
        """Return rows `first` to `last` of the change (rows, columns), in float64."""
        a = _read(self.a, 0, self.a.n_elements).reshape(self.rank, -1)
        if self.is_turned:
            b = _read(self.b, 0, self.b.n_elements).reshape(-1, self.rank)
            return np.asarray((a.T[first:last] * self.scale) @ b.T)
        b = _read(self.b, first * self.rank, last * self.rank).reshape(-1, self.rank)
        return np.asarray((b * self.scale) @ a)


def _read(factor: Tensor, start: int, stop: int) -> Array:
    return widened(aligned_read(factor.reader, start, stop, factor.n_elements))


def all_finite(factor: Tensor) -> bool:
    """Whether a factor holds no NaN and no Inf; it is read a block at a time."""
    n, step = factor.n_elements, 1 << 20
    return all(np.isfinite(_read(factor, at, min(n, at + step))).all() for at in range(0, n, step))


@dataclass(frozen=True, slots=True)
class Changed:
    """Adds an update to a block that begins at an element of its weight."""

    update: Update
    n_columns: int
    dtype: DType

    def __call__(self, start: int, block: Array) -> Array:
        first, last = start // self.n_columns, -(-(start + block.size) // self.n_columns)
        with np.errstate(all="ignore"):
            total = self.update.rows(first, last).reshape(-1)[start - first * self.n_columns :][: block.size]
            total += widened(block)
            return cast_block(total, self.dtype)


def changed(name: str, tensor: Tensor, update: Update) -> Tensor:
    """Return a tensor plus an update, in its dtype; nothing is read yet.

    Raises
    ------
    SpecError
        The tensor is no float of 16 bits or more, or the update does not fit it.
    """
    if tensor.spec.is_quantized or not tensor.dtype.is_float or tensor.dtype.bits < 16:
        raise SpecError(
            f"a change cannot be added to {tensor.spec.label}",
            subject=name,
            expected="a float of 16 bits or more",
            remedy=f"decode the base first: {option('dequantize')}, or convert it with {option('dtype')}",
        )
    update.check(name, tensor.shape)
    if not tensor.n_elements:
        return tensor
    n_columns = math.prod(tensor.shape[1:])
    return Tensor(Spec(tensor.dtype, tensor.shape), Positioned(tensor.reader, Changed(update, n_columns, tensor.dtype)))


def merged(tensor_map: TensorMap, updates: Mapping[str, Update], report: Mapping[str, Any]) -> TensorMap:
    """Return the map with updates added to some of its tensors, and a report of it.

    Raises
    ------
    SpecError
        As for `changed`.
    """
    return replaced(tensor_map, {n: changed(n, tensor_map[n], u) for n, u in updates.items()}, report)

"""The changes of values that go with GGUF's names: rows of heads interleaved, matrices transposed, norms shifted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from weighttools.core.dtypes import DTYPES
from weighttools.core.encodings import block_of
from weighttools.core.readers import Elementwise, Strided
from weighttools.core.spec import Reader, Spec
from weighttools.core.tensor import Tensor
from weighttools.errors import SpecError

if TYPE_CHECKING:
    from weighttools.core.spec import Array


@dataclass(frozen=True, slots=True)
class Heads:
    """The rows of each attention head in another order: as (a, b) pairs, taken as (b, a).

    Rotary embeddings turn the two halves of a head against each other in Hugging Face's code, and neighbouring rows in
    llama.cpp's; the converter reorders the rows of q and k so that both compute the same.

    Parameters
    ----------
    base
        The tensor's reader; it may give quantised blocks too, whose rows are then whole blocks.
    pair
        Rows of a head as stored, (a, b) with a times b rows: (2, half) interleaves, (half, 2) undoes it.
    row_elements
        Elements of a row.
    encoding
        The base's encoding.
    """

    base: Reader
    pair: tuple[int, int]
    row_elements: int
    encoding: str

    @property
    def granularity(self) -> int:
        return math.lcm(max(1, self.base.granularity), self.pair[0] * self.pair[1] * self.row_elements)

    def __call__(self, start: int, stop: int) -> Array:
        return self._reordered(self.base(start, stop), self.row_elements)

    def encoded(self, start: int, stop: int) -> Array:
        """Return quantised blocks, as `weighttools.encodings.quantized.BlockReader` has it."""
        block = block_of(self.encoding)
        base: Any = self.base
        assert block is not None, "only quantised encodings have blocks"
        return self._reordered(base.encoded(start, stop), self.row_elements // block.elements * block.n_bytes)

    def _reordered(self, rows: Array, row_length: int) -> Array:
        return rows.reshape(-1, *self.pair, row_length).swapaxes(1, 2).reshape(-1)


def heads(tensor: Tensor, n_heads: int, name: str, *, interleave: bool) -> Tensor:
    """Return a q or k projection (rows of all heads, …) with the rows of each head interleaved, or that undone.

    Raises
    ------
    SpecError
        The rows do not share out over the heads.
    """
    n_rows = tensor.shape[0] if tensor.shape else 0
    if n_heads < 1 or n_rows % (2 * n_heads):
        raise SpecError(f"tensor {name!r} has {n_rows:,} rows for {n_heads} heads", expected="an even number for each")
    half = n_rows // n_heads // 2
    pair = (2, half) if interleave else (half, 2)
    row = math.prod(tensor.shape[1:])
    return Tensor(tensor.spec if tensor.spec.is_quantized else raw_spec(tensor),
                  Heads(tensor.reader, pair, row, tensor.spec.encoding))  # fmt: skip


def raw_spec(tensor: Tensor) -> Spec:
    """Return the spec of a tensor once it is decoded."""
    return Spec(tensor.dtype, tensor.shape)


def transposed(tensor: Tensor, name: str) -> Tensor:
    """Return a matrix transposed; a quantised one is decoded for it.

    Raises
    ------
    SpecError
        It is no matrix.
    """
    if len(tensor.shape) != 2:
        raise SpecError(f"tensor {name!r} has the shape {list(tensor.shape)}", expected="a matrix")
    rows, columns = tensor.shape
    reader = Strided(tensor.reader, tensor.n_elements, (columns, rows), (1, columns), 0)
    return Tensor(Spec(tensor.dtype, (columns, rows)), reader)


def shifted(tensor: Tensor, by: int) -> Tensor:
    """Return a tensor plus `by`, in float32."""
    return Tensor(Spec(DTYPES["float32"], tensor.shape), Elementwise(tensor.reader, partial(_plus, by=by)))


def is_full(name: str, tensor: Tensor) -> bool:
    """Return whether llama.cpp reads a tensor, by GGUF's name, in float32 only: norms, biases, tables of positions."""
    return len(tensor.shape) < 2 or name in ("position_embd.weight", "token_types.weight")


def full(tensor: Tensor) -> Tensor:
    """Return a floating tensor in float32."""
    if not tensor.dtype.is_float or tensor.dtype == DTYPES["float32"]:
        return tensor
    return Tensor(Spec(DTYPES["float32"], tensor.shape), Elementwise(tensor.reader, _widened))


def _widened(block: Array) -> Array:
    import numpy as np

    return block.astype(np.float32)


def _plus(block: Array, by: int) -> Array:
    import numpy as np

    wide = block.astype(np.float32, copy=False)
    moved: Array = wide + np.float32(by)
    return moved

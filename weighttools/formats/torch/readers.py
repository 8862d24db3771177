"""From a view of a storage to a lazy tensor: by offset where its elements are contiguous, else by a reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighttools.core.dtypes import DType
from weighttools.core.spec import Reader, Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.errors import UnsupportedError
from weighttools.formats.torch.tensors import View

if TYPE_CHECKING:
    from weighttools.core.spec import Array


def tensor_of(view: View) -> Tensor:
    """Return the lazy tensor of a view: bytes by offset where they are contiguous, else a strided reader."""
    from weighttools.core.strides import is_contiguous

    dtype, itemsize = view.dtype, max(8, view.dtype.bits) // 8
    contiguous = dtype.bits < 8 or not view.n_elements or is_contiguous(view.shape, view.strides)
    n_bytes = dtype.nbytes(view.n_elements) if contiguous else view.extent * itemsize
    span = view.storage.span.part(view.offset * itemsize, n_bytes)
    spec = Spec(dtype, view.shape, _encoding(view, contiguous))
    if spec.encoding == "raw":
        return Tensor(spec, None, span)
    stored = span if n_bytes == spec.nbytes and view.storage.load is None else None
    return Tensor(spec, _reader(view, span, contiguous), stored)


def _encoding(view: View, contiguous: bool) -> str:
    """Say how the elements lie, if not as raw ones do."""
    if view.storage.load is not None:
        return "deflate"
    if view.conjugate or view.negative:
        return "signed"
    if view.storage.byteorder == ">" and view.dtype.bits > 8:
        return "big-endian"
    return "raw" if contiguous else "strided"


def _reader(view: View, span: Span, contiguous: bool) -> Reader:
    from weighttools.core.readers import Elementwise, Raw, Strided

    base: Reader = Raw(span, view.dtype, view.storage.byteorder)
    n_base, offset = (view.n_elements if contiguous else view.extent), 0
    if view.storage.load is not None:
        base, n_base, offset = _inflated(view)
    if not contiguous or offset or n_base != view.n_elements:
        base = Strided(base, n_base, view.shape, view.strides, offset)
    if view.storage.load is not None:
        base = Elementwise(base, _own)
    if view.conjugate:
        base = Elementwise(base, _conjugated)
    return Elementwise(base, _negated) if view.negative else base


def _inflated(view: View) -> tuple[Reader, int, int]:
    """Return a reader of the whole storage, its length, and where in it the view begins."""
    from weighttools.core.readers import Whole

    assert view.storage.load is not None
    if view.dtype.bits < 8:
        raise UnsupportedError("4-bit elements are read where they are not compressed only")
    n_elements = view.storage.n_bytes // (view.dtype.bits // 8)
    load = _Typed(view.storage.load, view.dtype, view.storage.byteorder)
    return Whole(load, n_elements), n_elements, view.offset


@dataclass(frozen=True, slots=True)
class _Typed:
    """Loads a compressed storage's bytes as elements."""

    load: Callable[[], Array]
    dtype: DType
    byteorder: str

    def __call__(self) -> Array:
        data = self.load()
        itemsize = self.dtype.bits // 8
        values: Array = data[: data.size // itemsize * itemsize].view(self.dtype.numpy)
        return values if self.byteorder == "<" else values.byteswap()


def _own(block: Array) -> Array:
    """Return elements that may be changed: a storage of several views is shared."""
    return block if block.flags.writeable else block.copy()


def _conjugated(block: Array) -> Array:
    return block.conj()


def _negated(block: Array) -> Array:
    negated: Array = -block
    return negated

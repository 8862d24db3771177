"""PyTorch's quantised tensors (torch.ao): small integers with a scale and a zero point, read as float32.

Source: ``torch/_utils.py``, ``_rebuild_qtensor(storage, offset, size, stride, (scheme, …), requires_grad, hooks)``.
The figures are those of ``Tensor.dequantize`` bit for bit: a whole tensor's are ``float32(q - zero) * float32(scale)``
with a difference of 32 bits, a channel's ``float32((q - zero) * scale)`` in float64, or all in float32 where its
scales and zero points are float32.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighttools.core.dtypes import DTYPES
from weighttools.core.spec import Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.errors import CorruptFileError, UnsupportedError
from weighttools.formats.pickles.objects import Global, Made, Persistent, plain
from weighttools.formats.torch.readers import tensor_of
from weighttools.formats.torch.tensors import Shelf, View, view_of
from weighttools.io.source import Bytes

if TYPE_CHECKING:
    from weighttools.core.spec import Array

_STORED = {"QInt8Storage": "CharStorage", "QUInt8Storage": "ByteStorage", "QInt32Storage": "IntStorage"}
"""Storages of quantised elements that take one plain integer each, by the class of such integers."""
_PLAIN = Global("torch._utils", "_rebuild_tensor_v2")
_SCHEMES = {Global("torch", "per_tensor_affine"): 3, Global("torch", "per_channel_affine"): 4}
"""The schemes, and how many parts their parameters have."""
_CHANNELS = Global("torch", "per_channel_affine")


def quantized_tensor(args: tuple[Any, ...], integers: View, shelf: Shelf) -> Tensor:
    """Return the float32 tensor that the quantised one stands for which ``_rebuild_qtensor(*args)`` would make.

    Parameters
    ----------
    args
        The call's.
    integers
        What `stored_integers` gives.
    shelf
        Where storages are looked up.

    Raises
    ------
    UnsupportedError
        Its elements are packed, or its scheme is not known.
    CorruptFileError
        Its parts do not fit one another.
    """
    from weighttools.core.readers import Positioned

    stored = tensor_of(integers)
    parameters = plain(args[4])
    scheme = parameters[0] if type(parameters) is tuple and parameters else None
    if type(scheme) is not Global or scheme not in _SCHEMES or len(parameters) != _SCHEMES[scheme]:
        raise UnsupportedError(f"a quantised tensor of the scheme {scheme!s:.80}")
    scaled = _by_channel(parameters, stored, shelf) if scheme == _CHANNELS else _by_tensor(parameters, shelf)
    spec = Spec(DTYPES["float32"], stored.shape, f"q{stored.dtype.name}")
    return Tensor(spec, Positioned(stored.reader, scaled), stored.stored)


def stored_integers(args: tuple[Any, ...], shelf: Shelf) -> View:
    """Return the integers of a quantised tensor as they are stored: the view that a storage of plain ones would make.

    Raises
    ------
    UnsupportedError
        Its elements are packed.
    CorruptFileError
        It is not rebuilt as torch rebuilds it.
    """
    identity = args[0].id if len(args) > 4 and type(args[0]) is Persistent else None
    if type(identity) is not tuple or len(identity) < 2 or type(identity[1]) is not Global:
        raise CorruptFileError("a quantised tensor is not rebuilt as torch rebuilds it", subject=shelf.name)
    if identity[1].name not in _STORED:
        raise UnsupportedError(f"a quantised tensor of a {identity[1].name:.80}, whose elements are packed")
    plain_storage = Persistent((identity[0], Global("torch", _STORED[identity[1].name]), *identity[2:]))
    view = view_of(Made(_PLAIN, (plain_storage, *args[1:4])), shelf)
    assert view is not None, "a rebuild is a view or an error"
    return view


def _by_tensor(parameters: tuple[Any, ...], shelf: Shelf) -> _WholeScale:
    _, scale, zero_point = parameters
    is_number = type(scale) in (float, int) and abs(scale) < 1 << 127
    if not is_number or type(zero_point) is not int or not -(1 << 31) <= zero_point < 1 << 31:
        raise CorruptFileError("a quantised tensor's scale and zero point are no numbers", subject=shelf.name)
    return _WholeScale(float(scale), zero_point)


def _by_channel(parameters: tuple[Any, ...], stored: Tensor, shelf: Shelf) -> _ChannelScales:
    _, *arrays, axis = parameters
    if type(axis) is not int or not 0 <= axis < len(stored.shape):
        raise CorruptFileError(f"a quantised tensor's axis is {axis!s:.80}", subject=shelf.name)
    scales, zero_points = (_channel_numbers(array, code, shelf) for array, code in zip(arrays, "dq", strict=True))
    n = stored.shape[axis]
    if scales.shape != (n,) or zero_points.shape != (n,):
        raise CorruptFileError(
            f"a quantised tensor has {list(scales.shape)} scales and {list(zero_points.shape)} zero points",
            subject=shelf.name,
            expected=f"{n:,} each",
        )
    if scales.dtype.name not in ("float32", "float64") or zero_points.dtype.name not in ("int32", "int64", "float32"):
        fact = f"a quantised tensor's scales are {scales.dtype}, its zero points {zero_points.dtype}"
        raise CorruptFileError(fact, subject=shelf.name, expected="floats and whole numbers")
    return _ChannelScales(scales, zero_points, n, math.prod(stored.shape[axis + 1 :]))


def _channel_numbers(value: Any, code: str, shelf: Shelf) -> Tensor:
    """Return the scales or zero points of channels: a tensor, or a list of numbers in old files."""
    found = view_of(value, shelf)
    if found is not None:
        return tensor_of(found)
    try:
        data = struct.pack(f"<{len(value)}{code}", *value)
    except (TypeError, OverflowError, struct.error):
        raise CorruptFileError("a quantised tensor's scales are neither tensor nor list", subject=shelf.name) from None
    spec = Spec(DTYPES[{"d": "float64", "q": "int64"}[code]], (len(value),))
    return Tensor(spec, None, Span(Bytes(data, shelf.name), 0, len(data)))


@dataclass(frozen=True, slots=True)
class _WholeScale:
    """One scale and zero point for all elements."""

    scale: float
    zero_point: int

    def __call__(self, start: int, block: Array) -> Array:
        import numpy as np

        with np.errstate(
            over="ignore"
        ):  # a difference of 32 bits wraps around, and float32 ends in infinity, as torch's
            found: Array = (block.astype(np.int32) - np.int32(self.zero_point)).astype(np.float32)
            return found * np.float32(self.scale)


@dataclass(frozen=True, slots=True)
class _ChannelScales:
    """A scale and a zero point for each index of one axis.

    Parameters
    ----------
    scales, zero_points
        One for each channel.
    n_channels
        How many there are.
    inner
        How many elements in a row are of one channel.
    """

    scales: Tensor
    zero_points: Tensor
    n_channels: int
    inner: int

    def __call__(self, start: int, block: Array) -> Array:
        import numpy as np

        if not block.size:
            return block.astype(np.float32)
        row, last_row = start // self.inner, (start + block.size - 1) // self.inner
        begin, end = row % self.n_channels, row % self.n_channels + last_row - row + 1
        if end > self.n_channels:  # the run begins anew at the first channel
            begin, end = 0, self.n_channels
        at = np.arange(start, start + block.size) // self.inner % self.n_channels - begin
        return _scaled(block, self._part(self.scales, begin, end)[at], self._part(self.zero_points, begin, end)[at])

    def _part(self, numbers: Tensor, begin: int, end: int) -> Array:
        from weighttools.core.readers import aligned_read

        return aligned_read(numbers.reader, begin, end, self.n_channels)


def _scaled(block: Array, scales: Array, zero_points: Array) -> Array:
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        if zero_points.dtype.kind == "f":
            found: Array = (block.astype(np.float32) - zero_points) * scales
        else:
            found = (block.astype(np.int64) - zero_points.astype(np.int64)) * scales.astype(np.float64)
        return found.astype(np.float32, copy=False)

"""The bytes of a run of elements that a fingerprint is of: little-endian, C order, packed to the dtype's bits.

Of quantised blocks, the blocks as they are stored, unless it is of decoded values.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from weighttools.core.encodings import BIG_ENDIAN, block_of
from weighttools.core.readers import Raw, aligned_read
from weighttools.core.tensor import Tensor
from weighttools.errors import UnsupportedError, option

if TYPE_CHECKING:
    from weighttools.core.spec import Array, Span

_LOCAL = threading.local()


def canonical_bytes(tensor: Tensor, start: int, stop: int, is_decoded: bool = False) -> Array:
    """Return the bytes (uint8) of elements `start` to `stop`; they hold until this thread asks for others.

    `start` is a multiple of the encoding's block.

    Raises
    ------
    UnsupportedError
        The tensor has big-endian quantised blocks, which are decoded only.
    """
    span = stored_span(tensor, start, stop, is_decoded)
    if span is not None:
        return _stored(span)
    if tensor.spec.is_quantized and not is_decoded:
        return _blocks(tensor, start, stop)
    return _packed(tensor, aligned_read(tensor.reader, start, stop, tensor.n_elements))


def stored_span(tensor: Tensor, start: int, stop: int, is_decoded: bool = False) -> Span | None:
    """Return where the canonical bytes of elements `start` to `stop` lie as they are; None where they are made."""
    block = block_of(tensor.spec.encoding)
    if block is not None and not is_decoded:
        if tensor.stored is None or tensor.spec.encoding.endswith(BIG_ENDIAN):
            return None
        first, last = start // block.elements, -(-stop // block.elements)
        return tensor.stored.part(first * block.n_bytes, (last - first) * block.n_bytes)
    reader = tensor.reader
    if not isinstance(reader, Raw) or reader.byteorder != "<":
        return None
    if stop * reader.dtype.bits % 8:
        return None  # what fills the last byte up may be anything
    at = start * reader.dtype.bits // 8
    return reader.span.part(at, stop * reader.dtype.bits // 8 - at)


def _stored(span: Span) -> Array:
    """Read bytes as they lie in the file."""
    data = _room(span.length)
    span.readinto(0, data.data)
    return data


def _packed(tensor: Tensor, values: Array) -> Array:
    import numpy as np

    if tensor.dtype.bits < 8:
        from weighttools.core.packing import pack

        return pack(np.ascontiguousarray(values).view("u1"), tensor.dtype.bits)
    little = values if sys.byteorder == "little" else values.byteswap()
    return np.ascontiguousarray(little).view("u1")


def _blocks(tensor: Tensor, start: int, stop: int) -> Array:
    """Return blocks that lie in no file yet."""
    if tensor.spec.encoding.endswith(BIG_ENDIAN):
        fact = f"{tensor.spec.encoding} blocks hold big-endian numbers, of which there is no fingerprint"
        raise UnsupportedError(fact, remedy=f"give {option('decoded')}")
    from weighttools.encodings.quantized import geometry
    from weighttools.formats.raw import bytes_of

    reader: Any = tensor.reader
    block, unit = geometry(tensor.spec.encoding), max(1, reader.granularity)
    first, last = start // unit * unit, min(tensor.n_elements, -(-stop // unit) * unit)  # rows of whole heads
    at, end = ((edge - first + block.elements - 1) // block.elements * block.n_bytes for edge in (start, stop))
    return bytes_of(reader.encoded(first, last))[at:end]


def _room(n_bytes: int) -> Array:
    """Return memory of this thread."""
    import numpy as np

    held: Array | None = getattr(_LOCAL, "room", None)
    if held is None or held.size < n_bytes:
        held = _LOCAL.room = np.empty(n_bytes, np.uint8)
    return held[:n_bytes]

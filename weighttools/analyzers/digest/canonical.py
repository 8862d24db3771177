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
    from weighttools.core.spec import Array

_LOCAL = threading.local()


def canonical_bytes(tensor: Tensor, start: int, stop: int, is_decoded: bool = False) -> Array:
    """Return the bytes (uint8) of elements `start` to `stop`; they hold until this thread asks for others.

    `start` is a multiple of the encoding's block.

    Raises
    ------
    UnsupportedError
        The tensor has big-endian quantised blocks, which are decoded only.
    """
    if tensor.spec.is_quantized and not is_decoded:
        return _blocks(tensor, start, stop)
    reader = tensor.reader
    if isinstance(reader, Raw) and reader.byteorder == "<":
        return _stored(reader, start, stop)
    return _packed(tensor, aligned_read(reader, start, stop, tensor.n_elements))


def _stored(reader: Raw, start: int, stop: int) -> Array:
    """Read raw elements as they lie in the file."""
    bits = reader.dtype.bits
    data = _room(reader.dtype.nbytes(stop) - start * bits // 8)
    reader.span.readinto(start * bits // 8, data.data)
    return data


def _packed(tensor: Tensor, values: Array) -> Array:
    import numpy as np

    if tensor.dtype.bits < 8:
        from weighttools.core.packing import pack

        return pack(np.ascontiguousarray(values).view("u1"), tensor.dtype.bits)
    little = values if sys.byteorder == "little" else values.byteswap()
    return np.ascontiguousarray(little).view("u1")


def _blocks(tensor: Tensor, start: int, stop: int) -> Array:
    block = block_of(tensor.spec.encoding)
    assert block is not None
    if tensor.spec.encoding.endswith(BIG_ENDIAN):
        fact = f"{tensor.spec.encoding} blocks hold big-endian numbers, of which there is no fingerprint"
        raise UnsupportedError(fact, remedy=f"give {option('decoded')}")
    first, last = start // block.elements, -(-stop // block.elements)
    if tensor.stored is None:
        from weighttools.formats.raw import bytes_of

        reader: Any = tensor.reader
        return bytes_of(reader.encoded(start, stop))
    data = _room((last - first) * block.n_bytes)
    tensor.stored.readinto(first * block.n_bytes, data.data)
    return data


def _room(n_bytes: int) -> Array:
    """Return memory of this thread."""
    import numpy as np

    held: Array | None = getattr(_LOCAL, "room", None)
    if held is None or held.size < n_bytes:
        held = _LOCAL.room = np.empty(n_bytes, np.uint8)
    return held[:n_bytes]

"""Raw element bytes, as safetensors, NPY and others store them: little-endian, C order, packed to the dtype's bits."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from weighttools.core import plan
from weighttools.core.engine import run, threads
from weighttools.core.spec import Span
from weighttools.core.tensor import BLOCK_ELEMENTS, Tensor
from weighttools.formats.base import WriteOptions

if TYPE_CHECKING:
    from pathlib import Path

    from weighttools.core.spec import Array
    from weighttools.io.sink import Sink


def write_raw(tensors: Iterable[Tensor], sink: Sink, options: WriteOptions) -> None:
    """Append the tensors' raw, packed, little-endian bytes one after the other."""
    with threads(options.threads) as pool:
        for piece in _copied_or_decoded(tensors):
            if isinstance(piece, Span):
                sink.copy(piece)
                continue
            for block in run(raw_block, _jobs(piece), pool, window=4):
                sink.write(block)


def _copied_or_decoded(tensors: Iterable[Tensor]) -> Iterator[Span | list[Tensor]]:
    """Group neighbours: spans that adjoin in their file become one, tensors to decode become one batch."""
    span: Span | None = None
    batch: list[Tensor] = []
    for tensor in tensors:
        stored = tensor.stored if tensor.spec.encoding == "raw" else None
        if stored is not None and span is not None and _adjoin(span, stored):
            span = span._replace(length=span.length + stored.length)
            continue
        if span is not None:
            yield span
        if stored is not None and batch:
            yield batch
            batch = []
        span = stored
        if stored is None:
            batch.append(tensor)
    yield from ([span] if span is not None else [])
    yield from ([batch] if batch else [])


def _adjoin(a: Span, b: Span) -> bool:
    return a.source is b.source and a.content is b.content and a.offset + a.length == b.offset


def _jobs(tensors: Iterable[Tensor]) -> Iterator[tuple[Tensor, int, int]]:
    for tensor in tensors:
        for start, stop in plan.blocks(
            tensor.n_elements, max(tensor.reader.granularity, tensor.dtype.pack), tensor.run_elements
        ):
            yield tensor, start, stop


def raw_block(job: tuple[Tensor, int, int]) -> Any:
    """Read a run of elements and return its raw, packed, little-endian bytes."""
    tensor, start, stop = job
    values = tensor.reader(start, stop)
    if tensor.dtype.bits < 8:
        from weighttools.core.packing import pack

        return pack(values.view("u1"), tensor.dtype.bits)
    return (values if sys.byteorder == "little" else values.byteswap()).view("u1")


PIECE = 8 << 20
"""Bytes that are looked at together."""


def bytes_of(array: Array) -> Array:
    """Return an array's bytes, in C order."""
    import numpy as np

    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def pieces_of(array: Array) -> Iterator[Array]:
    """Yield an array's bytes in pieces, so that of one that is mapped only those are in memory."""
    flat = bytes_of(array)
    for at in range(0, flat.size, PIECE):
        yield flat[at : at + PIECE]


def mapped_bytes(path: Path, offset: int, length: int) -> Iterator[Array]:
    """Yield the bytes of a part of a file, in pieces."""
    import numpy as np

    if length:
        yield from pieces_of(np.memmap(path, np.uint8, "r", offset, (length,)))


def stored_pieces(tensor: Tensor) -> Iterator[Array]:
    """Yield the bytes that a tensor takes as raw elements, or as its quantised blocks, in pieces.

    What is raw goes by the reader, element for element: copying, which may be how it was written, does not.
    """
    import numpy as np

    if not tensor.spec.is_quantized:
        with threads() as pool:
            yield from run(raw_block, _jobs([tensor]), pool, window=4)
    elif tensor.stored is not None:
        for at in range(0, tensor.stored.length, PIECE):
            data = np.empty(min(PIECE, tensor.stored.length - at), np.uint8)
            tensor.stored.readinto(at, data.data)
            yield data
    else:
        reader: Any = tensor.reader
        for start, stop in plan.blocks(tensor.n_elements, reader.granularity, BLOCK_ELEMENTS):
            yield bytes_of(reader.encoded(start, stop))

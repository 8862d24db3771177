"""What pruned tensors would take when stored in other ways."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from weighttools.core import plan
from weighttools.core.encodings import bitmask_bytes
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap

_SAMPLE_BYTES = 4 << 20
_PIECE_BYTES = 1 << 16
_LEVEL = 6
"""The default of gzip and zlib."""


def sizes(tensor_map: TensorMap, zeros: Mapping[str, int] | None) -> dict[str, Any]:
    """Return sizes in bytes; see `weighttools.sizes`."""
    tensors = list(tensor_map.values())
    raw = sum(tensor.spec.encoded_bytes for tensor in tensors)
    n_read, n_packed = _compressed(tensors, max(1, raw // _SAMPLE_BYTES))
    return {
        "raw_bytes": raw,
        "gzip_bytes": round(raw * n_packed / n_read) if n_read else raw,
        "gzip_sample_bytes": n_read,
        "bitmask_bytes": None if zeros is None else raw + sum(_saved(tensor_map[n], zeros[n]) for n in zeros),
    }


def _saved(tensor: Tensor, n_zero: int) -> int:
    """Return how many bytes a bitmask and the values that are not 0 take more than raw elements, if not less."""
    n_bytes = bitmask_bytes(tensor.n_elements, tensor.n_elements - n_zero, tensor.dtype.bits)
    return min(0, n_bytes - tensor.spec.nbytes)


def _compressed(tensors: list[Tensor], every: int) -> tuple[int, int]:
    """Compress one in `every` pieces of the values; return the bytes before and after."""
    packer = zlib.compressobj(_LEVEL)
    n_read = n_packed = 0
    for data in _pieces(tensors, every):
        n_read += len(data)
        n_packed += len(packer.compress(data))
    return n_read, n_packed + len(packer.flush())


def _pieces(tensors: list[Tensor], every: int) -> Iterator[bytes]:
    at = 0
    for tensor in tensors:
        granularity = tensor.reader.granularity
        size = _PIECE_BYTES * 8 // max(8, tensor.dtype.bits)
        for start, stop in plan.blocks(tensor.n_elements, max(granularity, tensor.dtype.pack), size):
            if at % every == 0:
                yield tensor.reader(start, stop).tobytes()
            at += 1

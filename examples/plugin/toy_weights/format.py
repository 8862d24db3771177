"""The format of ``.toy`` files: ``TOYW``, the length of a JSON header (4 bytes), the header, the tensors one by one.

The header is ``{"metadata": {...}, "tensors": [[name, dtype, shape], ...]}``; values are little-endian, in C order.
"""

from __future__ import annotations

import json
from typing import Any

from weighttools.core.dtypes import DTYPES
from weighttools.core.spec import Source, Spec
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, SpecError
from weighttools.formats.base import Format, ReadOptions, WriteOptions, text_metadata
from weighttools.formats.raw import write_raw
from weighttools.io.sink import Sink

MAGIC = b"TOYW"
HELD = ("float32", "int64")


def matches(head: bytes) -> bool:
    """Whether a file begins with the magic."""
    return head.startswith(MAGIC)


def read(source: Source, options: ReadOptions) -> TensorMap:
    """Read the header, and nothing else: tensors are where it says, and are read when they are asked for."""
    header, at = _header(source)
    rows = {}
    for name, spec in _specs(header, source.name):
        rows[name] = (spec, source, at, spec.nbytes)
        at += spec.nbytes
    if at != source.size or len(rows) != len(header["tensors"]):
        raise CorruptFileError(f"is {source.size:,} bytes long", subject=source.name, expected=f"{at:,}")
    return TensorMap(rows, header["metadata"])


def _header(source: Source) -> tuple[Any, int]:
    """Return the header, and where values begin."""
    try:
        length = int.from_bytes(source.read(4, 4), "little")
        header = json.loads(source.read(8, length))
        texts = [*header["metadata"].items(), *((name, dtype) for name, dtype, _ in header["tensors"])]
        assert all(isinstance(text, str) for pair in texts for text in pair)
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError):
        raise CorruptFileError("has a broken header", subject=source.name, offset=4) from None
    return header, 8 + length


def _specs(header: Any, subject: str) -> list[tuple[str, Spec]]:
    """Return names and specs; nothing in a file is what it says until it has been looked at."""
    found = []
    for name, dtype, shape in header["tensors"]:
        if dtype not in HELD or not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise CorruptFileError(
                f"its tensor {name!r} is {dtype} {shape}", subject=subject, expected=" or ".join(HELD)
            )
        found.append((name, Spec(DTYPES[dtype], tuple(shape))))
    return found


def losses(tensor_map: TensorMap) -> list[str]:
    """Refuse dtypes that the format does not have; ties it cannot keep, and weighttools says so by itself."""
    for name, tensor in tensor_map.items():
        if tensor.dtype.name not in HELD:
            raise SpecError(f"toy holds no {tensor.dtype}, as {name!r} is", expected=" or ".join(HELD))
    return []


def write(tensor_map: TensorMap, sink: Sink, options: WriteOptions) -> None:
    """Write front to back; what is not changed is copied without being decoded."""
    tensors = [
        [name, spec.dtype.name, list(spec.shape)] for name, spec in zip(tensor_map, tensor_map.specs(), strict=True)
    ]
    header = json.dumps({"metadata": text_metadata(tensor_map.metadata), "tensors": tensors}).encode()
    sink.write(MAGIC + len(header).to_bytes(4, "little") + header)
    write_raw(tensor_map.values(), sink, options)


FORMAT = Format(matches, read, write, losses, title="toy file", suffixes=(".toy",))

"""Flax msgpack: nested maps of arrays, as ``flax.serialization.msgpack_serialize`` writes them.

Source: flax, ``flax/serialization.py`` (extension types 1, 2 and 3; chunked arrays), and the MessagePack specification
for the wire. Only the headers are walked: an array is extension type 1 around msgpack(shape, dtype name, bytes), so
its values are a run of bytes of the file. Names are the paths of keys joined by ``/``, as
``flax.traverse_util.flatten_dict(tree, sep="/")`` gives them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighttools.core.budgets import FLAX_NAMES as MAX_NAME_BYTES
from weighttools.core.dtypes import DTYPES, DType
from weighttools.core.readers import Elementwise, Raw, joined
from weighttools.core.spec import Reader, Source, Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import CorruptFileError, UnsupportedError, few
from weighttools.formats import npy_elements, npy_header
from weighttools.formats.base import Format, ReadOptions
from weighttools.formats.flax.walker import NARROW_INTS, Record, Walker, element_bytes
from weighttools.formats.left_out import LeftOut

if TYPE_CHECKING:
    from weighttools.core.spec import Array

SEPARATOR = "/"


def matches(head: bytes) -> bool:
    """Whether a file begins as msgpack of a map does: its header, a key of text, and the first byte of a value."""
    n_header = {0xDE: 3, 0xDF: 5}.get(head[0] if head else 0, 1 if head and 0x81 <= head[0] <= 0x8F else 0)
    key = head[n_header:]
    if not n_header or len(key) < 3:
        return False
    n_prefix = {0xD9: 2, 0xDA: 3}.get(key[0], 1)
    length = key[0] & 0x1F if 0xA1 <= key[0] <= 0xBF else int.from_bytes(key[1:n_prefix], "big")
    text, after = key[n_prefix : n_prefix + length], key[n_prefix + length :]
    return length > 0 and bool(after) and after[0] != 0xC1 and _decodes(text)


def _decodes(text: bytes) -> bool:
    try:
        return text.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False


def read(source: Source, options: ReadOptions | None = None) -> TensorMap:
    """Walk the headers of a Flax msgpack file; no value is read.

    Values that are no arrays (a step counter, a name) become metadata under their path.

    Raises
    ------
    CorruptFileError
        The content is not msgpack as Flax writes it, is cut short, or claims more than the file holds.
    UnsupportedError
        There are arrays, but none of numbers.
    """
    root = Walker(source).root()
    if isinstance(root, (Record, list)):
        root = {_stem(source): root}
    if not isinstance(root, dict):
        raise CorruptFileError("holds no map of arrays", subject=source.name, expected="a Flax state dict")
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, Any] = {}
    left_out = LeftOut()
    for name, leaf in _leaves(root, source):
        if name in tensors or name in metadata:
            raise CorruptFileError(f"two leaves are called {name!r}", subject=source.name, code="names-collide")
        if isinstance(leaf, (Record, list)):
            tensor = _tensor(name, leaf, source)
            if tensor is None:
                left_out.add("no plain numbers", name)
            else:
                tensors[name] = tensor
        else:
            metadata[name] = leaf
    if left_out and not tensors:
        raise UnsupportedError(f"holds no array that can be read: {few(list(left_out), 3)}", subject=source.name)
    return TensorMap(tensors, metadata, origin=Origin(source.name, "flax", (source.name,), tuple(left_out.notes())))


def _stem(source: Source) -> str:
    return os.path.splitext(os.path.basename(source.name))[0] if source.name != "-" else "array"


def _leaves(root: dict[str, Any], source: Source) -> Iterator[tuple[str, Any]]:
    """Yield path and leaf in the file's order; the paths together are bounded."""
    stack = [("", iter(root.items()))]
    n_bytes = 0
    while stack:
        prefix, entries = stack[-1]
        key, value = next(entries, (None, None))
        if key is None:
            stack.pop()
            continue
        name = prefix + key
        n_bytes += len(name)
        if n_bytes > MAX_NAME_BYTES:
            raise CorruptFileError("its names are too long", subject=source.name, expected="names of usual length")
        if isinstance(value, dict):
            stack.append((name + SEPARATOR, iter(value.items())))
        else:
            yield name, value


def _tensor(name: str, leaf: Record | list[Any], source: Source) -> Tensor | None:
    """Return the tensor of one record, or of the chunks that make up one array."""
    shape, records = (leaf.shape, [leaf]) if isinstance(leaf, Record) else leaf
    dtype_name = records[0].dtype_name
    if element_bytes(dtype_name) is None:
        return None
    dtype = DTYPES[NARROW_INTS.get(dtype_name, dtype_name)]
    spans = [Span(source, record.offset, record.length) for record in records]
    if dtype_name in NARROW_INTS:
        reader: Reader = Elementwise(_joined(spans, dtype), _Narrow(dtype_name, dtype.name))
        return Tensor(Spec(dtype, shape, dtype_name), reader, spans[0] if len(spans) == 1 else None)
    spec = Spec(dtype, shape, "raw" if dtype.bits >= 8 else "byte-each")
    if len(spans) == 1:
        return (
            Tensor(spec, None, spans[0])
            if dtype.bits >= 8
            else npy_elements.tensor_of(spec, _joined(spans, dtype), spans[0])
        )
    return npy_elements.tensor_of(spec, _joined(spans, dtype), None)


def _joined(spans: list[Span], dtype: DType) -> Reader:
    stored = npy_header.stored_type(dtype)
    readers = tuple(Raw(span, stored) for span in spans if span.length) or (Raw(spans[0], stored),)
    if len(readers) == 1:
        return readers[0]
    width = -(-stored.bits // 8)
    return joined((reader, reader.span.length // width) for reader in readers)


@dataclass(frozen=True, slots=True)
class _Narrow:
    """Widen 1-, 2- and 4-bit integers, a byte each, to the integer type that holds them."""

    stored: str
    held: str

    def __call__(self, block: Array) -> Array:
        import ml_dtypes

        wide: Array = block.view(getattr(ml_dtypes, self.stored)).astype(self.held)
        return wide


FORMAT = Format(matches=matches, read=read)

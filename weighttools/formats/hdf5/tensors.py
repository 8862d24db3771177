"""From the listing of an HDF5 file to tensors: every number in it is held against the file before it is believed."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from typing import Any

from weighttools.core import budgets
from weighttools.core.budgets import UNSTORED_BYTES as _UNSTORED
from weighttools.core.dtypes import DTYPES, DType
from weighttools.core.readers import Raw
from weighttools.core.spec import Reader, Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import Row
from weighttools.errors import CorruptFileError, UnsafeFileError, UnsupportedError
from weighttools.formats import npy_elements, npy_header
from weighttools.formats.hdf5.chunks import Chunk, Chunked, Filled, long_axis
from weighttools.formats.hdf5.filters import MOST_EXPANSION, Filter
from weighttools.io.source import Bytes

Json = dict[str, Any]


def tensor(entry: Json, span: Span, assume: str | None) -> Tensor | Row:
    """Return the tensor that an entry of a listing describes; `span` is where the file lies.

    Raises
    ------
    UnsupportedError
        It holds opaque elements whose type is not named.
    CorruptFileError, UnsafeFileError
        Its shape, offsets or chunks do not fit the file.
    """
    element = _element(entry, assume)
    shape = tuple(entry["shape"])
    spec = Spec(element, shape)
    if len(shape) > 32 or any(n >= 1 << 63 for n in shape):
        raise _corrupt(entry, span, f"its shape {shape} is not possible")
    return _LAYOUTS[entry["layout"]](entry, spec, span)


def _element(entry: Json, assume: str | None) -> DType:
    """The dtype; an opaque one is named by the attribute ``dtype``, as Keras does for bfloat16."""
    if entry["dtype"] != "opaque":
        return DTYPES[entry["dtype"]]
    size = entry["itemsize"]
    found = DTYPES.get(str(entry["named"] or assume))
    if found is None or -(-found.bits // 8) != size:
        likely = {1: "float8_e4m3fn", 2: "bfloat16"}.get(size)
        remedy = f"say what they are, e.g. --assume {likely}" if likely else None
        raise UnsupportedError(f"{size}-byte elements whose type it does not name", remedy=remedy)
    return found


def _contiguous(entry: Json, spec: Spec, span: Span) -> Tensor | Row:
    needed = spec.n_elements * entry["itemsize"]
    offset = entry["offset"]
    if needed == 0:
        return spec, span.source, span.offset, 0
    if offset is None:
        return _unwritten(entry, spec, span, needed)
    if entry["size"] < needed or not 0 <= offset <= span.length - needed:
        raise _corrupt(entry, span, f"its {needed:,} bytes at {offset:,} do not lie within the file")
    return _run_of(entry, spec, span.part(offset, needed))


def _compact(entry: Json, spec: Spec, span: Span) -> Tensor | Row:
    data = base64.b64decode(entry["data"])
    if len(data) != spec.n_elements * entry["itemsize"]:
        raise _corrupt(entry, span, f"it holds {len(data):,} bytes")
    return _run_of(entry, spec, Span(Bytes(data, span.source.name), 0, len(data)))


def _run_of(entry: Json, spec: Spec, place: Span) -> Tensor | Row:
    """A data set whose elements lie in one run."""
    if spec.dtype.bits >= 8 and (entry["order"] == "<" or spec.dtype.bits == 8):
        return (spec, *place[:3]) if place.content is None else Tensor(spec, None, place)
    encoding = "byte-each" if spec.dtype.bits < 8 else "big-endian"
    elements = Raw(place, npy_header.stored_type(spec.dtype), entry["order"])
    return npy_elements.tensor_of(Spec(spec.dtype, spec.shape, encoding), elements, place)


def _unwritten(entry: Json, spec: Spec, span: Span, needed: int) -> Tensor:
    _bounded(entry, span, needed, 0)
    elements = Filled(bytes.fromhex(entry["fill"]), npy_header.stored_type(spec.dtype), entry["order"])
    return npy_elements.tensor_of(
        Spec(spec.dtype, spec.shape, "unwritten"), elements, Span(span.source, span.offset, 0)
    )


def _bounded(entry: Json, span: Span, needed: int, stored: int) -> None:
    if needed > MOST_EXPANSION * stored + _UNSTORED:
        raise UnsafeFileError(
            f"data set {entry['path']!r} claims {needed:,} bytes, of which {stored:,} are stored",
            subject=span.source.name,
            expected=f"at most {MOST_EXPANSION} for each stored byte",
            code="inflates-without-measure",
        )


def _chunked(entry: Json, spec: Spec, span: Span) -> Tensor:
    side = tuple(entry["chunk"])
    if len(side) != len(spec.shape) or min(side, default=0) < 1:
        raise _corrupt(entry, span, f"its chunks of {side} do not fit its shape {spec.shape}")
    chunks = [_chunk(entry, row, len(side), span) for row in entry["chunks"]]
    _refuse_large_chunks(entry, spec, side, span)
    stored = sum(length for _, _, length, _ in chunks)
    _bounded(entry, span, spec.n_elements * entry["itemsize"], stored)
    filters = tuple(Filter(code, tuple(values), name) for code, values, name in entry["filters"])
    elements: Reader = Chunked(
        span.source,
        spec.shape,
        side,
        _by_row(chunks, spec.shape, side),
        filters,
        bytes.fromhex(entry["fill"]),
        npy_header.stored_type(spec.dtype),
        entry["order"],
        entry["path"],
    )
    begin = min((offset for _, offset, _, _ in chunks), default=span.offset)
    encoding = "+".join([step.name.split()[0] if step.name else str(step.code) for step in filters]) or "chunked"
    return npy_elements.tensor_of(
        Spec(spec.dtype, spec.shape, encoding), elements, Span(span.source, begin, stored, span.content)
    )


def _refuse_large_chunks(entry: Json, spec: Spec, side: tuple[int, ...], span: Span) -> None:
    """Refuse chunks that are far larger than the data set: all of one is inflated for the little that it holds."""
    chunk, needed = math.prod(side) * entry["itemsize"], spec.n_elements * entry["itemsize"]
    if entry["chunks"] and chunk > budgets.CHUNK_FREE + budgets.CHUNK_TIMES * needed:
        raise UnsafeFileError(
            f"data set {entry['path']!r} of {needed:,} bytes lies in chunks of {chunk:,}",
            subject=span.source.name,
            expected=f"chunks of at most {budgets.CHUNK_FREE:,} bytes, or {budgets.CHUNK_TIMES} times the data set",
        )


def unstored_bytes(entry: Json) -> int:
    """Return how many bytes a data set claims that no stored byte, inflated, could give."""
    stored = sum(row[-2] for row in entry.get("chunks", ()))
    needed = math.prod(entry["shape"]) * entry["itemsize"]
    is_written = entry["layout"] == "compact" or (entry["layout"] == "contiguous" and entry["offset"] is not None)
    return 0 if is_written else max(0, needed - MOST_EXPANSION * stored)


def chunk_bytes(entry: Json) -> int:
    """Return how many bytes reading a data set inflates: its stored chunks, however little of them it shows."""
    return len(entry.get("chunks", ())) * math.prod(entry.get("chunk", ())) * int(entry["itemsize"])


def _chunk(entry: Json, row: list[int], n_axes: int, span: Span) -> Chunk:
    origin, (offset, length, mask) = tuple(row[:n_axes]), row[n_axes:]
    if not 0 <= offset <= span.length - length:
        raise _corrupt(entry, span, f"its chunk of {length:,} bytes at {offset:,} does not lie within the file")
    return origin, span.offset + offset, length, mask


def _by_row(chunks: Iterable[Chunk], shape: tuple[int, ...], side: tuple[int, ...]) -> dict[int, tuple[Chunk, ...]]:
    """Group the chunks that hold elements of the data set by their row; one that overlaps another takes its place."""
    axis = long_axis(shape)
    rows: dict[int, dict[tuple[int, ...], Chunk]] = {}
    for chunk in chunks:
        origin = chunk[0]
        if all(o < n and o % c == 0 for o, n, c in zip(origin, shape, side, strict=True)):
            rows.setdefault(origin[axis] // side[axis], {})[origin] = chunk
    return {number: tuple(found.values()) for number, found in rows.items()}


def _corrupt(entry: Json, span: Span, fact: str) -> CorruptFileError:
    return CorruptFileError(f"data set {entry['path']!r}: {fact}", subject=span.source.name)


_LAYOUTS = {"contiguous": _contiguous, "compact": _compact, "chunked": _chunked}


def needed_bytes(spec: Spec) -> int:
    """The bytes of a tensor as we write it: 4- and 6-bit elements take one each."""
    return math.prod(spec.shape) * -(-spec.dtype.bits // 8)

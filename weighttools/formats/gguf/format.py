"""GGUF: typed metadata, a table of tensors, then their data, each tensor's on an alignment boundary.

Source: the GGUF specification (ggml, ``docs/gguf.md``). Quantised tensors are float32 by their dtype and a
quantisation by their encoding; they are copied as they are, or decoded a run of blocks at a time. Metadata keeps its
types and its order, so that a file which is read and written again is the same file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from weighttools.core import budgets, plan
from weighttools.core.encodings import QUANTIZED
from weighttools.core.engine import collector_paused, run, threads
from weighttools.core.findings import Finding
from weighttools.core.spec import Source, Span, Spec
from weighttools.core.tensor import BLOCK_ELEMENTS, Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.encodings.quantized import BlockReader
from weighttools.errors import SpecError, few, printable
from weighttools.formats import trailing
from weighttools.formats.base import Format, ReadBack, ReadOptions, Region, WriteOptions, instead, refuse_shapes
from weighttools.formats.gguf import header as gguf_header
from weighttools.formats.gguf.header import ALIGNMENT, DEFAULT_ALIGNMENT, MAX_DIMENSIONS, MAX_ELEMENTS
from weighttools.formats.gguf.numbers import UInt32
from weighttools.formats.gguf.tensors import NAME, tensor_map
from weighttools.formats.gguf.values import Piece, encoded, encoded_text
from weighttools.formats.raw import raw_block

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from weighttools.io.sink import Sink

VERSION = 3
LONGEST_NAME = 63
"""ggml's GGML_MAX_NAME is 64, the final zero included; files with longer names are legal, llama.cpp refuses them."""
_CODES = {name: code for table in (gguf_header.RAW, gguf_header.BLOCKS) for code, name in table.items()}


def matches(head: bytes) -> bool:
    """Whether a file begins with GGUF's magic."""
    return head.startswith(gguf_header.MAGIC)


def read(source: Source, options: ReadOptions | None = None) -> TensorMap:
    """Read the header of a GGUF file; of one part of a split file, the headers of all parts.

    Raises
    ------
    CorruptFileError
        The header is not as the format demands, or the file is shorter than it says.
    SourceError
        A part of a split file is missing.
    """
    with collector_paused():
        header = gguf_header.parse(source)
        from weighttools.formats.gguf import split as gguf_split

        if gguf_split.n_parts(header.metadata) > 1:
            return gguf_split.joined(source, header)
        return tensor_map(source, header)


def losses(tensor_map: TensorMap) -> list[str]:
    """Return what GGUF cannot hold; raise where it cannot hold the map at all.

    Raises
    ------
    SpecError
        A dtype or an encoding that GGUF does not have, more than four dimensions, a name that is not Unicode.
    """
    for name, tensor in tensor_map.items():
        _check_writable(name, tensor.spec)
    refuse_shapes(tensor_map, "GGUF", MAX_DIMENSIONS, MAX_ELEMENTS // 8 - 1)
    _header_pieces(tensor_map)
    _refuse_padding(tensor_map)
    return [*_long_names(tensor_map), *_odd_metadata(tensor_map.metadata), *_ties(tensor_map.aliases)]


def _check_writable(name: str, spec: Spec) -> None:
    if _type_name(spec) not in _CODES:
        raise SpecError(
            f"GGUF has no dtype {spec.label} (tensor {name!r})", remedy=instead(name, spec), code="cannot-hold"
        )
    if len(spec.shape) > MAX_DIMENSIONS:
        raise SpecError(
            f"tensor {name!r} has {len(spec.shape)} dimensions", expected=f"at most {MAX_DIMENSIONS} in GGUF"
        )
    block = QUANTIZED.get(spec.encoding)
    if block is not None and (not spec.shape or spec.shape[-1] % block.elements):
        raise SpecError(f"tensor {name!r} does not fill {spec.encoding} blocks", expected="rows of whole blocks")


def _refuse_padding(tensor_map: TensorMap) -> None:
    sizes = [spec.encoded_bytes for spec in tensor_map.specs()]
    alignment = alignment_of(tensor_map.metadata)
    padding = sum(_padded(n, alignment) - n for n in sizes)
    if padding > budgets.PADDING_FREE + sum(sizes):
        raise SpecError(
            f"an alignment of {alignment:,} pads {sum(sizes):,} bytes of tensors with {padding:,} more",
            expected=f"the metadata entry {ALIGNMENT} as it usually is, {DEFAULT_ALIGNMENT}",
        )


def _long_names(tensor_map: TensorMap) -> list[str]:
    long = [name for name in tensor_map if len(name.encode("utf-8", "surrogateescape")) > LONGEST_NAME]
    fact = (
        f"names longer than {LONGEST_NAME} bytes, which llama.cpp refuses: {len(long):,}, first {printable(long[0])}"
        if long
        else ""
    )
    return [fact] if long else []


def _odd_metadata(metadata: Mapping[str, Any]) -> list[str]:
    odd = [key for key, value in metadata.items() if value is None or isinstance(value, Mapping)]
    return [f"metadata that GGUF has no type for becomes JSON text: {few(odd)}"] if odd else []


def _ties(aliases: Mapping[str, str]) -> list[str]:
    return [f"GGUF holds no tied names: {', '.join(aliases)} will be lost"] if aliases else []


def _type_name(spec: Spec) -> str:
    """The name of the type a tensor is written as: its quantisation, else its dtype."""
    return spec.encoding if spec.encoding in QUANTIZED else spec.label


def alignment_of(metadata: Mapping[str, Any]) -> int:
    """Return the alignment that metadata asks for, in bytes, or the default.

    Raises
    ------
    SpecError
        It is no power of two, or a large one.
    """
    asked = str(metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT))
    n = int(asked) if asked.isdecimal() and len(asked) < 10 else 0
    if n < 1 or n & (n - 1) or n > budgets.ALIGNMENT:
        raise SpecError(
            f"the metadata entry {ALIGNMENT} is {asked!r}", expected=f"a power of two of at most {budgets.ALIGNMENT:,}"
        )
    return n


def _header_pieces(tensor_map: TensorMap) -> list[Piece]:
    """Return the header as bytes and spans to copy, without the padding behind it."""
    from weighttools.formats.gguf.typed import typed

    is_ours = tensor_map.origin.format == NAME
    metadata = dict(tensor_map.metadata) if is_ours else typed(tensor_map.metadata)
    if ALIGNMENT in metadata:
        metadata[ALIGNMENT] = UInt32(alignment_of(metadata))
    keys = list(metadata) if is_ours else sorted(metadata)
    pieces: list[Piece] = [gguf_header.MAGIC + struct.pack("<IQQ", VERSION, len(tensor_map), len(keys))]
    for key in keys:
        pieces += [encoded_text(key), *encoded(metadata[key])]
    return [*pieces, *_table(tensor_map, alignment_of(metadata))]


def _table(tensor_map: TensorMap, alignment: int) -> Iterator[bytes]:
    offset = 0
    for name, tensor in tensor_map.items():
        spec = tensor.spec
        shape = struct.pack(f"<I{len(spec.shape)}Q", len(spec.shape), *reversed(spec.shape))
        yield encoded_text(name) + shape + struct.pack("<IQ", _CODES[_type_name(spec)], offset)
        offset += _padded(spec.encoded_bytes, alignment)


def _padded(n_bytes: int, alignment: int) -> int:
    return -(-n_bytes // alignment) * alignment


def write(tensor_map: TensorMap, sink: Sink, options: WriteOptions | None = None) -> None:
    """Write a map front to back; what is stored as it should be, quantised or not, is copied undecoded.

    Memory: a few blocks a thread, whatever the size of the map.
    """
    losses(tensor_map)
    alignment = alignment_of(tensor_map.metadata)
    pieces = _header_pieces(tensor_map)
    n_header = sum(piece.length if isinstance(piece, Span) else len(piece) for piece in pieces)
    n_data = sum(_padded(tensor.spec.encoded_bytes, alignment) for tensor in tensor_map.values())
    sink.reserve(_padded(n_header, alignment) + n_data)
    for piece in [*pieces, bytes(-n_header % alignment)]:
        _put(piece, sink)
    with threads((options or WriteOptions()).threads) as pool:
        for tensor in tensor_map.values():
            for part in _data(tensor, lambda fn, jobs: run(fn, jobs, pool, window=4)):
                _put(part, sink)
            sink.write(bytes(-tensor.spec.encoded_bytes % alignment))


def _put(piece: Any, sink: Sink) -> None:
    if isinstance(piece, Span):
        sink.copy(piece)
    else:
        sink.write(piece)


Job = tuple[Tensor, int, int]


def _data(tensor: Tensor, mapped: Callable[[Callable[[Job], Any], Iterator[Job]], Iterator[Any]]) -> Iterator[Any]:
    """Yield a tensor's data: its span where that can be copied, else blocks of bytes."""
    if tensor.stored is not None and tensor.spec.encoding in ("raw", *QUANTIZED):
        yield tensor.stored
        return
    encode = _encoded_block if tensor.spec.encoding in QUANTIZED else raw_block
    runs = plan.blocks(tensor.n_elements, tensor.reader.granularity, BLOCK_ELEMENTS)
    yield from mapped(encode, ((tensor, start, stop) for start, stop in runs))


def _encoded_block(job: Job) -> Any:
    tensor, start, stop = job
    reader: Any = tensor.reader
    blocks: BlockReader = reader
    return blocks.encoded(start, stop)


def check(source: Source) -> Iterator[Finding]:
    """Yield bytes behind the last tensor and its padding."""
    header = gguf_header.parse(source)
    end = max((info.offset + info.length for info in header.tensors.values()), default=header.data_start)
    yield from trailing.behind(source, _padded(end, header.alignment), "the last tensor")


def regions(source: Source) -> list[Region]:
    """Return where the header lies: metadata and the table of tensors."""
    return [Region(0, gguf_header.parse(source).end, "header")]


def read_back(path: Path, tensor_map: TensorMap) -> AbstractContextManager[ReadBack]:
    """Open what was written with the reference reader."""
    from weighttools.formats.gguf.readback import read_back as opened

    return opened(path, tensor_map)


FORMAT = Format(matches, read, write, losses, check, frozenset(QUANTIZED), read_back, regions)

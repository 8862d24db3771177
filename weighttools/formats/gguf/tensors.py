"""From the header of one GGUF file to the map of its tensors."""

from __future__ import annotations

from weighttools.core.readers import Raw
from weighttools.core.spec import Source, Span
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import Origin, Row, TensorMap
from weighttools.encodings.quantized import Quantized
from weighttools.formats.gguf.header import GGUFHeader, Info

NAME = "gguf"


def tensor_map(source: Source, header: GGUFHeader) -> TensorMap:
    """Return the map of one file."""
    rows: dict[str, Tensor | Row] = {name: _row(source, info, header.order) for name, info in header.tensors.items()}
    return TensorMap(rows, header.metadata, origin=Origin(source.name, NAME, (source.name,)))


def _row(source: Source, info: Info, order: str) -> Tensor | Row:
    spec, span = info.spec, Span(source, info.offset, info.length)
    if spec.is_quantized:
        return Tensor(spec, Quantized(span, spec.encoding), span)
    if spec.encoding != "raw":
        return Tensor(spec, Raw(span, spec.dtype, order), span)
    return spec, source, info.offset, info.length

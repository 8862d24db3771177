"""Encoding floating weights as quantised blocks."""

from __future__ import annotations

from weighttools.core.encodings import QUANTIZED
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap, Transform
from weighttools.encodings.quantized import Encoder
from weighttools.errors import SpecError, option
from weighttools.families.packed import is_scale, refuse
from weighttools.transforms.dequantize import without_file_type

TARGETS = ("q8_0",)


def quantize(encoding: str) -> Transform:
    """Return a transform after which floating weights are stored as `encoding`.

    These are the tensors of two dimensions or more whose last axis is whole blocks; norms, biases, integers and what
    is quantised already stay as they are. The rounding is that of ggml's reference implementation.

    Raises
    ------
    SpecError
        `encoding` is none that is written here, or weights are packed already.
    """
    if encoding not in TARGETS:
        raise SpecError(f"cannot quantise to {encoding!r}", expected=f"one of {', '.join(TARGETS)}")
    from weighttools.core.dtypes import DTYPES

    n_block = QUANTIZED[encoding].elements

    def one(name: str, tensor: Tensor) -> Tensor:
        fits = len(tensor.shape) >= 2 and tensor.shape[-1] % n_block == 0
        if not fits or is_scale(name) or not tensor.dtype.is_float or tensor.spec.is_quantized:
            return tensor
        return Tensor(Spec(DTYPES["float32"], tensor.shape, encoding), Encoder(tensor.reader, encoding))

    def transform(tensor_map: TensorMap) -> TensorMap:
        refuse(tensor_map, option("quantize"))
        found = tensor_map.map(one)
        return found.replace(metadata=without_file_type(found.metadata))

    return transform

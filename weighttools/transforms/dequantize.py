"""Decoding quantised tensors to the floats they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weighttools.core.patterns import matching
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import option
from weighttools.families.packed import refuse

FILE_TYPE = "general.file_type"
"""GGUF's number for the encoding that most of a file has; it is left out once encodings change."""


def dequantize(keep: Sequence[str] = ()) -> Transform:
    """Return a transform after which quantised tensors are raw float32, as their encoding decodes them.

    Parameters
    ----------
    keep
        Name patterns of tensors to leave as they are.

    Raises
    ------
    SpecError
        Weights are packed in a way that is not decoded.
    TensorNotFoundError
        A pattern of `keep` matches nothing.
    """

    def transform(tensor_map: TensorMap) -> TensorMap:
        kept = matching(tensor_map, keep) if keep else set()
        refuse(tensor_map, option("dequantize"), kept)
        quantized = {name for name in tensor_map if name not in kept and tensor_map[name].spec.is_quantized}
        if not quantized:
            return tensor_map
        found = tensor_map.map(lambda name, tensor: decoded(tensor) if name in quantized else tensor)
        return found.replace(metadata=without_file_type(found.metadata))

    return transform


def decoded(tensor: Tensor) -> Tensor:
    """Return a quantised tensor as a raw one of its dtype; any other as it is."""
    return Tensor(Spec(tensor.dtype, tensor.shape), tensor.reader) if tensor.spec.is_quantized else tensor


def without_file_type(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata without the entry that would be wrong now."""
    return {key: value for key, value in metadata.items() if key != FILE_TYPE}

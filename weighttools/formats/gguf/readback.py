"""What was written, as the package ``gguf`` reads it: to compare, quantised tensors by their stored bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from weighttools.core.tensormap import TensorMap
from weighttools.errors import MissingDependencyError, install
from weighttools.formats.base import ReadBack, Stored
from weighttools.formats.gguf.header import BLOCKS, RAW
from weighttools.formats.raw import pieces_of

_LABELS = {**RAW, **BLOCKS}
_NO_SCALARS = "bfloat16"
"""Which the package takes for bytes, whose last axis it then halves."""


@contextmanager
def read_back(path: Path, tensor_map: TensorMap) -> Iterator[ReadBack]:
    """Open a file, which is mapped.

    Raises
    ------
    MissingDependencyError
        The package is not installed, or too old for an encoding of the map.
    """
    if find_spec("gguf") is None:
        raise MissingDependencyError("the package gguf is not installed", remedy=install("gguf"))
    from importlib.metadata import version

    import gguf

    reader = f"gguf {version('gguf')}"
    known = {_LABELS.get(int(kind)) for kind in gguf.GGMLQuantizationType}
    strange = sorted({spec.label for spec in tensor_map.specs()} - known)
    if any(spec.label == _NO_SCALARS and not spec.shape for spec in tensor_map.specs()):
        strange.append(f"{_NO_SCALARS} without axes")
    if strange:
        raise MissingDependencyError(f"{reader} does not read {strange[0]}")
    tensors = {tensor.name: partial(_stored, tensor) for tensor in gguf.GGUFReader(path).tensors}
    yield ReadBack(reader, tensors)


def _stored(tensor: Any) -> Stored:
    shape = tuple(int(length) for length in reversed(tensor.shape))
    return Stored(_LABELS.get(int(tensor.tensor_type)), shape, partial(pieces_of, tensor.data))

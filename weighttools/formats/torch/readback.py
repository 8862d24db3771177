"""What was written, as ``torch.load(weights_only=True)`` reads it: to compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighttools.core.tensormap import TensorMap
from weighttools.errors import MissingDependencyError
from weighttools.formats.base import ReadBack, Stored
from weighttools.formats.raw import pieces_of
from weighttools.formats.torch.tensors import PACKED_FLOAT4, TORCH_DTYPES

if TYPE_CHECKING:
    from weighttools.core.spec import Array


@contextmanager
def read_back(path: Path, tensor_map: TensorMap) -> Iterator[ReadBack]:
    """Open a file, which is mapped; tied names are left to the map.

    Raises
    ------
    MissingDependencyError
        PyTorch is not installed.
    """
    if find_spec("torch") is None:
        raise MissingDependencyError("PyTorch is not installed", remedy="pip install torch")
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    found = {name: partial(_stored, tensor) for name, tensor in state.items() if name not in tensor_map.aliases}
    yield ReadBack(f"torch {torch.__version__}", found)


def _stored(tensor: Any) -> Stored:
    kind, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
    if kind == PACKED_FLOAT4:
        shape = (*shape[:-1], 2 * shape[-1])
    return Stored(TORCH_DTYPES.get(kind), shape, partial(_bytes, tensor))


def _bytes(tensor: Any) -> Iterator[Array]:
    import torch

    flat = tensor.contiguous().reshape(-1)
    if flat.numel():
        yield from pieces_of(flat.view(torch.uint8).numpy())

"""Arrays to torch tensors and back, bit by bit: torch and NumPy know some dtypes only by other names."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.formats.conformance import Arrays
from weighttools.core.dtypes import DTYPES

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def torch_dtype(name: str) -> torch.dtype:
    """Return torch's dtype of a name of ours."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def to_torch(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return a tensor of the array's dtype and bits."""
    flat = torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8) if array.size else torch.empty(0).byte()
    return flat.view(torch_dtype(array.dtype.name)).reshape(array.shape)


def from_torch(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return an array of the tensor's dtype, shape and bits, in C order."""
    plain = tensor.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    name = str(plain.dtype).removeprefix("torch.")
    raw = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else np.empty(0, np.uint8)
    return raw.view(DTYPES[name].numpy).reshape(tuple(plain.shape))


def flat(value: Any) -> Arrays:
    """Return the tensors of a state dict as arrays."""
    return {name: from_torch(held) for name, held in value.items() if isinstance(held, torch.Tensor)}

"""Memory that is used again for every block: the first touch of fresh pages costs more than the arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from weighttools.core.spec import Array


class Scratch:
    """One thread's buffers, by name; each grows to the largest size asked for."""

    def __init__(self) -> None:
        self._buffers: dict[str, Array] = {}

    def get(self, name: str, dtype: Any, n: int) -> Array:
        """Return `n` elements of `dtype` of the buffer called `name`, with whatever they hold."""
        n_bytes = n * np.dtype(dtype).itemsize
        held = self._buffers.get(name)
        if held is None or held.size < n_bytes:
            held = self._buffers[name] = np.empty(n_bytes, np.uint8)
        return held[:n_bytes].view(dtype)

"""How much memory the values take while a map is written."""

from __future__ import annotations

from collections.abc import Iterable

from weighttools.core import plan
from weighttools.core.engine import n_threads
from weighttools.core.readers import Positioned
from weighttools.core.tensor import Tensor

_COPY_BYTES = 8 << 20
"""Copied tensors need one buffer of this size."""


def planned_peak(tensors: Iterable[Tensor]) -> int:
    """Return the planned peak memory of values, in bytes: copied tensors need one buffer, decoded ones their blocks."""
    decoded = [t for t in tensors if t.stored is None or not (t.spec.encoding == "raw" or t.spec.is_quantized)]
    blocks = [min(t.run_elements, t.n_elements) * _element_bytes(t) for t in decoded]
    return max(_COPY_BYTES, plan.peak_bytes(blocks, n_threads()))


def _element_bytes(tensor: Tensor) -> int:
    """Return the bytes that one element under way takes; where it is computed, in float64 and with temporaries."""
    if isinstance(tensor.decode, Positioned):
        return 40
    return int(getattr(tensor.decode, "element_bytes", max(8, tensor.dtype.bits) // 8))

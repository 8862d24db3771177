"""Keys and values of the tokens that ran before, so that the next one need not run them again."""

from __future__ import annotations

from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.variable import Variable


class Cache:
    """What every layer of a decoder has seen: pass one to a decoder to run only the tokens that are new.

    The arrays hold more positions than are used and double when full, so that a token costs no copy of the rest.
    """

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Array, Array, int]] = {}

    @property
    def length(self) -> int:
        """How many positions have run."""
        return self._layers[0][2] if self._layers else 0

    def extended(self, layer: int, k: Any, v: Any) -> tuple[Any, Any]:
        """Add keys and values (batch, new positions, n_heads, size) of a layer; return all of them, as views.

        Raises
        ------
        SpecError
            Gradients are wanted, or the batch is another one.
        """
        if isinstance(k, Variable) or isinstance(v, Variable):
            raise SpecError("a cache holds plain arrays, not variables", remedy="train without a cache")
        if layer not in self._layers:
            self._layers[layer] = (k[:, :0], v[:, :0], 0)
        keys, values, start = self._layers[layer]
        if len(k) != len(keys):
            raise SpecError(f"the cache holds {len(keys)} sequences", expected=f"{len(k)}, as now")
        stop = start + k.shape[1]
        keys, values = _roomy(keys, start, stop), _roomy(values, start, stop)
        keys[:, start:stop], values[:, start:stop] = k, v
        self._layers[layer] = (keys, values, stop)
        return keys[:, :stop], values[:, :stop]


def _roomy(kept: Array, used: int, wanted: int) -> Array:
    """Return `kept` if it has room for `wanted` positions, else a copy with twice as much."""
    if wanted <= kept.shape[1]:
        return kept
    larger = np.empty((len(kept), max(wanted, 2 * kept.shape[1]), *kept.shape[2:]), kept.dtype)
    larger[:, :used] = kept[:, :used]
    return larger

"""Adam with a byte for each moment instead of four, quantised block by block.

Each run of 2,048 elements is stored as codes of a dynamic table, which spends its bits near zero, and the run's largest
magnitude. The second moment is kept by its root, so the table's seven decades are fourteen of squares; what is not
zero never becomes zero, for the update is divided by it.

References
----------
Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861, sections 2 and 3.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from weighttools.train.autograd.gradients import Array
from weighttools.train.optim.transforms import Adam, ParameterRun, Shapes

BLOCK = 2048
"""Elements that share a scale."""
WORTH = 4096
"""Smaller parameters (norms, biases) keep their moments whole."""


@dataclass(frozen=True, slots=True)
class QuantisedAdam(Adam):
    """Adam's update from moments of 8 bits; the state is 2 bytes a parameter."""

    dtypes: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"first_moment_codes": np.uint8, "root_moment_codes": np.uint8}
    )
    strides: ClassVar[Mapping[str, int]] = MappingProxyType({"first_moment_scale": BLOCK, "root_moment_scale": BLOCK})

    def slots(self, p: Array) -> Shapes:
        """Keep codes and scales of the first moment and of the second one's root."""
        if p.size < WORTH:
            return Adam.slots(self, p)
        scales = (-(-p.size // BLOCK),)
        moments = ("first_moment", "root_moment")
        return {f"{m}_codes": p.shape for m in moments} | {f"{m}_scale": scales for m in moments}

    def kernel(self, u: Array, out: Array, piece: ParameterRun, common: tuple[float, float], gain: float) -> Array:
        """Read the moments, update and divide as Adam does, and store them again."""
        if "first_moment_sum" in piece.slots:
            return Adam.kernel(self, u, out, piece, common, gain)
        m, root = (_read(piece, name, u.dtype) for name in ("first_moment", "root_moment"))
        m *= self.betas[0]
        m += u
        root *= root
        root *= self.betas[1]
        root += np.multiply(u, u, out=piece.scratch)
        np.sqrt(root, out=root)
        _write(piece, "first_moment", m)
        _write(piece, "root_moment", root)
        root += common[1]
        np.divide(m, root, out=out)
        out *= common[0] * gain
        return out


def _read(piece: ParameterRun, name: str, dtype: Any) -> Array:
    values = np.take(table(name == "first_moment"), piece.slots[f"{name}_codes"], mode="clip")  # quickest so
    values = values.astype(dtype, copy=False)
    _times(values, piece.slots[f"{name}_scale"])
    return values


def _write(piece: ParameterRun, name: str, values: Array) -> None:
    scale = piece.slots[f"{name}_scale"]
    np.maximum.reduceat(np.abs(values, out=piece.scratch), np.arange(0, values.size, BLOCK), out=scale)
    shares = np.array(values, values.dtype)
    _times(shares, np.divide(1, scale, out=np.zeros_like(scale), where=scale > np.finfo(np.float32).tiny))
    upper = shares.astype(np.float32, copy=False).view(np.uint32) >> 16
    np.take(codes(name == "first_moment"), upper, out=piece.slots[f"{name}_codes"])


def _times(values: Array, scale: Array) -> None:
    """Multiply each block by its scale, in place."""
    whole = values.size // BLOCK
    values[: whole * BLOCK].reshape(whole, BLOCK)[...] *= scale[:whole, None]
    values[whole * BLOCK :] *= scale[whole:]


@functools.cache
def table(is_signed: bool) -> Array:
    """Return the 256 values, in order, of a code: 0, 1, and in each decade from 1e-6 twice as many as in the one below.

    >>> [int(((table(False) > 10.0**-i) & (table(False) < 10.0 ** (1 - i))).sum()) for i in (1, 2, 7)]
    [128, 64, 2]
    """
    values = [0.0, 1.0]
    for i in range(7):
        edges = np.linspace(0.1, 1, 2 ** (i + (0 if is_signed else 1)) + 1)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (i - 6)
        values += [*middles, *(-middles if is_signed else ())]
    return np.sort(values).astype(np.float32)


@functools.cache
def codes(is_signed: bool) -> Array:
    """Return the nearest value's code for each upper half of a float32, taken for the middle of what it stands for."""
    x = ((np.arange(1 << 16, dtype=np.uint32) << 16) | 0x8000).view(np.float32)
    x = np.clip(np.nan_to_num(x), -1, 1)
    values = table(is_signed)
    nearest = np.searchsorted((values[:-1] + values[1:]) / 2, x)
    if not is_signed:  # a root that is not zero must not become zero
        nearest[(nearest == 0) & (np.arange(1 << 16) > 0) & (x > 0)] = 1
    nearest[[0, 1 << 15]] = int(np.searchsorted(values, 0))
    return nearest.astype(np.uint8)

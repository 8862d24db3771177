"""What decoders share: which positions run, and what each of them may see."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd.arithmetic import Result
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.variable import operation
from weighttools.train.models.bert import positions
from weighttools.train.models.cache import Cache
from weighttools.train.models.rotary import Rotary
from weighttools.train.ops import attention, concat, matmul, softmax, tanh

_BANNED = -1e30


class Seen:
    """The tokens that run now, `ids` (batch, positions) or packed, after those in the cache; and attention over both.

    Parameters
    ----------
    mask
        True at real tokens of the cache and of `ids`: (batch, all positions).
    """

    def __init__(self, ids: Any, mask: Any, lengths: Sequence[int] | None, cache: Cache | None) -> None:
        if cache is not None and lengths is not None:
            raise SpecError("packed sequences go without a cache")
        self.shape, self.lengths, self.cache = ids.shape, lengths, cache
        self.mask = None if mask is None else np.asarray(mask, bool)
        self.positions = positions(ids, lengths) + (cache.length if cache else 0)
        self._tables: dict[int, tuple[Array, Array]] = {}

    def tables(self, rotary: Rotary, dtype: Any) -> tuple[Array, Array]:
        """Return the cosines and sines of the positions, computed once for all layers that share `rotary`."""
        if id(rotary) not in self._tables:
            self._tables[id(rotary)] = rotary.tables(self.positions, dtype)
        return self._tables[id(rotary)]

    def attend(
        self,
        i: int,
        q: Any,
        k: Any,
        v: Any,
        *,
        window: int | None = None,
        scale: float | None = None,
        cap: float | None = None,
    ) -> Any:
        """Return causal attention of layer `i`.

        `window`: how many of the last tokens are seen, itself included. `cap`: scores are ``cap * tanh(score / cap)``.
        """
        if self.cache is not None:
            k, v = self.cache.extended(i, k, v)
        if self.lengths is not None:
            return _packed(q, k, v, self.lengths, window, scale, cap)
        mask = self._windowed(q.shape[0], k.shape[1], window)
        if cap is not None:
            return _capped(q, k, v, mask, scale, cap)
        return attention(q, k, v, causal=True, mask=mask, scale=scale)

    def _windowed(self, batch: int, n_keys: int, window: int | None) -> Any:
        if window is None or n_keys <= window:
            return self.mask
        band = _band(self.positions, n_keys, window)
        pads = True if self.mask is None else self.mask[:, None]
        return np.broadcast_to(band & pads, (batch, *band.shape))


def _band(positions: Array, n_keys: int, window: int) -> Array:
    """Return where a key is among the last `window` of a position, itself included: (positions, n_keys)."""
    found: Array = np.arange(n_keys) > positions[:, None] - window
    return found


def _packed(
    q: Any, k: Any, v: Any, lengths: Sequence[int], window: int | None, scale: float | None, cap: float | None
) -> Any:
    """Return causal attention of sequences that lie end to end; parameters as `Seen.attend`'s."""
    if cap is not None:
        alone = zip(_spans(lengths), _bands(lengths, window), strict=True)
        return concat(*(_capped(q[s][None], k[s][None], v[s][None], band, scale, cap)[0] for s, band in alone))
    if window is None or max(lengths, default=0) <= window:
        return attention(q, k, v, causal=True, lengths=lengths, scale=scale)
    return windowed(q, k, v, lengths=lengths, window=window, scale=scale)


def _spans(lengths: Sequence[int]) -> list[slice]:
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(np.cumsum([0, *lengths]))]


def _bands(lengths: Sequence[int], window: int | None) -> list[Array | None]:
    """Return each sequence's mask (1, positions, positions), None where its window hides nothing."""
    return [None if window is None or n <= window else _band(np.arange(n), n, window)[None] for n in lengths]


@operation
def windowed(
    q: Array, k: Array, v: Array, /, *, lengths: Sequence[int], window: int, scale: float | None = None, keep: bool
) -> Result:
    """Return causal attention of packed sequences, whose tokens see the last `window` of their own sequence.

    Parameters
    ----------
    q, k, v, lengths, scale
        As `attention` has them; what is kept for the way back is the same.
    """
    one: Any = attention  # whose function without a tape is an attribute
    spans, alone = _spans(lengths), functools.partial(one.with_pullback, causal=True, scale=scale, keep=keep)
    parts = [
        alone(*(x[span][None] for x in (q, k, v)), mask=band)
        for span, band in zip(spans, _bands(lengths, window), strict=True)
    ]

    def pullback(dy: Array, need: Sequence[bool]) -> list[Array | None]:
        grads = [back(dy[span][None], need) for span, (_, back) in zip(spans, parts, strict=True)]
        return [np.concatenate([g[i][0] for g in grads]) if wanted else None for i, wanted in enumerate(need)]

    return np.concatenate([y[0] for y, _ in parts]), pullback


def soft_cap(x: Any, cap: float | None) -> Any:
    """Return ``cap * tanh(x / cap)``, which never leaves the range of -cap to cap; `x` itself without a cap."""
    return x if cap is None else tanh(x * (1 / cap)) * cap


def _capped(q: Any, k: Any, v: Any, mask: Any, scale: float | None, cap: float) -> Any:
    """Return attention with capped scores, made of plain operations.

    References
    ----------
    Gemma 2, arXiv:2408.00118, section 2: logit soft-capping.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    (batch, t, heads, size), (s, n_keys) = q.shape, k.shape[1:3]
    q = q.reshape(batch, t, n_keys, heads // n_keys, size).transpose(0, 2, 3, 1, 4)
    k = k.reshape(batch, s, n_keys, 1, size).transpose(0, 2, 3, 4, 1)
    v = v.reshape(batch, s, n_keys, 1, v.shape[-1]).transpose(0, 2, 3, 1, 4)
    p = softmax(soft_cap(matmul(q, k) * scale, cap) + _bias(mask, t, s, q.dtype))
    return matmul(p, v).transpose(0, 3, 1, 2, 4).reshape(batch, t, heads, v.shape[-1])


def _bias(mask: Any, t: int, s: int, dtype: Any) -> Array:
    """Return what bans keys that are later or masked, to be added to scores (batch, key heads, groups, t, s)."""
    seen = np.tri(t, s, s - t, dtype=bool)[None]
    if mask is not None:
        seen = seen & (mask if mask.ndim == 3 else mask[:, None])
    return np.where(seen, 0, _BANNED).astype(dtype)[:, None, None]

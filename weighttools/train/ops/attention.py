"""Softmax attention, sequence by sequence through strided views, and rotary positions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from weighttools.train.autograd.arithmetic import Result
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.operands import floats
from weighttools.train.autograd.variable import operation
from weighttools.train.parallel import SPLIT, blocks, n_threads, scratch, spread

_BANNED = -1e30
"""Added to a score that must not count; finite, so that differences of two stay numbers."""


_SCORES = 1 << 17
"""Scores of a job, at most, unless one head has more: they stay in the cache from one step to the next."""


class _Job(NamedTuple):
    """Some key heads of one sequence: indices of the sequence and the heads, and where their probabilities lie."""

    sequence: int
    heads: slice
    offset: int
    shape: tuple[int, int, int, int]


@operation
def attention(
    q: Array,
    k: Array,
    v: Array,
    /,
    *,
    causal: bool = False,
    mask: Array | None = None,
    lengths: Sequence[int] | None = None,
    scale: float | None = None,
    keep: bool,
) -> Result:
    """Return ``softmax(q k' scale) v`` for every head.

    Parameters
    ----------
    q
        (B, T, H, D): batch, positions, query heads, head size. With `lengths`: (sum of lengths, H, D).
    k, v
        (B, S, K, D), where K divides H: each key head serves H / K query heads (grouped queries). v may have
        another last length, which is then that of the result. With `lengths`: (sum of lengths, K, D).
    causal
        Position i of the last T of S sees keys up to its own only.
    mask
        True where a key may be seen: (B, S), or (B, T, S). A query that sees nothing gives zeros.
    lengths
        Sequences of these lengths are packed end to end, without padding; each sees itself alone.
    scale
        1 / sqrt(D) unless given.

    Notes
    -----
    Keeps the probabilities, B * H * T * S elements. The true gradient of a bias on the keys is zero.

    References
    ----------
    Vaswani et al., Attention Is All You Need, arXiv:1706.03762, equation 1; grouped queries: arXiv:2305.13245.
    """
    floats("attention", q, k, v)
    n_groups, factor = _checked(q, k, v, lengths, mask), q.shape[-1] ** -0.5 if scale is None else float(scale)
    y = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    views = _views((q, k, v, y), k.shape[-2], n_groups, lengths)
    biases = _biases(views, causal, mask, q.dtype)
    jobs, total = _jobs(views)
    kept = np.empty(total, q.dtype) if keep else None

    def kernel(job: _Job) -> None:
        qs, ks, vs, ys = (view[job.heads] for view in views[job.sequence])
        p = scratch(job.shape, 2, q.dtype)[1] if kept is None else _part(kept, job)
        np.matmul(qs, ks.swapaxes(-1, -2), out=p)
        p *= factor
        for bias in biases(job.sequence):
            p += bias
        _to_probabilities(p)
        np.matmul(p, vs, out=ys)

    spread(kernel, [(job,) for job in jobs])
    return y, lambda dy, need: _back((q, k, v, y), dy, kept, jobs, factor, lengths, need)


def _checked(q: Array, k: Array, v: Array, lengths: Sequence[int] | None, mask: Array | None) -> int:
    """Return how many query heads share a key head."""
    wanted = 4 if lengths is None else 3
    if {q.ndim, k.ndim, v.ndim} != {wanted}:
        raise ValueError(f"queries, keys and values need {wanted} axes")
    if k.shape[:-1] != v.shape[:-1] or (lengths is None and q.shape[0] != k.shape[0]):
        raise ValueError("batches, positions or heads differ")
    if q.shape[-2] % max(1, k.shape[-2]):
        raise ValueError(f"{k.shape[-2]} key heads do not divide {q.shape[-2]} query heads")
    if lengths is not None and (mask is not None or not q.shape[0] == k.shape[0] == np.sum(lengths)):
        raise ValueError(f"lengths sum to {np.sum(lengths)}, and go without a mask")
    if mask is not None and mask.shape not in ((k.shape[0], k.shape[1]), (k.shape[0], q.shape[1], k.shape[1])):
        raise ValueError(f"a mask of shape {mask.shape}")
    n_groups: int = q.shape[-2] // max(1, k.shape[-2])
    return n_groups


def _views(arrays: Sequence[Array], n_keys: int, n_groups: int, lengths: Sequence[int] | None) -> list[list[Array]]:
    """Return for every sequence its queries, keys, values, results as views (key head, group, position, D)."""
    ends = list(itertools.accumulate(lengths or (), initial=0))
    spans: list[Any] = list(range(len(arrays[0]))) if lengths is None else [slice(*s) for s in itertools.pairwise(ends)]
    groups = (n_groups, 1, 1, n_groups)
    split = [a.reshape(*a.shape[:-2], n_keys, g, a.shape[-1]) for a, g in zip(arrays, groups, strict=True)]
    return [[a[span].transpose(1, 2, 0, 3) for a in split] for span in spans]


def _jobs(views: Sequence[Sequence[Array]]) -> tuple[list[_Job], int]:
    """Cut the work into pieces whose probabilities stay in the cache; return also their total size."""
    jobs, offset = [], 0
    is_small = sum(v[0].size * v[1].shape[2] for v in views) <= SPLIT  # a token on its own, when text is generated
    for i, (q, k, *_) in enumerate(views):
        n_keys, n_groups, n_queries, _ = q.shape
        one = n_groups * n_queries * k.shape[2]
        share = n_keys if is_small else -(-len(views) * n_keys // n_threads())
        step = max(1, min(n_keys, _SCORES // max(1, one), share))
        for start in range(0, n_keys, step):
            n = min(step, n_keys - start)
            jobs.append(_Job(i, slice(start, start + n), offset, (n, n_groups, n_queries, k.shape[2])))
            offset += n * one
    return jobs, offset


def _part(kept: Array, job: _Job) -> Array:
    n, n_groups, n_queries, n_positions = job.shape
    return kept[job.offset : job.offset + n * n_groups * n_queries * n_positions].reshape(job.shape)


def _biases(
    views: Sequence[Sequence[Array]], causal: bool, mask: Array | None, dtype: Any
) -> Callable[[int], Iterator[Array]]:
    """Return a function from a sequence's index to what is added to its scores."""
    pads = None if mask is None or mask.all() else np.where(mask, 0, _BANNED).astype(dtype)
    sizes = {(v[0].shape[2], v[1].shape[2]) for v in views} if causal else set()
    later = {(t, s): np.where(np.tri(t, s, s - t, dtype=bool), 0, _BANNED).astype(dtype) for t, s in sizes}

    def of(sequence: int) -> Iterator[Array]:
        if causal:
            yield later[views[sequence][0].shape[2], views[sequence][1].shape[2]]
        if pads is not None:
            yield pads[sequence]

    return of


def _to_probabilities(s: Array) -> None:
    """Turn rows of scores into probabilities in place.

    The maximum of the whole block is taken off, which is one fast pass. Should a row all but vanish against it, every
    row's own maximum is used instead: above the bound, what underflows beside the row's sum is below its precision.
    """
    if not s.size:
        return
    ones, (e,) = np.ones(s.shape[-1], s.dtype), scratch(s.shape, 1, s.dtype)
    s -= max(float(s.max()), _BANNED / 10)
    np.exp(s, out=e)
    total = e @ ones
    if not total.min() > 1e-30:
        s -= np.maximum(s.max(-1, keepdims=True), _BANNED / 10)
        np.exp(s, out=e)
        total = e @ ones
        total[total == 0] = 1  # a row that sees nothing
    np.reciprocal(total, out=total)
    np.multiply(e, total[..., None], out=s)


def _back(
    arrays: Sequence[Array],
    dy: Array,
    kept: Any,
    jobs: Sequence[_Job],
    factor: float,
    lengths: Sequence[int] | None,
    need: Sequence[bool],
) -> list[Array | None]:
    q, k = arrays[:2]
    grads = [np.empty(a.shape, a.dtype) if wanted else None for a, wanted in zip(arrays, need, strict=False)]
    n_groups = q.shape[-2] // max(1, k.shape[-2])
    values = _views(arrays, k.shape[-2], n_groups, lengths)
    filled = [a if g is None else g for a, g in zip(arrays, grads, strict=False)]  # a stand-in is not written to
    wanted = _views((*filled, dy), k.shape[-2], n_groups, lengths)

    def kernel(job: _Job) -> None:
        qs, ks, vs, ys = (view[job.heads] for view in values[job.sequence])
        dq, dk, dv, d = (view[job.heads] for view in wanted[job.sequence])
        p, (t,) = _part(kept, job), scratch(job.shape, 1, q.dtype)
        if need[2]:
            _sum_over_group(p, d, dv)
        if need[0] or need[1]:
            np.matmul(d, vs.swapaxes(-1, -2), out=t)
            t -= np.vecdot(d, ys)[..., None]
            t *= p
            t *= factor
        if need[0]:
            np.matmul(t, ks, out=dq)
        if need[1]:
            _sum_over_group(t, qs, dk)

    spread(kernel, [(job,) for job in jobs])
    return grads


def _sum_over_group(a: Array, b: Array, out: Array) -> None:
    """Fill `out` with ``a' b``, summed over the query heads of a key head."""
    if a.shape[1] == 1:
        np.matmul(a.swapaxes(-1, -2), b, out=out)
    else:
        np.sum(np.matmul(a.swapaxes(-1, -2), b), 1, keepdims=True, out=out)


@operation
def rope(x: Array, /, *, cos: Array, sin: Array) -> Result:
    """Rotate the halves of each head by its position's angles.

    Parameters
    ----------
    x
        (..., T, H, D); element i of a head is paired with element i + D / 2.
    cos, sin
        (T, D / 2), from `rope_tables`.

    References
    ----------
    Su et al., RoFormer, arXiv:2104.09864, equation 34, in the order of halves that Hugging Face files use.
    """
    floats("rope", x)
    if cos.shape != (x.shape[-3], x.shape[-1] // 2) or x.shape[-1] % 2:
        raise ValueError(f"tables of shape {cos.shape} where (positions, head size / 2) is wanted")
    return _turn(x, cos, sin), lambda dy, need: (_turn(dy, cos, -sin),)


def _turn(x: Array, cos: Array, sin: Array) -> Array:
    y, half, n_positions = np.empty(x.shape, x.dtype), x.shape[-1] // 2, x.shape[-3]
    whole = np.concatenate([cos, cos], 1)[:, None]  # whole heads: short inner loops are what takes the time
    other = np.stack([-sin, sin], 1)[:, None]

    def kernel(start: int, stop: int) -> None:
        at, out = x[..., start:stop, :, :], y[..., start:stop, :, :]
        np.multiply(at, whole[start:stop], out=out)
        swapped = at.reshape(*at.shape[:-1], 2, half)[..., ::-1, :] * other[start:stop]
        out += swapped.reshape(out.shape)

    spread(kernel, blocks(n_positions, x.size // max(1, n_positions)))
    return y


def rope_tables(
    positions: Array, head_size: int, *, theta: float = 1e4, dtype: Any = np.float32
) -> tuple[Array, Array]:
    """Return cosines and sines, each (len(positions), head_size / 2), of ``position * theta ** (-2 i / head_size)``."""
    angles = np.asarray(positions)[:, None] * theta ** -(np.arange(0, head_size, 2) / head_size)
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)

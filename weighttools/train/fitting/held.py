"""Weights held at zero while the others learn: masks from a pruning, and a sparsity that grows on the way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from weighttools.core.patterns import matching, not_found
from weighttools.errors import SpecError, few
from weighttools.train.autograd.gradients import Array
from weighttools.train.optim.groups import decays
from weighttools.transforms import initializer_ranges as ranges


@dataclass(frozen=True, slots=True)
class Gradual:
    """A sparsity that rises along a cubic, fast while there is much to prune, slow near the end.

    Parameters
    ----------
    final, initial
        The share of zeros at the end and at the start.
    start, stop
        The updates between which it rises: whole numbers, or shares of all updates (below 1, or 1.0).
    every
        Prune every so many updates.
    include
        Name patterns of tensors to prune; None for those that decay: no norms, biases or embeddings.
    scope
        Compare magnitudes in each ``"tensor"`` by itself, or in all of them (``"global"``).

    References
    ----------
    Zhu and Gupta, To prune, or not to prune, arXiv:1710.01878, equation 1.
    """

    final: float
    initial: float = 0.0
    start: float = 0.0
    stop: float = 0.75
    every: int = 10
    include: tuple[str, ...] | None = None
    scope: str = "tensor"

    def __post_init__(self) -> None:
        ranges.amounts("pruning", final=self.final, initial=self.initial, start=self.start, stop=self.stop)
        ranges.counts("pruning", every=self.every)
        if not 0 <= self.initial <= self.final < 1 or self.scope not in ("tensor", "global") or self.every < 1:
            raise SpecError(
                f"pruning from {self.initial:g} to {self.final:g} every {self.every} by {self.scope}",
                expected="0 <= initial <= final < 1, every >= 1, and tensor or global",
            )

    def with_steps(self, n_steps: int | None) -> Gradual:
        """Return the schedule with `start` and `stop` as numbers of updates.

        Raises
        ------
        SpecError
            They are shares of an unknown number, or `stop` lies before `start`.
        """
        ends = []
        for end in (self.start, self.stop):
            is_share = 0 < end < 1 or (isinstance(end, float) and end == 1)
            if is_share and n_steps is None:
                raise SpecError("pruning does not know how many updates there are", remedy="give the number of steps")
            ends.append(round(end * (n_steps or 0)) if is_share else int(end))
        if ends[1] < ends[0]:
            raise SpecError(f"pruning from update {ends[0]} to {ends[1]}", expected="a stop after the start")
        return replace(self, start=ends[0], stop=ends[1])

    def sparsity(self, step: int) -> float:
        """Return the share of zeros after `step` updates.

        >>> schedule = Gradual(0.9, start=0, stop=100)
        >>> [round(schedule.sparsity(t), 4) for t in (0, 50, 100, 200)]
        [0.0, 0.7875, 0.9, 0.9]
        """
        if step < self.start:
            return 0.0
        share = min(1.0, (step - self.start) / max(1, self.stop - self.start))
        return self.final + (self.initial - self.final) * (1 - share) ** 3

    def is_due(self, step: int) -> bool:
        """Whether to prune after `step` updates."""
        is_between = self.start <= step <= self.stop
        return is_between and ((step - self.start) % self.every == 0 or step == self.stop)

    def names(self, params: Mapping[str, Array]) -> list[str]:
        """Return the tensors to prune.

        Raises
        ------
        TensorNotFoundError
            A pattern matches nothing that is trained.
        SpecError
            There are none.
        """
        wanted = matching(params, self.include) if self.include else {n for n, p in params.items() if decays(n, p)}
        if not wanted:
            raise SpecError(
                "there is no matrix to prune",
                subject="pruning while training",
                remedy="train a matrix too, or do not prune",
            )
        return [name for name in params if name in wanted]


def gradual(final: float, **options: Any) -> Gradual:
    """Return a schedule of gradual magnitude pruning for `fit`; options are those of `Gradual`."""
    return Gradual(final, **options)


@dataclass(slots=True)
class ZeroMasks:
    """What is held at zero: for some tensors which elements are kept.

    Parameters
    ----------
    kept
        Booleans of the tensors' shapes, true where a weight lives.
    schedule
        Prunes more on the way; its steps are known.
    """

    kept: dict[str, Array] = field(default_factory=dict)
    schedule: Gradual | None = None

    def check_end(self, n_steps: int | None) -> None:
        """Raise SpecError if a run of so many updates ends before the pruning, and so without its final sparsity."""
        if self.schedule is not None and n_steps is not None and not self.is_final(n_steps):
            raise SpecError(
                f"pruning ends at update {self.schedule.stop:,.0f}, but the run at {n_steps:,}",
                remedy="train for more, or give stop=1.0 to end it with the run",
            )

    def is_final(self, step: int) -> bool:
        """Whether all that is to be pruned is pruned after `step` updates."""
        return self.schedule is None or step >= self.schedule.stop

    def gradients(self, grads: dict[str, Array]) -> dict[str, Array]:
        """Return the gradients, zero where a weight is held: they then count in no norm and move no average."""
        held = {n: np.where(self.kept[n], g, g.dtype.type(0)) for n, g in grads.items() if n in self.kept}
        return grads | held

    def apply(self, params: Mapping[str, Array]) -> None:
        """Set what is held to +0.0."""
        for name, kept in self.kept.items():
            np.copyto(params[name], 0, where=~kept)

    def prune(self, params: Mapping[str, Array], step: int) -> float | None:
        """Prune if the schedule says so after `step` updates; return the sparsity it asked for, or None."""
        if self.schedule is None or not self.schedule.is_due(step):
            return None
        sparsity = self.schedule.sparsity(step)
        names = self.schedule.names(params)
        scopes = [names] if self.schedule.scope == "global" else [[name] for name in names]
        for scope in scopes:
            for name, kept in largest({name: params[name] for name in scope}, sparsity).items():
                self.kept[name] = kept & self.kept[name] if name in self.kept else kept
        self.apply(params)
        return sparsity


def largest(tensors: Mapping[str, Array], sparsity: float) -> dict[str, Array]:
    """Return which elements stay when the smallest by magnitude go, exactly ``round(sparsity * n)`` of them.

    Of equal ones the first go, in the order of the tensors and in C order.
    """
    sizes = np.abs(np.concatenate([p.reshape(-1) for p in tensors.values()]))
    n_drop = round(sparsity * sizes.size)
    keep = np.ones(sizes.size, bool)
    if n_drop:
        edge = np.partition(sizes, n_drop - 1)[n_drop - 1]
        keep &= sizes >= edge
        ties = np.flatnonzero(sizes == edge)
        keep[ties[: n_drop - int(np.count_nonzero(~keep))]] = False
    ends = np.cumsum([p.size for p in tensors.values()])[:-1]
    return {n: k.reshape(p.shape) for (n, p), k in zip(tensors.items(), np.split(keep, ends), strict=True)}


def held(
    masks: Mapping[str, Any] | None,
    prune: Gradual | None,
    params: Mapping[str, Array],
    n_steps: int | None,
    known: Collection[str],
) -> ZeroMasks:
    """Return what to hold, checked against the trained arrays.

    Parameters
    ----------
    masks
        True where a weight is kept, by name: arrays, or a `TensorMap` as ``weighttools prune --mask-out`` writes it.
    prune
        A schedule.
    params
        The trained arrays.
    n_steps
        Updates in all, if known.
    known
        The names of all arrays. A mask of one that does not learn has nothing to hold, and is left out.

    Raises
    ------
    TensorNotFoundError
        A mask is for no tensor of the model.
    SpecError
        A mask is not boolean (or 0 and 1), or has another shape; or all are for arrays that do not learn.
    """
    given = {} if masks is None else masks
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise not_found(unknown, list(known))
    learn = [name for name in given if name in params]
    for name in learn:
        _check_shape(name, np.shape(given[name]), params[name].shape)
    kept = {name: _mask(name, np.asarray(given[name])) for name in learn}
    if given and not kept:
        fact = f"all are of tensors that do not learn: {few(list(given))}"
        raise SpecError(fact, subject="masks", remedy="freeze fewer, or leave the masks out")
    schedule = None if prune is None else prune.with_steps(n_steps)
    if schedule is not None:
        schedule.names(params)
    return ZeroMasks(kept, schedule)


def _check_shape(name: str, given: Sequence[int], shape: Sequence[int]) -> None:
    if tuple(given) != tuple(shape):
        raise SpecError(f"a mask of shape {tuple(given)}", subject=name, expected=f"{tuple(shape)}, as the tensor")


def _mask(name: str, mask: Array) -> Array:
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise SpecError(f"a mask of {mask.dtype}", subject=name, expected="booleans, true where a weight is kept")
    return mask.astype(bool)

"""Descriptive statistics of a checkpoint: which statistics a request needs, in which passes, and the rows they give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighttools.analyzers import extremes, histogram, moments, norms, quantiles, shape, sparsity
from weighttools.analyzers.distribution import Asked, Distribution
from weighttools.analyzers.quantiles import Digits, Key
from weighttools.analyzers.run import Recipe, Record, Statistic, Task, fold_tasks
from weighttools.core.dtypes import DTYPES
from weighttools.core.readers import Held
from weighttools.core.tensor import Spec, Tensor
from weighttools.errors import SpecError
from weighttools.families.axes import TORCH, Axes
from weighttools.io.progress import Progress, silent

if TYPE_CHECKING:
    from concurrent.futures import Executor


MAX_QUANTILES = 100

_HEAVY_BATCH = 8
"""Small tensors in one job where the state of each holds 65,536 counts."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to compute beside moments, extremes and zeros.

    Parameters
    ----------
    quantiles
        Probabilities from 0 to 1.
    bins
        Bins of a histogram; None for none.
    entropy, structure, kurtosis, outliers
        Entropy and distinct values; N:M patterns and what is empty; skewness and kurtosis; channels that stand out.
    near_zero
        Whether to report near-zeros.
    norms
        Norms by singular values: ``spectral``, ``nuclear``.
    """

    quantiles: tuple[float, ...] = ()
    bins: int | None = None
    entropy: bool = False
    structure: bool = False
    kurtosis: bool = False
    outliers: bool = False
    near_zero: bool = False
    norms: tuple[str, ...] = ()

    def checked(self) -> Request:
        """Return the request, its norms only those that take more than the one pass.

        Raises
        ------
        SpecError
            A probability, a number of bins or a norm is none.
        """
        if not all(0 <= p <= 1 for p in self.quantiles):
            raise SpecError(f"quantiles {list(self.quantiles)}", expected="probabilities from 0 to 1")
        if len(self.quantiles) > MAX_QUANTILES:
            raise SpecError(f"{len(self.quantiles):,} quantiles", expected=f"at most {MAX_QUANTILES}")
        if self.bins is not None and not 1 <= self.bins <= histogram.MAX_BINS:
            raise SpecError(f"a histogram of {self.bins} bins", expected=f"1 to {histogram.MAX_BINS:,}")
        unknown = set(self.norms) - {*norms.SINGULAR, *norms.ALWAYS}
        if unknown:
            raise SpecError(f"unknown norm {min(unknown)!r}", expected="one of l1, l2, inf, spectral, nuclear")
        return replace(self, norms=tuple(name for name in norms.SINGULAR if name in self.norms))

    @property
    def is_plain(self) -> bool:
        """Whether the sums of blocks are all that the passes need."""
        return self == Request(near_zero=self.near_zero, norms=self.norms)

    @property
    def distribution(self) -> Asked:
        """What it asks of distributions."""
        return Asked(self.quantiles, self.bins, self.entropy)


@dataclass(frozen=True, slots=True)
class Engine:
    """How to fold: recipe, executor and how many jobs may be under way; threads for singular values."""

    recipe: Recipe = field(default_factory=Recipe)
    executor: Executor | None = None
    window: int = 4
    progress: Progress = silent
    threads: int | None = None


class Group(NamedTuple):
    """Tensors that are described together; a `spec`, and where outputs lie, only for a tensor by itself."""

    tensors: Sequence[Tensor]
    spec: Spec | None = None
    axes: Axes = TORCH


_ALWAYS: tuple[Statistic, ...] = (moments.of, extremes.of, sparsity.of)

_NOTHING = Tensor(Spec(DTYPES["float32"], (0,)), Held(np.zeros(0, np.float32)))

States = Mapping[Statistic, Any]
"""States by the statistics they belong to."""


class _Plan(NamedTuple):
    """What the first pass is to serve: the request, and the key of all tensors together."""

    request: Request
    key: Key

    def plain(self) -> list[Statistic]:
        """Return the statistics of every group."""
        asked: tuple[tuple[bool, Statistic], ...] = (
            (self.request.structure, sparsity.structure),
            (self.request.kurtosis, shape.powers),
            (self.request.outliers, shape.channels),
        )
        return [*_ALWAYS, *(of for wanted, of in asked if wanted)]

    def all_of(self, group: Group) -> list[Statistic]:
        """Return all statistics of a group."""
        if self.counts(group):
            return [*self.plain(), histogram.patterns]
        keys = dict.fromkeys([_key(group), self.key]) if self.request.quantiles else {}
        return [*self.plain(), *map(_leading, keys)]

    def counts(self, group: Group) -> bool:
        """Whether to count bit patterns: the tensors are of one dtype that has at most 65,536 of them."""
        dtypes = {tensor.dtype for tensor in group.tensors}
        return bool(self.request.distribution) and len(dtypes) == 1 and min(dtypes).bits <= 16


def _key(group: Group) -> Key:
    return quantiles.key_for(tensor.dtype for tensor in group.tensors)


def _leading(key: Key) -> Digits:
    return Digits(key, key.first_shift)


def describe(groups: Sequence[Group], request: Request, engine: Engine) -> tuple[list[Record], Record]:
    """Return the row of figures of each group, in order, and that of all of them together.

    All groups are read in one pass. Quantiles and histograms of dtypes of more than two bytes take further ones, each
    over all groups that need it.
    """
    whole = Group([tensor for group in groups for tensor in group.tensors])
    plan = _Plan(request, _key(whole))
    gathered = _Gathered(plan)
    found = []
    for group, states in zip(groups, _first_pass(groups, plan, engine), strict=True):
        gathered.add(group, states)
        found.append(_of_group(group, states, plan))
    if not groups:
        gathered.add(Group([_NOTHING]), next(_first_pass([Group([_NOTHING])], plan, engine)))
    total = gathered.described(whole)
    while _further_pass(found, total, engine):
        pass
    rows = [one.row(request) for one in found]
    if request.norms:
        _add_norms(rows, groups, request, engine)
    return rows, {**total.row(request), **dict.fromkeys(request.norms)}


class _Described(NamedTuple):
    """A group, the figures of the first pass, and its distribution; `is_wide` if further passes may be needed."""

    group: Group
    plain: Record
    distribution: Distribution | None
    is_wide: bool

    def wanted(self) -> list[Statistic]:
        """Return what the next pass is to compute."""
        return self.distribution.wanted() if self.distribution else []

    def take(self, states: States) -> None:
        """Go on with what was wanted."""
        if self.distribution:
            self.distribution.take(states)

    def row(self, request: Request) -> Record:
        """Return all figures."""
        row = {**self.plain, **(self.distribution.figures() if self.distribution else {})}
        if not request.near_zero:
            row.pop("n_near_zero")
        return {key: _plain(value) for key, value in row.items()}


def _of_group(group: Group, states: States, plan: _Plan) -> _Described:
    """Return what the first pass tells of a group: all, where bit patterns were counted (which are large, and go)."""
    row = _finished(states, plan, group.spec)
    asked = plan.request.distribution
    if asked and plan.counts(group):
        row |= Distribution(asked, row, [states[histogram.patterns]]).figures()
    if not asked or plan.counts(group):
        return _Described(group, row, None, is_wide=False)
    leading = (_key(group), states[_leading(_key(group))]) if asked.quantiles else None
    return _Described(group, row, Distribution(asked, row, [], leading, is_wide=True), is_wide=True)


def _finished(states: States, plan: _Plan, spec: Spec | None) -> Record:
    row: Record = {}
    for of in plan.plain():
        row |= states[of].finish(spec)
    return row


class _Gathered:
    """The states of all groups together, as they come."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._states: States = {}
        self._patterns: dict[Any, histogram.Patterns] = {}
        self._is_wide = False

    def add(self, group: Group, states: States) -> None:
        """Add those of a group."""
        leading = _leading(self._plan.key)
        self._is_wide |= not self._plan.counts(group)
        plain = {of: states[of] for of in self._plan.plain()}
        digits: States = {leading: states[leading]} if leading in states else {}
        self._states = {**self._states, **together(self._states, plain), **together(self._states, digits)}
        if histogram.patterns in states:
            found = states[histogram.patterns]
            before = self._patterns.get(found.dtype)
            self._patterns[found.dtype] = found if before is None else before.merge(found)

    def described(self, whole: Group) -> _Described:
        """Return what is known of all."""
        plan, row = self._plan, _finished(self._states, self._plan, None)
        if not plan.request.distribution:
            return _Described(whole, row, None, self._is_wide)
        digits = self._states.get(_leading(plan.key))
        distribution = Distribution(
            plan.request.distribution,
            row,
            list(self._patterns.values()),
            None if digits is None else (plan.key, digits),
            self._is_wide,
        )
        return _Described(whole, row, distribution, self._is_wide)


def together(a: States, b: States) -> States:
    """Merge the states of several tensors, of the statistics of `b`; what tells of places in one tensor is dropped."""
    return {of: _apart(a[of]).merge(_apart(state)) if of in a else state for of, state in b.items()}


def _apart(state: Any) -> Any:
    return state.apart() if isinstance(state, (sparsity.Structure, shape.Channels)) else state


def _first_pass(groups: Sequence[Group], plan: _Plan, engine: Engine) -> Iterator[States]:
    """Yield the states of each group."""
    return _folded([(group, plan.all_of(group)) for group in groups], engine)


def _further_pass(found: Sequence[_Described], total: _Described, engine: Engine) -> bool:
    """Make one more pass over what is still wanted of; whether there was any."""
    of_all = total.wanted()
    wanted = [(one, one.wanted()) for one in found if one.is_wide]
    wanted = [(one, of_one) for one, of_one in wanted if of_one or of_all]
    passed = _folded([(one.group, list(dict.fromkeys([*of_one, *of_all]))) for one, of_one in wanted], engine)
    sums: States = {}
    for (one, of_one), states in zip(wanted, passed, strict=True):
        one.take({of: states[of] for of in of_one})
        sums = together(sums, {of: states[of] for of in of_all})
    if wanted:
        total.take(sums)
    return bool(wanted)


def _folded(wanted: Sequence[tuple[Group, list[Statistic]]], engine: Engine) -> Iterator[States]:
    """Yield the merged states of each group."""
    tasks = (Task(tensor, statistics, group.axes) for group, statistics in wanted for tensor in group.tensors)
    is_heavy = any(of is histogram.patterns or isinstance(of, Digits) for _, statistics in wanted for of in statistics)
    batch = {"batch": _HEAVY_BATCH} if is_heavy else {}
    found = fold_tasks(tasks, engine.recipe, engine.executor, engine.window, engine.progress, **batch)
    for group, statistics in wanted:
        yield reduce(together, (dict(zip(statistics, next(found), strict=True)) for _ in group.tensors))


def planned_bytes(groups: Sequence[Group], request: Request) -> int:
    """Return how many bytes `describe` is going to read, at most."""
    plan = _Plan(request, quantiles.key_for(tensor.dtype for group in groups for tensor in group.tensors))
    passes = sum((1 + _further_passes(group, plan)) * _nbytes(group) for group in groups)
    single = [group.spec for group in groups if group.spec is not None] if request.norms else []
    return passes + sum(map(_norm_bytes, single))


def _nbytes(group: Group) -> int:
    return sum(tensor.spec.nbytes for tensor in group.tensors)


def _further_passes(group: Group, plan: _Plan) -> int:
    """Return the most passes over a group after the first: its own, or those that the total needs."""
    if plan.counts(group):
        return 0
    return max(plan.request.distribution.n_passes(key) for key in (_key(group), plan.key))


def columns(request: Request, by: str) -> list[str]:
    """Return the names of the figures that a request gives, in order."""
    rows, _ = describe([Group([_NOTHING], _NOTHING.spec if by == "tensor" else None)], request, Engine())
    return list(rows[0])


def _add_norms(rows: Sequence[Record], groups: Sequence[Group], request: Request, engine: Engine) -> None:
    """Add the norms by singular values; of groups, which are no matrices, null."""
    single = [(row, group.tensors[0]) for row, group in zip(rows, groups, strict=True) if group.spec is not None]
    for row in rows:
        row.update(dict.fromkeys(request.norms))
    found = norms.singular_norms([tensor for _, tensor in single], request.norms, engine.threads)
    for (row, tensor), figures in zip(single, found, strict=True):
        row.update(figures)
        engine.progress(_norm_bytes(tensor.spec))


def _norm_bytes(spec: Spec) -> int:
    return spec.nbytes if norms.is_matrix(spec) else 0


def _plain(value: Any) -> Any:
    """Return a figure as JSON holds it: what is beyond float64's range is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value

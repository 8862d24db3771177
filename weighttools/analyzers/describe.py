"""Descriptive statistics of a checkpoint: which statistics a request needs, in which passes, and the rows they give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from weighttools.analyzers import extremes, histogram, moments, norms, quantiles, zeros
from weighttools.analyzers.asking import Engine, Group, Request, Totals
from weighttools.analyzers.distribution import Distribution
from weighttools.analyzers.quantiles import Digits, Key
from weighttools.analyzers.run import FoldTask, Record, Statistic, fold_tasks
from weighttools.core.dtypes import DTYPES
from weighttools.core.readers import Held
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor

_HEAVY_BATCH = 8
"""Small tensors in one job where the state of each holds 65,536 counts."""


_ALWAYS: tuple[Statistic, ...] = (moments.of, extremes.of, zeros.of)

_NOTHING = Tensor(Spec(DTYPES["float32"], (0,)), Held(np.zeros(0, np.float32)))

COUNTED = ("count", "n_zero", "n_nan", "n_inf")
"""What can be counted of tensors that have no figures in common: buffers, integers, training state."""

States = Mapping[Statistic, Any]
"""States by the statistics they belong to."""


class _Plan(NamedTuple):
    """What the first pass is to serve: the request, and the key of all tensors together."""

    request: Request
    key: Key

    def plain(self) -> list[Statistic]:
        """Return the statistics of every group."""
        return [*_ALWAYS, *(analyzer.of for analyzer in self.request.analyzers.values())]

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


def describe(groups: Sequence[Group], request: Request, engine: Engine) -> tuple[list[Record], Totals]:
    """Return the row of figures of each group, in order, and those of all of them together.

    All groups are read in one pass. Quantiles and histograms of dtypes of more than two bytes take further ones, each
    over all groups that need it.
    """
    whole = Group([tensor for group in groups for tensor in group.tensors])
    plan = _Plan(request, _key(whole))
    halves = {True: _Gathered(plan), False: _Gathered(plan)}
    found = []
    for group, parts in zip(groups, _first_pass(groups, plan, engine), strict=True):
        for half, states in parts.items():
            halves[half].add(group, states)
        found.append(_of_group(group, _whole(parts), plan))
    if not groups:
        halves[True].add(Group([_NOTHING]), next(_first_pass([Group([_NOTHING])], plan, engine))[True])
    totals = _totals(groups, halves, plan)
    while _further_pass(found, totals, engine):
        pass
    rows = [one.row(request) for one in found]
    if request.norms:
        _add_norms(rows, groups, request, engine)
    figures = [{**total.row(request), **dict.fromkeys(request.norms)} for total in totals]
    others = halves[False].counted() if len(totals) > 1 else None
    return rows, Totals(figures[0], figures[1] if len(totals) > 1 else None, others)


def _totals(groups: Sequence[Group], halves: Mapping[bool, _Gathered], plan: _Plan) -> list[_Described]:
    """Return what is known of all tensors, and of the parameters if there are others too."""
    tensors: dict[bool, list[Tensor]] = {True: [], False: []}
    for group in groups:
        for half, those in group.halves().items():
            tensors[half] += those
    everything = Group([*tensors[True], *tensors[False]], None, len(tensors[True]))
    if not tensors[True] or not tensors[False]:
        return [halves[not tensors[False]].described(everything)]
    return [halves[True].joined(halves[False]).described(everything), halves[True].described(Group(tensors[True]))]


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

    def joined(self, other: _Gathered) -> _Gathered:
        """Return both together."""
        found = _Gathered(self._plan)
        found._is_wide = self._is_wide or other._is_wide
        found._states = {**self._states, **together(self._states, other._states)}
        found._patterns = {**other._patterns, **self._patterns}
        for dtype in self._patterns.keys() & other._patterns.keys():
            found._patterns[dtype] = self._patterns[dtype].merge(other._patterns[dtype])
        return found

    def counted(self) -> Record:
        """Return what can be counted: elements, zeros, NaN and Inf."""
        row = _finished(self._states, self._plan, None)
        return {key: row[key] for key in COUNTED}

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
    apart = getattr(state, "apart", None)
    return state if apart is None else apart()


Parts = Mapping[bool, States]
"""The states of a group's parameters (true), and of its other tensors."""


def _whole(parts: Parts) -> States:
    """Return the states of a group."""
    return reduce(together, parts.values())


def _first_pass(groups: Sequence[Group], plan: _Plan, engine: Engine) -> Iterator[Parts]:
    """Yield the states of each group."""
    return _folded([(group, plan.all_of(group)) for group in groups], engine)


def _further_pass(found: Sequence[_Described], totals: Sequence[_Described], engine: Engine) -> bool:
    """Make one more pass over what is still wanted of; whether there was any."""
    of_totals = [(total, set(total.group.halves()), total.wanted()) for total in totals]
    wanted = []
    for one in found:
        if not one.is_wide:
            continue
        halves, of_one = one.group.halves().keys(), one.wanted()
        of_all = [of for _, those, statistics in of_totals if those & halves for of in statistics]
        if of_one or of_all:
            wanted.append((one, of_one, list(dict.fromkeys([*of_one, *of_all]))))
    sums: list[States] = [{} for _ in totals]
    for (one, of_one, _), parts in zip(
        wanted, _folded([(one.group, both) for one, _, both in wanted], engine), strict=True
    ):
        one.take({of: _whole(parts)[of] for of in of_one} if of_one else {})
        for i, (_, those, of_all) in enumerate(of_totals):
            for half in those & parts.keys():
                sums[i] = together(sums[i], {of: parts[half][of] for of in of_all})
    for total, states in zip(totals, sums, strict=True):
        if states or wanted:
            total.take(states)
    return bool(wanted)


def _folded(wanted: Sequence[tuple[Group, list[Statistic]]], engine: Engine) -> Iterator[Parts]:
    """Yield the merged states of each group."""
    tasks = (FoldTask(tensor, statistics, group.axes) for group, statistics in wanted for tensor in group.tensors)
    is_heavy = any(of is histogram.patterns or isinstance(of, Digits) for _, statistics in wanted for of in statistics)
    batch = {"batch": _HEAVY_BATCH} if is_heavy else {}
    found = fold_tasks(tasks, engine.recipe, engine.executor, engine.window, engine.progress, **batch)
    for group, statistics in wanted:
        yield {
            half: reduce(together, (dict(zip(statistics, next(found), strict=True)) for _ in tensors))
            for half, tensors in group.halves().items()
        }


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


def usual_figures() -> set[str]:
    """Return the names of all figures that are given without an analyzer, and of what a row begins with."""
    request = Request((0.5,), 1, entropy=True, near_zero=True, norms=norms.SINGULAR)
    return {"name", "dtype", "shape", "group", "n_tensors", *columns(request, "tensor"), *columns(request, "group")}


def figures_of(of: Statistic) -> Any:
    """Return what a statistic finishes as for a tensor without elements."""
    [state] = next(fold_tasks([FoldTask(_NOTHING, [of])]))
    return state.finish(_NOTHING.spec)


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
    """Return a figure as JSON holds it: a number of Python's, and null beyond float64's range."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value

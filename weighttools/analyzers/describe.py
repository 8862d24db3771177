"""Descriptive statistics of a checkpoint: which statistics a request needs, in which passes, and the rows they give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighttools.analyzers import extremes, histogram, moments, norms, quantiles, shape, sparsity
from weighttools.analyzers.run import Recipe, Record, Statistic, fold, merged
from weighttools.core.dtypes import DTYPES
from weighttools.core.readers import Held
from weighttools.core.tensor import Spec, Tensor
from weighttools.errors import SpecError
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
    def distribution(self) -> bool:
        """Whether counts of bit patterns serve it."""
        return bool(self.quantiles or self.bins or self.entropy)


@dataclass(frozen=True, slots=True)
class Engine:
    """How to fold: recipe, executor and how many jobs may be under way."""

    recipe: Recipe = field(default_factory=Recipe)
    executor: Executor | None = None
    window: int = 4
    progress: Progress = silent


class Group(NamedTuple):
    """Tensors that are described together; a `spec` only for a tensor by itself."""

    tensors: Sequence[Tensor]
    spec: Spec | None = None


_ALWAYS: dict[str, Statistic] = {"moments": moments.of, "extremes": extremes.of, "zeros": sparsity.of}


def describe(groups: Sequence[Group], request: Request, engine: Engine) -> Iterator[tuple[Record, list[Any]]]:
    """Yield, for each group in order, its row of figures and its states (patterns first, where there are any).

    All groups are read in one pass; figures that need a further pass (histograms and quantiles of dtypes of more than
    two bytes) are then read for each group.
    """
    narrow = [_counted(group, request) for group in groups]
    statistics = _statistics(request)
    states = _states(groups, narrow, list(statistics.values()), engine)
    for group, counted, found in zip(groups, narrow, states, strict=True):
        yield _row(group, request, engine, counted, found), found


def total(tensors: Sequence[Tensor], request: Request, engine: Engine, states: Sequence[Any] | None) -> Record:
    """Return the row of figures of all tensors, from the merged states that `describe` gave (None: of none)."""
    whole = Group(tensors or [Tensor(Spec(DTYPES["float32"], (0,)), Held(np.zeros(0, np.float32)))])
    counted = _counted(whole, request)
    if states is None:
        [states] = _states([whole], [counted], list(_statistics(request).values()), engine)
    return _row(whole, request, engine, counted, states if counted else _plain_states(states))


def planned_bytes(groups: Sequence[Group], request: Request) -> int:
    """Return how many bytes `describe` and `total` are going to read, at most."""
    whole = Group([tensor for group in groups for tensor in group.tensors])
    return _nbytes(whole) + sum(_further_passes(group, request) * _nbytes(group) for group in [*groups, whole])


def _nbytes(group: Group) -> int:
    return sum(tensor.spec.nbytes for tensor in group.tensors)


def _further_passes(group: Group, request: Request) -> int:
    """Return the passes that a group needs after the first."""
    if not group.tensors or not request.distribution or _counted(group, request):
        return 0
    passes = quantiles.n_passes(len(request.quantiles), quantiles.key_for(t.dtype for t in group.tensors))
    return passes + bool(request.bins)


def columns(request: Request, by: str) -> list[str]:
    """Return the names of the figures that a request gives, in order."""
    spec = Spec(DTYPES["float32"], (0,))
    nothing = Group([Tensor(spec, Held(np.zeros(0, np.float32)))], spec if by == "tensor" else None)
    [(row, _)] = describe([nothing], request, Engine())
    return list(row)


def together(parts: Iterable[Sequence[Any]]) -> list[Any]:
    """Merge the states of several tensors.

    What tells of places in one tensor is dropped, as are counts of bit patterns where they are of several dtypes.
    """
    found = [list(states) for states in parts]
    if len(found) == 1:
        return found[0]
    if len({states[0].dtype if isinstance(states[0], histogram.Patterns) else None for states in found}) > 1:
        found = [_plain_states(states) for states in found]
    return merged([state.apart() if isinstance(state, _OF_ONE) else state for state in states] for states in found)


def _plain_states(states: Sequence[Any]) -> list[Any]:
    """Return the states without counts of patterns."""
    return [state for state in states if not isinstance(state, histogram.Patterns)]


_OF_ONE = (sparsity.Structure, shape.Channels)


def _statistics(request: Request) -> dict[str, Statistic]:
    asked: dict[str, tuple[bool, Statistic]] = {
        "structure": (request.structure, sparsity.structure),
        "powers": (request.kurtosis, shape.powers),
        "channels": (request.outliers, shape.channels),
    }
    return {**_ALWAYS, **{name: of for name, (wanted, of) in asked.items() if wanted}}


def _counted(group: Group, request: Request) -> bool:
    """Whether to count bit patterns: the tensors are of one dtype that has at most 65,536 of them."""
    dtypes = {tensor.dtype for tensor in group.tensors}
    return request.distribution and len(dtypes) == 1 and min(dtypes).bits <= 16


def _states(
    groups: Sequence[Group], narrow: Sequence[bool], statistics: Sequence[Statistic], engine: Engine
) -> Iterator[list[Any]]:
    """Yield the merged states of each group; one fold serves neighbours for which the same is computed."""
    first = 0
    while first < len(groups):
        last = first
        while last < len(groups) and narrow[last] == narrow[first]:
            last += 1
        chosen = [histogram.patterns, *statistics] if narrow[first] else list(statistics)
        part = groups[first:last]
        found = _fold([tensor for group in part for tensor in group.tensors], chosen, engine)
        for group in part:
            yield reduce(lambda a, b: together([a, b]), (next(found) for _ in group.tensors))
        first = last


def _fold(tensors: Iterable[Tensor], statistics: Sequence[Statistic], engine: Engine) -> Iterator[list[Any]]:
    heavy = any(of is histogram.patterns or isinstance(of, quantiles.Digits) for of in statistics)
    batch = {"batch": _HEAVY_BATCH} if heavy else {}
    return fold(tensors, statistics, engine.recipe, engine.executor, engine.window, engine.progress, **batch)


def _row(group: Group, request: Request, engine: Engine, counted: bool, states: Sequence[Any]) -> Record:
    row: Record = {}
    for state in states:
        row |= state.finish(group.spec)
    patterns = states[0] if counted else None
    row |= _distribution(group, request, engine, patterns, row) if request.distribution else {}
    if not request.entropy:
        row = {key: value for key, value in row.items() if key not in ("entropy", "n_distinct")}
    if not request.near_zero:
        row.pop("n_near_zero")
    if request.norms:
        row |= _singular(group, request.norms)
    return {key: _plain(value) for key, value in row.items()}


def _singular(group: Group, names: tuple[str, ...]) -> Record:
    return norms.singular_norms(group.tensors[0], names) if group.spec is not None else dict.fromkeys(names)


def _distribution(
    group: Group, request: Request, engine: Engine, patterns: histogram.Patterns | None, row: Mapping[str, Any]
) -> Record:
    """Return quantiles and histogram: from counts of bit patterns, or by further passes."""
    found: Record = {} if patterns else {"entropy": None, "n_distinct": None}
    n = row["count"] - row["n_nan"] - row["n_inf"]
    if request.quantiles:
        ranks = quantiles.ranks_of(request.quantiles, n)
        at = _order_statistics(group, engine, patterns, ranks)
        figures = {f"{p:g}": quantiles.interpolated(p, n, at) if n else None for p in request.quantiles}
        found["quantiles"] = {p: _plain(value) for p, value in figures.items()}
    if request.bins:
        bins = histogram.bins(row["min"], row["max"], request.bins)
        found |= _histogram(group, engine, patterns, bins).finish() if bins else {"hist": None}
    return found


def _order_statistics(
    group: Group, engine: Engine, patterns: histogram.Patterns | None, ranks: set[int]
) -> dict[int, float]:
    if patterns:
        return quantiles.from_distinct(ranks, *patterns.finite())
    key = quantiles.key_for(tensor.dtype for tensor in group.tensors)

    def again(statistics: Sequence[Any]) -> list[Any]:
        return merged(_fold(group.tensors, statistics, engine))

    return quantiles.order_statistics(ranks, key, again)


def _histogram(
    group: Group, engine: Engine, patterns: histogram.Patterns | None, bins: histogram.Bins
) -> histogram.BinCounts:
    if patterns:
        return bins.of_distinct(*patterns.finite())
    [state] = merged(_fold(group.tensors, [bins], engine))
    assert isinstance(state, histogram.BinCounts)
    return state


def _plain(value: Any) -> Any:
    """Return a figure as JSON holds it: what is beyond float64's range is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value

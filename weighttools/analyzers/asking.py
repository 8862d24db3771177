"""What is asked of the statistics of a checkpoint, of which tensors together, and by what means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from weighttools.analyzers import histogram, norms
from weighttools.analyzers.base import Analyzer
from weighttools.analyzers.distribution import Asked
from weighttools.analyzers.run import FoldOptions, Record
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.errors import SpecError
from weighttools.families.axes import TORCH, Axes
from weighttools.io.progress import Progress, silent

if TYPE_CHECKING:
    from concurrent.futures import Executor

MAX_QUANTILES = 100


@dataclass(frozen=True, slots=True)
class Request:
    """What to compute beside moments, extremes and zeros.

    Parameters
    ----------
    quantiles
        Probabilities from 0 to 1.
    bins
        Bins of a histogram; None for none.
    entropy
        Entropy and distinct values.
    analyzers
        Further statistics, by name; see `weighttools.analyzers.choosing`.
    near_zero
        Whether to report near-zeros.
    norms
        Norms by singular values: ``spectral``, ``nuclear``.
    """

    quantiles: tuple[float, ...] = ()
    bins: int | None = None
    entropy: bool = False
    analyzers: Mapping[str, Analyzer] = field(default_factory=dict)
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
            raise SpecError(
                f"quantiles {list(self.quantiles)}", expected="probabilities from 0 to 1", code="out-of-range"
            )
        if len(self.quantiles) > MAX_QUANTILES:
            raise SpecError(
                f"{len(self.quantiles):,} quantiles", expected=f"at most {MAX_QUANTILES}", code="out-of-range"
            )
        if self.bins is not None and not 1 <= self.bins <= histogram.MAX_BINS:
            raise SpecError(
                f"a histogram of {self.bins} bins", expected=f"1 to {histogram.MAX_BINS:,}", code="out-of-range"
            )
        unknown = set(self.norms) - {*norms.SINGULAR, *norms.ALWAYS}
        if unknown:
            raise SpecError(
                f"unknown norm {min(unknown)!r}",
                expected="one of l1, l2, inf, spectral, nuclear",
                code="unknown-option-value",
            )
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

    recipe: FoldOptions = field(default_factory=FoldOptions)
    executor: Executor | None = None
    window: int = 4
    progress: Progress = silent
    threads: int | None = None


class Group(NamedTuple):
    """Tensors that are described together.

    Parameters
    ----------
    tensors
        Them.
    spec
        Only for a tensor by itself.
    n_parameters
        How many of them, the first ones, are parameters; None: all.
    axes
        Where the outputs of a tensor by itself lie.
    """

    tensors: Sequence[Tensor]
    spec: Spec | None = None
    n_parameters: int | None = None
    axes: Axes = TORCH

    def halves(self) -> dict[bool, Sequence[Tensor]]:
        """Return the tensors that are parameters (true), and the others; neither if it is empty."""
        n = len(self.tensors) if self.n_parameters is None else self.n_parameters
        if n in (0, len(self.tensors)) and self.tensors:
            return {n > 0: self.tensors}
        found = {True: self.tensors[:n], False: self.tensors[n:]}
        return {half: tensors for half, tensors in found.items() if tensors}


class Totals(NamedTuple):
    """Figures over several groups: of all tensors, of the parameters, and what is counted of the others.

    `parameters` and `others` are None where one of them is empty: then `everything` tells all.
    """

    everything: Record
    parameters: Record | None = None
    others: Record | None = None

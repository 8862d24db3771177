"""How the elements of a pair of tensors differ: a state of two blocks that merges over the fold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from weighttools.analyzers.compare.pair import Pair, PairFigures
from weighttools.analyzers.moments import ldexp
from weighttools.core.fold import Blocks, Fold, fold_blocks
from weighttools.core.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor


class Sums(NamedTuple):
    """Sums of squares and products of values times ``2**-scale``; the scale is 0 but for huge and tiny float64."""

    difference: float = 0.0
    before: float = 0.0
    after: float = 0.0
    dot: float = 0.0
    scale: int = 0

    def merge(self, other: Sums) -> Sums:
        """Return the sums of both parts together."""
        if self.scale == other.scale:
            return Sums(*(a + b for a, b in zip(self[:4], other[:4], strict=True)), self.scale)
        small, large = sorted((self, other), key=lambda sums: (sums.is_empty is False, sums.scale))
        by = 2 * (small.scale - large.scale)
        moved = [0.0 if small.is_empty else ldexp(value, by) for value in small[:4]]
        return Sums(*(a + b for a, b in zip(moved, large[:4], strict=True)), large.scale)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but zeros."""
        return not (self.before or self.after or self.difference)


class PairState(NamedTuple):
    """What is known of some elements of a pair; the fields are those of `PairFigures`."""

    n_elements: int
    n_bits: int | None
    n_changed: int = 0
    n_beyond: int = 0
    n_not_finite: int = 0
    n_zero_before: int = 0
    n_zero_after: int = 0
    n_zeroed: int = 0
    max_abs: float | None = None
    max_at: int | None = None
    sums: Sums = Sums()

    def merge(self, other: PairState) -> PairState:
        """Return the state of these elements and those that follow."""
        first = other.max_abs is None or (self.max_abs is not None and self.max_abs >= other.max_abs)
        greatest = self if first else other
        return PairState(
            self.n_elements + other.n_elements,
            None if self.n_bits is None or other.n_bits is None else self.n_bits + other.n_bits,
            self.n_changed + other.n_changed,
            self.n_beyond + other.n_beyond,
            self.n_not_finite + other.n_not_finite,
            self.n_zero_before + other.n_zero_before,
            self.n_zero_after + other.n_zero_after,
            self.n_zeroed + other.n_zeroed,
            greatest.max_abs,
            greatest.max_at,
            self.sums.merge(other.sums),
        )

    def finish(self) -> PairFigures:
        """Return the figures; beyond float64's range they are infinite."""
        difference, before, after, dot, scale = self.sums
        norms = [ldexp(math.sqrt(sq), scale) for sq in (difference, before, after)]
        both = math.sqrt(before) * math.sqrt(after)
        return PairFigures(*self[:10], *norms, ldexp(dot, 2 * scale), dot / both if both else None)


@dataclass(frozen=True, slots=True)
class PairStateOf:
    """Makes the state of a block of both tensors; it pickles.

    Parameters
    ----------
    rtol, atol
        As for `numpy.isclose`; the old tensor's value is what `rtol` is relative to.
    """

    rtol: float = 0.0
    atol: float = 0.0

    def __call__(self, blocks: Blocks) -> PairState:
        from weighttools.analyzers.compare import kernels

        return kernels.state(blocks, self.rtol, self.atol)


def compare_pairs(
    pairs: Iterable[Pair],
    tolerances: PairStateOf | None = None,
    executor: Executor | None = None,
    window: int = 4,
    progress: Callable[[int], None] | None = None,
) -> Iterator[PairFigures]:
    """Yield the figures of each pair, in order; both sides are read once, and not at all where they are the same bytes.

    Parameters
    ----------
    pairs
        Of tensors of one shape.
    tolerances
        Which differences `PairFigures.n_beyond` counts; by default all.
    executor, window, progress
        As for `weighttools.core.fold.fold_blocks`.
    """
    of = tolerances or PairStateOf()
    asked = list(pairs)
    same = [are_same_bytes(pair.before, pair.after) for pair in asked]
    folds = (Fold((pair.before, pair.after), of) for pair, is_same in zip(asked, same, strict=True) if not is_same)
    states = fold_blocks(folds, PairState.merge, executor=executor, window=window, progress=progress)
    for pair, is_same in zip(asked, same, strict=True):
        yield _unread(pair) if is_same else next(states).finish()


def are_same_bytes(a: Tensor, b: Tensor) -> bool:
    """Whether both tensors are stored in the very same bytes of one file, by whatever names it is called."""
    if a.spec != b.spec or a.stored is None or b.stored is None:
        return False
    if (a.stored.offset, a.stored.length) != (b.stored.offset, b.stored.length) or a.decode != b.decode:
        return False
    one, other = (getattr(tensor.stored.source, "identity", ()) for tensor in (a, b))
    return a.stored.source is b.stored.source or bool(one and one == other)


def _unread(pair: Pair) -> PairFigures:
    """Return what is known of a pair without reading it; norms are not, and are NaN."""
    nan = math.nan
    return PairFigures(pair.after.n_elements, 0, 0, 0, 0, 0, 0, 0, 0.0, None, 0.0, nan, nan, nan, None)

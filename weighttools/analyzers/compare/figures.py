"""How the elements of pairs of tensors differ: one fold over both sides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighttools.analyzers.compare import kernels
from weighttools.analyzers.compare.pair import Pair, PairFigures
from weighttools.analyzers.compare.state import PairState
from weighttools.core.fold import Blocks, BlockSizes, Fold, fold_blocks
from weighttools.core.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor


COMPILED_BLOCK_ELEMENTS = 1 << 20
"""Compiled code takes larger blocks: with small ones, threads wait for the interpreter's lock."""


@dataclass(frozen=True, slots=True)
class PairStateOf:
    """Makes the state of a block of both tensors; it pickles.

    Parameters
    ----------
    rtol, atol
        As for `numpy.isclose`; the old tensor's value is what `rtol` is relative to.
    kernel
        ``"numpy"`` or ``"numba"``.
    """

    rtol: float = 0.0
    atol: float = 0.0
    kernel: str = "numpy"

    def __call__(self, blocks: Blocks) -> PairState:
        return kernels.state(blocks, self)


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
    sizes = BlockSizes(COMPILED_BLOCK_ELEMENTS) if of.kernel == "numba" else None
    states = fold_blocks(folds, PairState.merge, sizes, executor=executor, window=window, progress=progress)
    for pair, is_same in zip(asked, same, strict=True):
        yield _unread(pair) if is_same else next(states).finish()


def are_same_bytes(a: Tensor, b: Tensor) -> bool:
    """Whether both tensors are stored in the very same bytes of one file, by whatever names it is called."""
    if a.spec != b.spec or a.stored is None or b.stored is None:
        return False
    if (a.stored.offset, a.stored.length) != (b.stored.offset, b.stored.length) or a.decode != b.decode:
        return False
    one, other = a.stored.source, b.stored.source
    told = getattr(one, "identity", ())
    return one is other or bool(told and told == getattr(other, "identity", ()))


def _unread(pair: Pair) -> PairFigures:
    """Return what is known of a pair without reading it; norms are not, and are NaN."""
    nan = math.nan
    return PairFigures(pair.after.n_elements, 0, 0, 0, 0, 0, 0, 0, 0.0, None, 0.0, nan, nan, nan, None)

"""The one fold: a state of each block, merged in order, over one tensor or several side by side, in any executor.

Tensors are cut into pieces, and pieces into blocks, at places that depend on nothing but the tensors, and states are
merged in order, so the result is the same to the last bit however many threads or processes compute it. In memory are
one block of each tensor for each job under way, and the states.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from weighttools.core import plan
from weighttools.core.engine import run
from weighttools.core.readers import Raw, aligned_read
from weighttools.core.scratch import Scratch
from weighttools.core.tensor import BLOCK_ELEMENTS, Tensor, confirm
from weighttools.errors import SpecError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from weighttools.core.spec import Array, Reader
    from weighttools.core.tensormap import TensorMap

S = TypeVar("S")

PIECE_ELEMENTS = 1 << 22
"""Elements of one job: enough that handing it over costs nothing, few enough that two threads end together."""

ALIGNMENT = 8
"""Blocks start at multiples of this, so that groups of 4 or 8 elements are never cut."""


class Blocks(NamedTuple):
    """A run of elements of each of the tensors that are folded together.

    Parameters
    ----------
    values
        A flat array of each tensor, in its own dtype, all of one length; never changed, and valid only while the
        block is at work.
    start
        The position of the first element in the tensors.
    scratch
        This thread's memory.
    """

    values: tuple[Array, ...]
    start: int
    scratch: Scratch


class BlocksInTurn(NamedTuple):
    """A run of elements of each of many tensors, read one after the other as `values` is gone through.

    Parameters
    ----------
    values
        A flat array of each tensor in turn, in its own dtype, all of one length; never changed, and valid until the
        second after it is asked for: so two are in memory, however many tensors there are.
    start, scratch
        As of `Blocks`.
    """

    values: Iterator[Array]
    start: int
    scratch: Scratch


class Fold(NamedTuple, Generic[S]):
    """Tensors of as many elements each, and what makes a state of a block of each.

    For a process pool `of` must pickle: a function of a module, or a frozen object. Where it `takes_turns`, it is given
    `BlocksInTurn`.
    """

    tensors: tuple[Tensor, ...]
    of: Callable[[Any], S]
    takes_turns: bool = False


class BlockSizes(NamedTuple):
    """How tensors are cut, in elements: what `of` sees at once, and what makes one job."""

    block_elements: int = BLOCK_ELEMENTS
    piece_elements: int = PIECE_ELEMENTS


class _Piece(NamedTuple):
    """Elements `start` to `stop` of the fold numbered `number`."""

    number: int
    fold: Fold[Any]
    start: int
    stop: int

    @property
    def n_elements(self) -> int:
        """How many elements each tensor has."""
        return self.fold.tensors[0].n_elements


class _Job(NamedTuple):
    """Pieces to compute in one go, and how; it pickles."""

    pieces: Sequence[_Piece]
    merge: Callable[[Any, Any], Any]
    block_elements: int


def fold_blocks(
    folds: Iterable[Fold[S]],
    merge: Callable[[S, S], S],
    sizes: BlockSizes | None = None,
    executor: Executor | None = None,
    window: int = 4,
    progress: Callable[[int], None] | None = None,
    batch: int = 256,
) -> Iterator[S]:
    """Yield, for each fold in order, the state of all elements of its tensors.

    Parameters
    ----------
    folds
        Taken as they are needed; each tensor is read once. Tensors without elements give the state of an empty block.
    merge
        Joins the state of some elements with that of those that follow; the states may be changed by it.
    sizes
        How to cut: another cut may give other roundings, and nothing else does.
    executor
        Threads or processes to compute in; None computes here.
    window
        How many jobs may be under way: this bounds memory.
    progress
        Called with the number of bytes, unpacked, of the elements just done.
    batch
        How many small folds may go into one job: with `window`, this bounds the states that wait.

    Raises
    ------
    SpecError
        Tensors side by side differ in their number of elements.
    CorruptFileError
        What was read is not what its archive's CRC-32 tells.
    """
    sizes = sizes or BlockSizes()
    begun: deque[Fold[S]] = deque()
    jobs = (_Job(pieces, merge, sizes.block_elements) for pieces in _batches(_kept(folds, begun), sizes, batch))
    done = (part for parts in run(_states, jobs, executor, window) for part in parts)
    for _, parts in groupby(done, key=lambda part: part[0]):
        state = reduce(merge, (_told(found, n_bytes, progress) for _, n_bytes, found in parts))
        for tensor in begun.popleft().tensors:
            confirm(tensor)
        yield state


def side_by_side(maps: Sequence[TensorMap], names: Iterable[Sequence[str]]) -> Iterator[tuple[Tensor, ...]]:
    """Yield the tensors that a fold over several maps reads together.

    Parameters
    ----------
    maps
        Of any formats and dtypes.
    names
        For each tuple the name in every map, in their order.

    Raises
    ------
    SpecError
        Shapes differ.
    TensorNotFoundError
        A map has no such tensor.
    """
    for each in names:
        tensors = tuple(one[name] for one, name in zip(maps, each, strict=True))
        shapes = list(dict.fromkeys(tensor.shape for tensor in tensors))
        if len(shapes) > 1:
            raise SpecError(f"its shape is {shapes[0]} here and {shapes[1]} there", subject=each[0])
        yield tensors


def runs(tensors: Sequence[Tensor], n_elements: int) -> Iterator[plan.Run]:
    """Cut tensors, side by side, into runs of about `n_elements` that all of them can be read by."""
    return plan.blocks(tensors[0].n_elements, _unit(tensors, [tensor.reader for tensor in tensors]), n_elements)


def _unit(tensors: Sequence[Tensor], readers: Sequence[Reader]) -> int:
    """Return what blocks start at multiples of.

    What several tensors share may be far more than any needs (chunks of 37,000 elements beside such of 4,096): then it
    is the largest, and parts of the others are read again for the next block.
    """
    pairs = zip(tensors, readers, strict=True)
    units = [math.lcm(max(reader.granularity, tensor.dtype.pack), ALIGNMENT) for tensor, reader in pairs]
    shared = math.lcm(*units)
    return shared if shared <= BLOCK_ELEMENTS else max(units)


def _kept(folds: Iterable[Fold[S]], begun: deque[Fold[S]]) -> Iterator[Fold[S]]:
    for fold in folds:
        begun.append(fold)
        yield fold


def _told(state: S, n_bytes: int, progress: Callable[[int], None] | None) -> S:
    if progress:
        progress(n_bytes)
    return state


def _batches(folds: Iterable[Fold[Any]], sizes: BlockSizes, most: int) -> Iterator[list[_Piece]]:
    """Group small pieces, at most `most`, so that a job is worth handing over."""
    batch: list[_Piece] = []
    n = 0
    for number, fold in enumerate(folds):
        n_elements = _n_elements(fold)
        is_small = n_elements <= sizes.piece_elements  # one piece, for which no reader need be made yet
        for start, stop in [(0, n_elements)] if is_small else runs(fold.tensors, sizes.piece_elements):
            batch.append(_Piece(number, fold, start, stop))
            n += stop - start
            if n >= sizes.piece_elements or len(batch) >= most:
                yield batch
                batch, n = [], 0
    if batch:
        yield batch


def _n_elements(fold: Fold[Any]) -> int:
    first, *others = (tensor.n_elements for tensor in fold.tensors)
    if any(n != first for n in others):
        told = ", ".join(f"{tensor.n_elements:,}" for tensor in fold.tensors)
        raise SpecError(f"tensors of {told} elements are to be read side by side", expected="as many of each")
    return first


def _states(job: _Job) -> list[tuple[int, int, Any]]:
    """Compute a job: for each piece the number of its fold, its size in bytes, and its state."""
    return [(piece.number, _nbytes(piece), _state(piece, job)) for piece in job.pieces]


def _nbytes(piece: _Piece) -> int:
    return sum(tensor.dtype.nbytes(piece.stop - piece.start) for tensor in piece.fold.tensors)


def _state(piece: _Piece, job: _Job) -> Any:
    with np.errstate(all="ignore"):  # NaN, Inf and overflow are ordinary here
        return reduce(job.merge, map(piece.fold.of, _blocks(piece, job.block_elements)))


_LOCAL = threading.local()


def _blocks(piece: _Piece, block_elements: int) -> Iterator[Blocks | BlocksInTurn]:
    """Read a piece run by run into this thread's buffers, and yield its blocks; an empty piece is one empty block."""
    if not hasattr(_LOCAL, "scratch"):
        _LOCAL.scratch = Scratch()
    scratch: Scratch = _LOCAL.scratch
    tensors = piece.fold.tensors
    if piece.start == piece.stop:
        none = tuple(np.empty(0, tensor.dtype.numpy) for tensor in tensors)
        yield BlocksInTurn(iter(none), 0, scratch) if piece.fold.takes_turns else Blocks(none, 0, scratch)
        return
    readers = [tensor.reader for tensor in tensors]
    step = plan.step_of(_unit(tensors, readers), block_elements)
    band = max(getattr(reader, "band", 1) for reader in readers)
    for start, stop in plan.blocks(piece.stop - piece.start, step, band):
        at, end = piece.start + start, piece.start + stop
        if piece.fold.takes_turns:
            yield BlocksInTurn(_in_turn(readers, at, end, piece.n_elements, scratch), at, scratch)
            continue
        values = [_read(reader, at, end, piece.n_elements, scratch, f"read {i}") for i, reader in enumerate(readers)]
        for first, last in _cuts(stop - start, step, block_elements):
            yield Blocks(tuple(one[first:last] for one in values), at + first, scratch)


def _in_turn(readers: Sequence[Reader], start: int, stop: int, n_elements: int, scratch: Scratch) -> Iterator[Array]:
    """Read a run of each tensor, when it is asked for, into one of two rooms."""
    for i, reader in enumerate(readers):
        yield _read(reader, start, stop, n_elements, scratch, f"read {i % 2}")


def _cuts(n_elements: int, step: int, block_elements: int) -> Iterator[plan.Run]:
    """Cut what was read in one go into blocks, where they are cut if it is read step by step."""
    for start, stop in plan.blocks(n_elements, 1, step):
        for first, last in plan.blocks(stop - start, ALIGNMENT, block_elements):
            yield start + first, start + last


def _read(reader: Reader, start: int, stop: int, n_elements: int, scratch: Scratch, room: str) -> Array:
    if isinstance(reader, Raw):
        return reader.read_into(start, stop, scratch.get(room, np.uint8, reader.dtype.nbytes(stop - start)))
    if start % max(1, reader.granularity):
        return aligned_read(reader, start, stop, n_elements)
    return reader(start, stop)

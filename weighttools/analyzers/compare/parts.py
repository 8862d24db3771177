"""Matching what was joined or split: q, k and v in one weight, gate and up, experts in one stack.

Rows are looked at by fingerprints: a whole is made of parts whose rows, each once and in order, are all of its own. A
matrix is looked at in both orientations, so that stacks of transposed experts, and Conv1D's (in, 3 x out), are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weighttools.analyzers.axes import padded
from weighttools.analyzers.compare.arrangements import are_equal
from weighttools.analyzers.compare.casting import cast_values
from weighttools.analyzers.compare.fingerprints import mixed_bits, widened
from weighttools.analyzers.compare.matching import Matching
from weighttools.analyzers.compare.pair import Pair
from weighttools.analyzers.compare.row_sums import RowSums
from weighttools.core import engine
from weighttools.core.dtypes import DType
from weighttools.core.fold import Blocks, Fold, fold_blocks
from weighttools.core.permuted import permuted
from weighttools.core.readers import Joined, Strided, aligned_read
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap

if TYPE_CHECKING:
    from weighttools.core.spec import Array

LEAST_ROW = 8
"""Shorter rows may be equal by chance."""
MOST_ROWS = 1 << 22
"""Tensors of more rows are not looked at: this bounds memory."""
MOST_DECODED = 1 << 22
"""Larger tensors that are decoded by blocks are looked at as they lie: in another order they can be read whole only."""
_GLANCE = 32
MOST_RUNS = 1 << 15
"""Parts that take turns more often are not looked for."""


@dataclass(frozen=True, slots=True)
class RowFingerprintsOf:
    """Makes the sums of a block, of rows of `length` elements, rounded to a dtype if one is given; it pickles."""

    length: int
    dtype: DType | None = None

    def __call__(self, blocks: Blocks) -> RowSums:
        values = _rounded(blocks.values[0], self.dtype)
        bits = mixed_bits(widened(values)) if values.size else np.empty(0, np.uint64)
        first, rows = padded(bits, blocks.start, self.length)
        return RowSums(first, rows.sum(axis=1))


class RowView(NamedTuple):
    """A tensor as rows: itself, or with its last two axes exchanged."""

    name: str
    tensor: Tensor
    rows: Array

    @property
    def length(self) -> int:
        """Elements of a row."""
        return self.tensor.shape[-1]


class RowRun(NamedTuple):
    """Rows `start` and on of a part, `n_rows` of them, that lie in a whole from row `at` on."""

    part: RowView
    start: int
    at: int
    n_rows: int


class RowIndex(NamedTuple):
    """All rows of one length of one side, to be looked up: sorted, with their places; `firsts` is each view's first."""

    views: tuple[RowView, ...]
    firsts: Array
    rows: Array
    order: Array

    @classmethod
    def of(cls, views: Sequence[RowView]) -> RowIndex:
        """Return the index of views."""
        rows = np.concatenate([view.rows for view in views])
        order = np.argsort(rows, kind="stable")
        ends = np.cumsum([len(view.rows) for view in views])
        return cls(tuple(views), np.concatenate((np.zeros(1, np.int64), ends[:-1])), rows[order], order)

    def cover(self, whole: RowView) -> list[RowRun] | None:
        """Return runs of at least two parts that together are all rows of a whole; None where they are not.

        Parts may follow one another, or take turns, as q, k and v of each head do in GPT-NeoX. Every part is there
        with all its rows, each once and in order.
        """
        at = np.searchsorted(self.rows, whole.rows)
        if not len(whole.rows) or at.max() >= len(self.rows) or (self.rows[at] != whole.rows).any():
            return None
        places = self._settled(self.order[at], whole.rows)
        if len(np.unique(places)) < len(places):
            return None
        parts = np.searchsorted(self.firsts, places, side="right") - 1
        cuts = np.flatnonzero((np.diff(places) != 1) | (np.diff(parts) != 0)) + 1
        starts = np.concatenate((np.zeros(1, np.int64), cuts))
        if not 1 < len(starts) <= MOST_RUNS:
            return None
        ends = np.concatenate((cuts, np.array([len(places)])))
        runs = [self._run(int(parts[i]), int(places[i]), int(i), int(j - i)) for i, j in zip(starts, ends, strict=True)]
        return runs if _are_whole(runs) else None

    def _settled(self, places: Array, rows: Array) -> Array:
        """Return the places of rows, of which equal ones (rows of zeros) follow, or come before, their neighbours."""
        several = np.searchsorted(self.rows, rows, side="right") - np.searchsorted(self.rows, rows) > 1
        by_place = np.empty_like(self.rows)
        by_place[self.order] = self.rows
        open_ones = np.flatnonzero(several)
        settled = ~several
        for step, order in ((1, open_ones), (-1, open_ones[::-1])):
            for i in order.tolist():
                beside = i - step
                if settled[i] or not 0 <= beside < len(places) or not settled[beside]:
                    continue
                place = int(places[beside]) + step
                if 0 <= place < len(by_place) and by_place[place] == rows[i]:
                    places[i], settled[i] = place, True
        return places

    def _run(self, part: int, place: int, at: int, n_rows: int) -> RowRun:
        return RowRun(self.views[part], place - int(self.firsts[part]), at, n_rows)


def _are_whole(runs: Sequence[RowRun]) -> bool:
    """Whether every part is there with all its rows in order, and there is more than one."""
    seen: dict[str, int] = {}
    for run in runs:
        if seen.get(run.part.name, 0) != run.start:
            return False
        seen[run.part.name] = run.start + run.n_rows
    return len(seen) > 1 and all(seen[run.part.name] == len(run.part.rows) for run in runs)


@dataclass(frozen=True, slots=True)
class PartsStage:
    """The stage of `match` that looks for parts in wholes, in as many threads."""

    threads: int | None = None
    progress: Callable[[int], None] | None = None

    def __call__(self, before: TensorMap, after: TensorMap) -> Matching:
        """Match by rows; what it leaves over is in `removed` and `added`."""
        dtype = _narrowest([*before.specs(), *after.specs()])
        old, new = _shared_beginnings(_looked_at(before), _looked_at(after), dtype)
        return self._matched(self._views(old, dtype), self._views(new, dtype), before, after)

    def _matched(self, old: Sequence[RowView], new: Sequence[RowView], before: TensorMap, after: TensorMap) -> Matching:
        pairs: list[Pair] = []
        gone: set[str] = set()
        come: set[str] = set()
        for whole, runs in _covered(new, old):
            parts = {run.part.name for run in runs}
            if whole.name not in come and not parts & gone:
                made = [_joined(whole, runs), *_joined_biases(whole, runs, before, after)]
                gone |= parts | (set(map(_bias_of, parts)) if len(made) > 1 else set())
                come |= {pair.new for pair in made}
                pairs += made
        for whole, runs in _covered(old, new):
            if whole.name not in gone and not {run.part.name for run in runs} & come:
                made = [*_split(whole, runs), *_split_biases(whole, runs, before, after)]
                gone |= {pair.old for pair in made}
                come |= {pair.new for pair in made}
                pairs += made
        return Matching.of_stage(pairs, before, after, gone)

    def _views(self, asked: Sequence[tuple[str, Tensor]], dtype: DType | None) -> list[RowView]:
        folds = [Fold((view,), RowFingerprintsOf(view.shape[-1], dtype)) for _, view in asked]
        with engine.threads_for(sum(view.spec.nbytes for _, view in asked), self.threads) as pool:
            states = fold_blocks(folds, RowSums.merge, executor=pool, progress=self.progress)
            return [RowView(name, view, state.values) for (name, view), state in zip(asked, states, strict=True)]


def _narrowest(specs: Iterable[Spec]) -> DType | None:
    """Return the narrowest dtype of floats, where there are several: rows are compared in it, so casts do not hide."""
    floats = {spec.dtype for spec in specs if spec.dtype.is_float}
    return min(floats, key=lambda dtype: (dtype.bits, dtype.name)) if len(floats) > 1 else None


def _rounded(values: Array, dtype: DType | None) -> Array:
    is_float = values.dtype.kind not in "biuc"
    return cast_values(values, dtype.numpy) if dtype is not None and is_float else values


def _looked_at(tensor_map: TensorMap) -> list[tuple[str, Tensor]]:
    """Return every matrix, in both orientations where that takes no more than blocks."""
    return [(name, view) for name, tensor in tensor_map.items() for view in _orientations(tensor)]


Named = list[tuple[str, Tensor]]


def _shared_beginnings(old: Named, new: Named, dtype: DType | None) -> tuple[Named, Named]:
    """Keep what may be a part or a whole: rows of a length in which something of both sides begins alike.

    A whole begins with the first row of a part, so of checkpoints that have nothing in common hardly more than one row
    of each tensor is read.
    """
    firsts = [[_beginning(view, dtype) for _, view in side] for side in (old, new)]
    lengths = {length for length, _ in set(firsts[0]) & set(firsts[1])}
    kept = [[one for one in side if one[1].shape[-1] in lengths] for side in (old, new)]
    return kept[0], kept[1]


def _beginning(view: Tensor, dtype: DType | None) -> tuple[int, bytes]:
    """Return the length of rows, and the first elements of the first."""
    values = aligned_read(view.reader, 0, min(view.shape[-1], _GLANCE), view.n_elements)
    return view.shape[-1], mixed_bits(widened(_rounded(values[:_GLANCE], dtype))).tobytes()


def _orientations(tensor: Tensor) -> Iterator[Tensor]:
    """Yield a tensor of two axes or more, and it with the last two exchanged where it can be read so in parts."""
    shape = tensor.shape
    if len(shape) < 2 or not tensor.n_elements or min(shape[-2:]) < LEAST_ROW:
        return
    if tensor.n_elements // min(shape[-2:]) > MOST_ROWS:
        return
    yield tensor
    if tensor.reader.granularity > 8 and tensor.n_elements > MOST_DECODED:
        return
    axes = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
    yield permuted(tensor, shape, axes, tuple(shape[axis] for axis in axes))


def _covered(wholes: Sequence[RowView], parts: Sequence[RowView]) -> Iterator[tuple[RowView, list[RowRun]]]:
    """Yield the wholes that parts of the other side make, with the runs that they are made of."""
    kinds: dict[int, list[RowView]] = {}
    for one in parts:
        kinds.setdefault(one.length, []).append(one)
    indexes = {length: RowIndex.of(views) for length, views in kinds.items()}
    for whole in wholes:
        runs = indexes[whole.length].cover(whole) if whole.length in indexes else None
        if runs:
            yield whole, runs


def _joined(whole: RowView, runs: Sequence[RowRun]) -> Pair:
    names = dict.fromkeys(run.part.name for run in runs)
    pieces = [(run.part.tensor, run.start, run.n_rows) for run in runs]
    return Pair(" + ".join(names), whole.name, "joined", _laid(pieces, whole.tensor.shape), whole.tensor)


def _split(whole: RowView, runs: Sequence[RowRun]) -> list[Pair]:
    several: dict[str, list[RowRun]] = {}
    for run in runs:
        several.setdefault(run.part.name, []).append(run)
    found = []
    for name, own in several.items():
        part = own[0].part.tensor
        pieces = [(whole.tensor, run.at, run.n_rows) for run in own]
        found.append(Pair(whole.name, name, "split", _laid(pieces, part.shape), part))
    return found


def _bias_of(name: str) -> str:
    """Return what the bias beside a weight is called."""
    return f"{name.removesuffix('weight').removesuffix('kernel')}bias"


def _biases(whole: RowView, runs: Sequence[RowRun], wholes: TensorMap, parts: TensorMap) -> bool:
    """Whether there are biases of as many elements as a whole and its parts have rows."""
    sizes = {(run.part.name, len(run.part.rows)) for run in runs}
    return _has(wholes, _bias_of(whole.name), len(whole.rows)) and all(_has(parts, _bias_of(n), k) for n, k in sizes)


def _has(tensor_map: TensorMap, name: str, length: int) -> bool:
    return name in tensor_map and tensor_map[name].shape == (length,)


def _joined_biases(whole: RowView, runs: Sequence[RowRun], before: TensorMap, after: TensorMap) -> Iterator[Pair]:
    """Yield the pair of biases that were joined as their weights were."""
    if not _biases(whole, runs, after, before):
        return
    names = dict.fromkeys(_bias_of(run.part.name) for run in runs)
    pieces = [(before[_bias_of(run.part.name)], run.start, run.n_rows) for run in runs]
    target = after[_bias_of(whole.name)]
    laid = _laid(pieces, target.shape, 1)
    if are_equal(laid, target):
        yield Pair(" + ".join(names), _bias_of(whole.name), "joined", laid, target)


def _split_biases(whole: RowView, runs: Sequence[RowRun], before: TensorMap, after: TensorMap) -> Iterator[Pair]:
    """Yield the pairs of biases that were split as their weights were."""
    if not _biases(whole, runs, before, after):
        return
    source = before[_bias_of(whole.name)]
    for name in dict.fromkeys(run.part.name for run in runs):
        pieces = [(source, run.at, run.n_rows) for run in runs if run.part.name == name]
        target = after[_bias_of(name)]
        laid = _laid(pieces, target.shape, 1)
        if are_equal(laid, target):
            yield Pair(_bias_of(whole.name), _bias_of(name), "split", laid, target)


def _laid(pieces: Sequence[tuple[Tensor, int, int]], shape: tuple[int, ...], length: int | None = None) -> Tensor:
    """Return rows of tensors, each from a row on and so many, one after the other; by default as long as an axis."""
    length = shape[-1] if length is None else length
    readers = tuple(
        Strided(tensor.reader, tensor.n_elements, (n, length), (length, 1), start * length)
        for tensor, start, n in pieces
    )
    ends = tuple(np.cumsum([n * length for _, _, n in pieces]).tolist())
    return Tensor(Spec(pieces[0][0].dtype, shape), Joined(readers, ends))

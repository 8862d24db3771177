"""Matching what was joined or split: q, k and v in one weight, gate and up, experts in one stack.

Rows are looked at by fingerprints; a part is found in a whole where its rows follow one another there. A matrix is
looked at in both orientations, so that stacks of transposed experts, and Conv1D's (in, 3 x out), are found too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weighttools.analyzers.compare.fingerprints import mixed_bits, widened
from weighttools.analyzers.compare.matching import Matching
from weighttools.analyzers.compare.pair import Pair
from weighttools.core import engine
from weighttools.core.fold import Blocks, Fold, fold_blocks
from weighttools.core.permuted import permuted
from weighttools.core.readers import Joined, Strided
from weighttools.core.spec import Spec
from weighttools.core.strides import c_strides
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap

if TYPE_CHECKING:
    from weighttools.core.spec import Array

LEAST_ROW = 8
"""Shorter rows may be equal by chance."""
MOST_ROWS = 1 << 22
"""Tensors of more rows are not looked at: this bounds memory."""


class RowFingerprints(NamedTuple):
    """A sum of mixed bits for each row, from row `first` on; the last may go on in the elements that follow."""

    first: int
    sums: Array

    def merge(self, other: RowFingerprints) -> RowFingerprints:
        """Return those of both parts."""
        shared = self.first + len(self.sums) - other.first
        if not len(self.sums) or shared <= 0:
            return RowFingerprints(
                self.first if len(self.sums) else other.first, np.concatenate((self.sums, other.sums))
            )
        head = self.sums.copy()
        head[-1] += other.sums[0]
        return RowFingerprints(self.first, np.concatenate((head, other.sums[1:])))


@dataclass(frozen=True, slots=True)
class RowFingerprintsOf:
    """Makes the sums of a block, of rows of `length` elements; it pickles."""

    length: int

    def __call__(self, blocks: Blocks) -> RowFingerprints:
        [values] = blocks.values
        bits = mixed_bits(widened(values)) if values.size else np.empty(0, np.uint64)
        first = blocks.start // self.length
        cuts = np.arange((first + 1) * self.length - blocks.start, bits.size, self.length)
        starts = np.concatenate((np.zeros(1, np.int64), cuts))[: None if bits.size else 0]
        return RowFingerprints(first, np.add.reduceat(bits, starts) if bits.size else bits)


class RowView(NamedTuple):
    """A tensor as rows: itself, or with its last two axes exchanged."""

    name: str
    tensor: Tensor
    rows: Array

    @property
    def length(self) -> int:
        """Elements of a row."""
        return self.tensor.shape[-1]


class Place(NamedTuple):
    """Where in a whole a part begins, in rows."""

    start: int
    part: RowView


@dataclass(frozen=True, slots=True)
class PartsStage:
    """The stage of `match` that looks for parts in wholes, in as many threads."""

    threads: int | None = None
    progress: Callable[[int], None] | None = None

    def __call__(self, before: TensorMap, after: TensorMap) -> Matching:
        """Match by rows; what it leaves over is in `removed` and `added`."""
        old, new = self._views(before), self._views(after)
        found = Matching()
        gone: set[str] = set()
        come: set[str] = set()
        for whole in new:
            places = _cover(whole, [one for one in old if one.name not in gone]) if whole.name not in come else None
            if places:
                found.pairs.append(_joined(whole, places))
                come.add(whole.name)
                gone.update(place.part.name for place in places)
        for whole in old:
            places = _cover(whole, [one for one in new if one.name not in come]) if whole.name not in gone else None
            if places:
                found.pairs += [_split(whole, place) for place in places]
                gone.add(whole.name)
                come.update(place.part.name for place in places)
        found.removed = [name for name in before if name not in gone]
        found.added = [name for name in after if name not in come]
        return found

    def _views(self, tensor_map: TensorMap) -> list[RowView]:
        asked = [(name, view) for name, tensor in tensor_map.items() for view in _orientations(tensor)]
        folds = [Fold((view,), RowFingerprintsOf(view.shape[-1])) for _, view in asked]
        with engine.threads_for(sum(view.spec.nbytes for _, view in asked), self.threads) as pool:
            states = fold_blocks(folds, RowFingerprints.merge, executor=pool, progress=self.progress)
            return [RowView(name, view, state.sums) for (name, view), state in zip(asked, states, strict=True)]


def _orientations(tensor: Tensor) -> Iterator[Tensor]:
    """Yield a tensor of two axes or more, and it with the last two exchanged."""
    shape = tensor.shape
    if len(shape) < 2 or not tensor.n_elements or min(shape[-2:]) < LEAST_ROW:
        return
    if tensor.n_elements // min(shape[-2:]) > MOST_ROWS:
        return
    yield tensor
    axes = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
    yield permuted(tensor, shape, axes, tuple(shape[axis] for axis in axes))


def _cover(whole: RowView, parts: Sequence[RowView]) -> list[Place] | None:
    """Return at least two parts that together are all rows of a whole, in order; None where they are not."""
    fitting = [one for one in parts if one.length == whole.length and len(one.rows) < len(whole.rows)]
    by_first: dict[int, list[RowView]] = {}
    for one in fitting:
        by_first.setdefault(int(one.rows[0]), []).append(one)
    places: list[Place] = []
    taken: set[str] = set()
    at = 0
    while at < len(whole.rows):
        candidates = by_first.get(int(whole.rows[at]), ())
        part = next((one for one in candidates if one.name not in taken and _is_at(one, whole, at)), None)
        if part is None:
            return None
        places.append(Place(at, part))
        taken.add(part.name)
        at += len(part.rows)
    return places if len(places) > 1 and _is_varied(whole) else None


def _is_at(part: RowView, whole: RowView, at: int) -> bool:
    return np.array_equal(whole.rows[at : at + len(part.rows)], part.rows)


def _is_varied(whole: RowView) -> bool:
    """Whether rows differ: a constant is in every constant."""
    return bool((whole.rows != whole.rows[0]).any())


def _joined(whole: RowView, places: Sequence[Place]) -> Pair:
    readers = tuple(place.part.tensor.reader for place in places)
    ends = tuple(np.cumsum([place.part.tensor.n_elements for place in places]).tolist())
    first = places[0].part.tensor
    before = Tensor(Spec(first.dtype, whole.tensor.shape), Joined(readers, ends))
    return Pair(" + ".join(place.part.name for place in places), whole.name, "joined", before, whole.tensor)


def _split(whole: RowView, place: Place) -> Pair:
    part = place.part.tensor
    reader = Strided(
        whole.tensor.reader, whole.tensor.n_elements, part.shape, c_strides(part.shape), place.start * whole.length
    )
    return Pair(whole.name, place.part.name, "split", Tensor(Spec(whole.tensor.dtype, part.shape), reader), part)

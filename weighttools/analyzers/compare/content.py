"""Matching by content what names do not match: renamed, transposed, cast.

Values are looked at once for a fingerprint that no order of axes changes, and where two are the same, once more, in the
orders that shapes allow. Constants and a few numbers are no evidence: they follow the tensors of their module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from weighttools.analyzers.compare.arrangements import arranged
from weighttools.analyzers.compare.fingerprints import Fingerprint, Fingerprints, fingerprints
from weighttools.analyzers.compare.matching import Matching
from weighttools.analyzers.compare.pair import Pair
from weighttools.analyzers.counts import module
from weighttools.core import engine
from weighttools.core.dtypes import DType
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap

ENOUGH_ELEMENTS = 8
"""Fewer elements may be equal by chance."""
MOST_COMPARED = 400
"""Pairs of names of equal tensors that are compared; where there are more, order decides."""
_SAME_PARTS = {
    "kernel": "weight",
    "gamma": "weight",
    "scale": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "mean": "running_mean",
    "moving_variance": "running_var",
    "var": "running_var",
}
"""What Keras and Flax call the last part of a name, in PyTorch's words."""


class FingerprintedTensor(NamedTuple):
    """A tensor that was looked at."""

    name: str
    tensor: Tensor
    found: Fingerprints

    @property
    def is_evidence(self) -> bool:
        """Whether equal values say that two tensors are one."""
        return self.found.varies and self.tensor.n_elements >= ENOUGH_ELEMENTS


@dataclass(frozen=True, slots=True)
class ContentStage:
    """The stage of `match` that looks at values, in as many threads, telling `progress` of bytes read."""

    threads: int | None = None
    progress: Callable[[int], None] | None = None

    def __call__(self, before: TensorMap, after: TensorMap) -> Matching:
        """Match by content; what it leaves over is in `removed` and `added`."""
        old, new = self._seen(before, after), self._seen(after, before)
        pairs: dict[str, Pair] = {}
        taken: set[str] = set()
        for candidates, targets in _alike(old, new):
            for pair in _paired(candidates, [one for one in targets if one.name not in pairs]):
                pairs[pair.new] = pair
                taken.add(pair.old)
        for pair in _followers(pairs, old, new, taken):
            pairs[pair.new] = pair
            taken.add(pair.old)
        return Matching.of_stage([pairs[name] for name in after if name in pairs], before, after)

    def _seen(self, tensor_map: TensorMap, other: TensorMap) -> list[FingerprintedTensor]:
        """Look at what may have a partner on the other side, by its number of elements."""
        there: dict[int, set[DType]] = {}
        for spec in other.specs():
            there.setdefault(spec.n_elements, set()).add(spec.dtype)
        asked = [(name, t) for name, t in tensor_map.items() if t.n_elements in there]
        narrower = [_narrower(tensor.dtype, there[tensor.n_elements]) for _, tensor in asked]
        with engine.threads_for(sum(tensor.spec.nbytes for _, tensor in asked), self.threads) as pool:
            found = fingerprints([tensor for _, tensor in asked], narrower, pool, self.progress)
            return [FingerprintedTensor(name, tensor, one) for (name, tensor), one in zip(asked, found, strict=True)]


def _narrower(dtype: DType, others: Iterable[DType]) -> tuple[DType, ...]:
    """Return the floats that a tensor may have been rounded to."""
    kept = [other for other in others if dtype.is_float and other.is_float and other != dtype]
    return tuple(sorted((other for other in kept if other.bits <= dtype.bits), key=lambda other: other.name))


Key = tuple[int, Fingerprint]


def _alike(
    old: Sequence[FingerprintedTensor], new: Sequence[FingerprintedTensor]
) -> Iterator[tuple[list[FingerprintedTensor], list[FingerprintedTensor]]]:
    """Yield tensors of both sides that hold the same values: first as they are, then rounded to the other's dtype."""
    taken: set[str] = set()
    for old_keys, new_keys in ((_as_is, _as_is), (_rounded, _as_is), (_as_is, _rounded)):
        left = [one for one in old if one.name not in taken]
        for olds, news in _groups(left, old_keys, new, new_keys):
            taken.update(one.name for one in olds)
            yield olds, news


def _as_is(one: FingerprintedTensor) -> list[Fingerprint]:
    return [one.found.of[None]]


def _rounded(one: FingerprintedTensor) -> list[Fingerprint]:
    return [found for which, found in one.found.of.items() if which is not None]


Keys = Callable[[FingerprintedTensor], Sequence[Fingerprint]]


def _groups(
    old: Sequence[FingerprintedTensor], old_keys: Keys, new: Sequence[FingerprintedTensor], new_keys: Keys
) -> Iterator[tuple[list[FingerprintedTensor], list[FingerprintedTensor]]]:
    table: dict[Key, tuple[list[FingerprintedTensor], list[FingerprintedTensor]]] = {}
    for side, (several, keys) in enumerate(((old, old_keys), (new, new_keys))):
        for one in several:
            for found in dict.fromkeys(keys(one)) if one.is_evidence else ():
                table.setdefault((one.tensor.n_elements, found), ([], []))[side].append(one)
    yield from (group for group in table.values() if group[0] and group[1])


def _paired(old: Sequence[FingerprintedTensor], new: Sequence[FingerprintedTensor]) -> Iterator[Pair]:
    """Yield pairs of tensors of the same values; of several, those whose names are nearest, one to one."""
    for one, other in _nearest(old, new):
        pair = _pair(one, other)
        if pair is not None:
            yield pair


def _nearest(
    old: Sequence[FingerprintedTensor], new: Sequence[FingerprintedTensor]
) -> Iterator[tuple[FingerprintedTensor, FingerprintedTensor]]:
    """Yield as many pairs as there are on the side that has fewer; of very many, in order."""
    if len(old) * len(new) > MOST_COMPARED:
        yield from zip(old, new, strict=False)
        return
    from difflib import SequenceMatcher

    def near(pair: tuple[int, int]) -> tuple[float, int, int]:
        names = old[pair[0]].name, new[pair[1]].name
        return -SequenceMatcher(None, *names, autojunk=False).ratio(), pair[0], pair[1]

    left, right = set(range(len(old))), set(range(len(new)))
    several = len(old) > 1 or len(new) > 1
    pairs = [(i, j) for i in sorted(left) for j in sorted(right)]
    for i, j in sorted(pairs, key=near) if several else pairs:
        if i in left and j in right:
            left.remove(i)
            right.remove(j)
            yield old[i], new[j]


def _pair(old: FingerprintedTensor, new: FingerprintedTensor) -> Pair | None:
    found = arranged(old.tensor, new.tensor)
    if found is None:
        return None
    how = "transposed" if found.is_moved else "cast" if old.tensor.dtype != new.tensor.dtype else "renamed"
    return Pair(old.name, new.name, how, found.tensor, new.tensor)


def _followers(
    pairs: Mapping[str, Pair], old: Sequence[FingerprintedTensor], new: Sequence[FingerprintedTensor], taken: set[str]
) -> Iterator[Pair]:
    """Yield pairs of what is no evidence itself, and lies in modules that belong together by the rest of them."""
    homes = _modules(pairs.values())
    free: dict[tuple[str, int, Fingerprint], list[FingerprintedTensor]] = {}
    for one in old:
        if one.name not in taken and not one.is_evidence:
            free.setdefault((module(one.name), one.tensor.n_elements, one.found.of[None]), []).append(one)
    for other in new:
        home = homes.get(module(other.name))
        if home is None or other.name in pairs or other.is_evidence:
            continue
        candidates = free.get((home, other.tensor.n_elements, other.found.of[None]), [])
        best = next((one for one in candidates if _last(one.name) == _last(other.name)), None)
        best = best or (candidates[0] if len(candidates) == 1 else None)
        pair = _pair(best, other) if best else None
        if pair is not None and best is not None:
            candidates.remove(best)
            yield pair


def _last(name: str) -> str:
    """Return the last part of a name, in one library's words."""
    part = name.replace("/", ".").rpartition(".")[2].partition(":")[0]
    return _SAME_PARTS.get(part, part)


def _modules(pairs: Iterable[Pair]) -> dict[str, str]:
    """Return the old module of each new one, where all pairs of it say the same."""
    found: dict[str, set[str]] = {}
    for pair in pairs:
        found.setdefault(module(pair.new), set()).add(module(pair.old))
    return {new: next(iter(olds)) for new, olds in found.items() if len(olds) == 1}

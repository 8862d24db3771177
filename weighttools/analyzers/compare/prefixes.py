"""Matching names that differ in a common beginning: ``module.``, ``model.``, ``_orig_mod.``, as wrappers add them."""

from __future__ import annotations

from collections.abc import Iterator

from weighttools.analyzers.compare.matching import Matching
from weighttools.analyzers.compare.pair import Pair
from weighttools.core.tensormap import TensorMap

MOST_PARTS = 4
ENOUGH = 0.8
"""What part of the names, of the side that has fewer, a beginning must explain with equal shapes."""


def match_prefixes(before: TensorMap, after: TensorMap) -> Matching:
    """Match names of which one is the other with something before it: the same for all, and the shapes agree.

    Their values need not be equal: a fine-tune under a wrapper is the same model.
    """
    best: dict[str, str] = {}
    for prefix, is_old in _prefixes(before, after):
        found = _by_prefix(before, after, prefix, is_old)
        if len(found) > len(best):
            best = found
    if len(best) < ENOUGH * min(len(before), len(after)):
        best = {}
    pairs = [Pair(best[new], new, "renamed", before[best[new]], after[new]) for new in after if new in best]
    return Matching.of_stage(pairs, before, after)


def _prefixes(before: TensorMap, after: TensorMap) -> Iterator[tuple[str, bool]]:
    """Yield the beginnings of the first names, of up to four parts, and whether the old names have them."""
    for tensor_map, is_old in ((before, True), (after, False)):
        seen = dict.fromkeys(
            ".".join(name.split(".")[:n]) + "." for name in list(tensor_map)[:8] for n in range(1, MOST_PARTS + 1)
        )
        yield from ((prefix, is_old) for prefix in seen)


def _by_prefix(before: TensorMap, after: TensorMap, prefix: str, is_old: bool) -> dict[str, str]:
    """Return the old name of each new one that differs by the prefix alone."""
    longer, shorter = (before, after) if is_old else (after, before)
    found = {}
    for name in longer:
        rest = name.removeprefix(prefix)
        if rest != name and rest in shorter and longer[name].shape == shorter[rest].shape:
            old, new = (name, rest) if is_old else (rest, name)
            found[new] = old
    return found

"""Rounded through a narrower dtype: every new element is what rounding the old one to nearest gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weighttools.analyzers.compare.casting import cast_values
from weighttools.analyzers.compare.explain.context import ChangedPair, ExplanationContext, Findings
from weighttools.analyzers.compare.explain.questions import SideBySide
from weighttools.analyzers.compare.explain.rounding import eps_of
from weighttools.analyzers.compare.explain.wording import listed, part_of
from weighttools.analyzers.compare.pair import Explanation
from weighttools.core.dtypes import DTYPES

if TYPE_CHECKING:
    from weighttools.core.spec import Array

CODE = "rounded"
NARROW = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
"""Dtypes that weights are rounded through, the finer first: what several would give, the finest explains."""
FEWEST = 16
"""Elements that moved and are not 0 after, over all tensors, before rounding is told of."""
LEAST_SHARE = 0.1
"""Of the elements of changed tensors that have the same dtype now."""
_FIRST = 2048
"""Elements of a block that are tried first: most changes are refuted by them."""


class Route(NamedTuple):
    """A way to round: to a dtype, and whether what is beyond its range becomes its largest number."""

    dtype: str
    saturates: bool


@dataclass(frozen=True, slots=True)
class Rounding:
    """What a pair's values agree with.

    Parameters
    ----------
    routes
        Roundings that give every new element.
    kept_routes
        Those that give every new element that is not 0.
    n_moved
        Elements that changed and are not 0 after.
    n_distinct
        So many different values are among these at least; what one value became may be chance.
    """

    routes: frozenset[Route]
    kept_routes: frozenset[Route]
    n_moved: int
    n_distinct: int = 0


@dataclass(frozen=True, slots=True)
class RoundingQuestion:
    """Asks which roundings of the old values give the new ones."""

    routes: tuple[Route, ...]

    def of(self, block: SideBySide) -> Rounding:
        fits = {route: self._fit(block, route) for route in self.routes}
        if not any(is_kept for _, is_kept in fits.values()):
            return Rounding(frozenset(), frozenset(), 0)
        is_moved = (block.old != block.new) & (block.new != 0)
        n_moved = int(np.count_nonzero(is_moved))
        return Rounding(
            frozenset(route for route, (is_all, _) in fits.items() if is_all),
            frozenset(route for route, (_, is_kept) in fits.items() if is_kept),
            n_moved,
            np.unique(block.old[np.flatnonzero(is_moved)[:_FIRST]]).size,
        )

    def _fit(self, block: SideBySide, route: Route) -> tuple[bool, bool]:
        """Return whether rounding gives all new elements, and whether those that are not 0."""
        for part in (slice(_FIRST), slice(_FIRST, None)):
            after = block.after[part]
            wrong = cast_values(rounded(block.before[part], route), after.dtype) != after
            if (wrong & (after != 0)).any():
                return False, False
            if wrong.any():
                return False, not (wrong_later(block, route))
        return True, True

    def merge(self, first: Rounding, second: Rounding) -> Rounding:
        return Rounding(
            first.routes & second.routes,
            first.kept_routes & second.kept_routes,
            first.n_moved + second.n_moved,
            max(first.n_distinct, second.n_distinct),
        )

    def finish(self, state: Rounding) -> Rounding | None:
        return state if state.kept_routes else None


def wrong_later(block: SideBySide, route: Route) -> bool:
    """Whether a new element that is not 0 is not what a rounding gives."""
    wrong = cast_values(rounded(block.before, route), block.after.dtype) != block.after
    return bool((wrong & (block.after != 0)).any())


def rounded(values: Array, route: Route) -> Array:
    """Return values rounded to nearest, ties to even."""
    import ml_dtypes

    dtype = DTYPES[route.dtype].numpy
    if route.saturates:
        most = float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
        values = np.clip(values, -most, most)
    return cast_values(values, dtype)


def rounding_question(change: ChangedPair, context: ExplanationContext) -> RoundingQuestion | None:
    """Return what to ask where the old dtype can lose by rounding, and the new one does not lose more."""
    before, after = change.pair.before.dtype, change.pair.after.dtype
    names = [name for name in NARROW if name != before.name and DTYPES[name].bits <= before.bits]
    routes = [Route(name, False) for name in names if eps_of(DTYPES[name]) >= eps_of(after)]
    routes += [Route(route.dtype, True) for route in routes if DTYPES[route.dtype].bits == 8]
    return RoundingQuestion(tuple(routes)) if routes and not change.pair.after.spec.is_quantized else None


def explain_rounding(findings: Findings) -> list[Explanation]:
    """Say through which dtype values were rounded."""
    fitting = [(change, found) for change, found in findings.open(CODE) if found.routes]
    votes = Counter(route for _, found in fitting for route in found.routes if found.n_moved)
    groups: dict[Route, list[tuple[ChangedPair, Rounding]]] = {}
    for change, found in fitting:
        route = max(found.routes, key=lambda route: (votes[route], not route.saturates, -NARROW.index(route.dtype)))
        groups.setdefault(route, []).append((change, found))
    told = [(route, group) for route, group in groups.items() if _shows(route, group, findings)]
    return [_explanation(route, group, len(findings.changes)) for route, group in told]


def _shows(route: Route, group: Sequence[tuple[ChangedPair, Rounding]], findings: Findings) -> bool:
    """Whether enough values moved, and the tensors are not just those few that other changes left as rounding does.

    Tensors that are rounded but for zeros speak for it, too. Tensors of few different values do only where all of a
    dtype agree: one is added to 2049 and 2051 as rounding to float16 does, and not to 2050 and 2052.
    """
    dtypes = {change.pair.after.dtype for change, _ in group}
    alike = sum(change.figures.n_elements for change in findings.changes if change.pair.after.dtype in dtypes)
    n_elements = sum(c.figures.n_elements for c, found in findings.open(CODE) if route in found.kept_routes)
    is_told = any(found.n_distinct >= FEWEST for _, found in group) or n_elements == alike
    return is_told and sum(found.n_moved for _, found in group) >= FEWEST and n_elements >= LEAST_SHARE * alike


def _explanation(route: Route, group: Sequence[tuple[ChangedPair, Rounding]], total: int) -> Explanation:
    names = tuple(change.name for change, _ in group)
    kept = {change.pair.after.dtype.name for change, _ in group}
    saturated = ", saturating" if route.saturates else ""
    rest = "" if kept == {route.dtype} else f", now kept as {' and '.join(sorted(kept))}"
    lead = part_of(len(group), total)
    text = (
        f"{lead[0].upper()}{lead[1:]} ({listed(names)}) {'were' if len(group) > 1 else 'was'} rounded to"
        f" {route.dtype}{rest}: every element is what rounding to nearest, ties to even{saturated}, gives."
    )
    evidence: dict[str, object] = {
        "dtype": route.dtype, "saturates": route.saturates, "n_tensors": len(group), "n_changed_tensors": total,
        "n_elements": sum(change.figures.n_elements for change, _ in group),
        "n_moved": sum(found.n_moved for _, found in group),
    }  # fmt: skip
    return Explanation(CODE, text, names, evidence)

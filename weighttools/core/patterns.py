"""Name patterns: globs on whole names (``*`` crosses dots), or ``re:`` and a regular expression."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

from weighttools.errors import SpecError, TensorNotFoundError, printable


def matching(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """Return the names that any pattern matches; one text is one pattern.

    Raises
    ------
    TensorNotFoundError
        A pattern matches no name; near names are given.
    SpecError
        A regular expression does not compile.

    Examples
    --------
    >>> sorted(matching(["a.weight", "a.bias", "b.c.weight"], ["*.weight"]))
    ['a.weight', 'b.c.weight']
    """
    known = list(names)
    found: set[str] = set()
    for pattern in listed(patterns):
        match = _compiled(pattern).search
        hits = {name for name in known if match(name)}
        if not hits:
            raise not_found(pattern, known, what="pattern")
        found |= hits
    return found


def matching_names(names: Iterable[str], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    """Return the names that `include` matches (all, if it is empty) and `exclude` does not, in order.

    Raises
    ------
    TensorNotFoundError
        A pattern matches no name, or all together leave none.
    """
    known, include, exclude = list(names), listed(include), listed(exclude)
    kept = matching(known, include) if include else set(known)
    dropped = matching(known, exclude) if exclude else set()
    if kept and kept <= dropped:
        which = "the pattern" if len(exclude) == 1 else "the patterns"
        verb = "leaves" if len(exclude) == 1 else "leave"
        raise TensorNotFoundError(
            f"{which} {', '.join(map(repr, exclude))} {verb} out every tensor", code="nothing-left"
        )
    return [name for name in known if name in kept and name not in dropped]


def listed(patterns: str | Sequence[str]) -> Sequence[str]:
    """Return patterns as a sequence: one text is one pattern, not as many as it has characters.

    >>> listed("encoder*"), listed(["a*", "b*"])
    (['encoder*'], ['a*', 'b*'])
    """
    return [patterns] if isinstance(patterns, str) else patterns


def not_found(name: str, known: Sequence[str], what: str = "tensor") -> TensorNotFoundError:
    """Return the error for a name or pattern that matches nothing, with near names."""
    remedy = _remedy(name, known) if known else "there are no tensors"
    if what == "tensor":
        return TensorNotFoundError(f"no tensor is called {name!r}", remedy=remedy)
    fact = f"the pattern {name!r} matches no tensor"
    return TensorNotFoundError(fact, remedy=remedy, code="pattern-matches-nothing")


def _remedy(name: str, known: Sequence[str]) -> str:
    """Return what may have been meant: names that hold it, or differ in case or in a few places; else some names."""
    stem = re.sub(r"[*?]+", "", name.removeprefix("re:"))
    inside = [k for k in known if stem and stem in k][:3]
    if not inside and not name.startswith("re:"):
        from weighttools.core import near

        if other := near.in_other_case(name, known):
            return f"differs only in case: {printable(other)}"
        if close := near.near(name, known):
            return _near(close)
        other = near.respelt(name, known)
        hits = [k for k in known if _compiled(other).search(k)] if other else []
        if hits:
            return f"{_near(hits[:3])}; try {printable(other or '')!r}"
    return _near(inside or known[:3])


def _near(names: Sequence[str]) -> str:
    return f"near names: {', '.join(printable(name) for name in names)}"


def _compiled(pattern: str) -> re.Pattern[str]:
    if not pattern.startswith("re:"):
        return re.compile(r"\A" + fnmatch.translate(pattern))
    try:
        return re.compile(pattern[3:])
    except (re.error, OverflowError, RecursionError) as error:  # a count, or a nesting, that is too large
        raise SpecError(
            f"the regular expression {pattern[3:]!r} does not compile: {error}", code="regular-expression"
        ) from None

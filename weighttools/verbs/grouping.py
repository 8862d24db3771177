"""By what rows are made, where a number of parts of the name says it alone."""

from __future__ import annotations

from weighttools.errors import SpecError, option


def resolve_grouping(by: str, depth: int | None, usual: str) -> tuple[str, int]:
    """Return what to group by, and how many parts of the name make a group by depth.

    Parameters
    ----------
    by, depth
        As given; a depth implies grouping by it.
    usual
        What `by` is by default.

    Raises
    ------
    SpecError
        Another grouping is asked for, of which a depth says nothing.
    """
    if depth is None:
        return by, 1
    if by not in (usual, "depth"):
        fact = f"{option('depth')} groups by parts of the name, {option('by')} by {by}"
        raise SpecError(fact, expected="one of the two", code="options-exclude")
    return "depth", depth

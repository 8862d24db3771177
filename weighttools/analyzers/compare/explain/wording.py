"""How explanations name many tensors in a few words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from weighttools.core.tree import ranges
from weighttools.errors import printable

_NUMBER = re.compile(r"(?<![^./_])(\d{1,9})(?![^./_])", re.ASCII)
MOST = 3
"""Labels that a sentence lists."""


def labels(names: Iterable[str]) -> dict[str, list[str]]:
    """Return names by label: those alike but for numbers have one, with the numbers as ranges.

    >>> list(labels(["h.0.ln", "h.1.ln", "h.3.ln", "wte"]))
    ['h.[0-1,3].ln', 'wte']
    >>> labels(["l.0.e.0", "l.0.e.1", "l.1.e.0", "l.1.e.1"])
    {'l.[0-1].e.[0-1]': ['l.0.e.0', 'l.0.e.1', 'l.1.e.0', 'l.1.e.1']}
    """
    found = {tuple(_NUMBER.split(name)): [name] for name in names}
    for back in range(1, max((len(parts) // 2 for parts in found), default=0) + 1):
        found = _joined(found, -2 * back)
    return {"".join(parts): each for parts, each in found.items()}


Parts = tuple[str, ...]
"""A name cut at its numbers: texts and numbers by turns."""


def _joined(found: dict[Parts, list[str]], at: int) -> dict[Parts, list[str]]:
    """Join those that are alike but for the number at a place, counted from the end; ranges of others stay."""
    groups: dict[tuple[Parts, Parts], list[Parts]] = {}
    for parts in found:
        around = (parts[:at], parts[at + 1 :]) if len(parts) >= 1 - at else (parts, ())
        groups.setdefault(around, []).append(parts)
    joined: dict[Parts, list[str]] = {}
    for (before, after), alike in groups.items():
        label = alike[0] if len(alike) == 1 else (*before, _ranges([int(parts[at]) for parts in alike]), *after)
        joined[label] = [name for parts in alike for name in found[parts]]
    return joined


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers as ranges in brackets; of many scattered ones, the ends and how many."""
    text = ranges(numbers)
    return f"[{text}]" if len(text) <= 40 else f"[{min(numbers)}-{max(numbers)}: {len(numbers):,} of them]"


def listed(names: Iterable[str], most: int = MOST) -> str:
    """Return labels in a sentence: a, b, c and 3 more."""
    return enumerated(list(labels(names)), most)


def enumerated(parts: Sequence[str], most: int = MOST) -> str:
    """Return parts as a sentence lists them.

    >>> enumerated(["a", "b"]), enumerated(["a", "b", "c"], 2)
    ('a and b', 'a, b and 1 more')
    """
    shown = [printable(part) for part in parts[:most]]
    if len(parts) > most:
        return f"{', '.join(shown)} and {len(parts) - most:,} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def counted(n: int, what: str = "tensor") -> str:
    """Return a number and its noun.

    >>> counted(1), counted(2000)
    ('1 tensor', '2,000 tensors')
    """
    return f"{n:,} {what}" + ("s" if n != 1 else "")


def part_of(n: int, total: int, what: str = "changed tensor") -> str:
    """Return how many of how many.

    >>> part_of(2, 3), part_of(3, 3)
    ('2 of 3 changed tensors', 'all 3 changed tensors')
    """
    if n == total:
        return f"all {counted(n, what)}" if n > 1 else f"the one {what}"
    return f"{n:,} of {counted(total, what)}"


def percent(share: float) -> str:
    """Return a share in percent that says 100 % of the whole alone.

    >>> percent(1.0), percent(0.99999), percent(0.5)
    ('100 %', '99.99 %', '50 %')
    """
    if share >= 1:
        return "100 %"
    return f"{int(share * 1e4) / 100:g} %"

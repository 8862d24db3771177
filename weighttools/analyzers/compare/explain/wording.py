"""How explanations name many tensors in a few words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from weighttools.core.tree import ranges
from weighttools.errors import printable

_NUMBER = re.compile(r"(?<![^./_])\d{1,9}(?![^./_])")
MOST = 3
"""Labels that a sentence lists."""


def labels(names: Iterable[str]) -> dict[str, list[str]]:
    """Return names by label: those alike but for their first number have one, with the numbers as ranges.

    >>> labels(["h.0.ln", "h.1.ln", "h.3.ln", "wte"])
    {'h.[0-1,3].ln': ['h.0.ln', 'h.1.ln', 'h.3.ln'], 'wte': ['wte']}
    """
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name in names:
        found = _NUMBER.search(name)
        before, number, after = (name[: found.start()], found[0], name[found.end() :]) if found else (name, "", "")
        groups.setdefault((before, after), []).append((number, name))
    return {
        _label(before, after, [n for n, _ in each]): [name for _, name in each]
        for (before, after), each in groups.items()
    }


def _label(before: str, after: str, numbers: Sequence[str]) -> str:
    return f"{before}{numbers[0] if len(numbers) == 1 else f'[{ranges(map(int, numbers))}]'}{after}"


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

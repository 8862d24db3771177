"""Near names: what was meant by a name that nothing has, by edit distance, in bounded work however many there are."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence

MOST_NAMES = 20_000
"""Names that are looked through: sorting so many takes a few hundredths of a second, and a file may hold millions."""
NEIGHBOURS = 40
"""Names whose distance is computed, on either side of the one that was given, in the order of beginnings and of ends:
a name that is mistyped in one place shares all that is before it or all that is behind it."""
MOST_LETTERS = 80
"""Letters that are tried in each place of a name; with `LONGEST` that makes 32,000 texts to look up."""
MOST_WORDS = 4
"""Words of a pattern that are looked for one by one."""
LONGEST = 200
"""Characters of a name that are compared: the distance takes time in proportion to length times bound."""


def near(word: str, known: Sequence[str], n: int = 3) -> list[str]:
    """Return up to `n` of the known names that differ from `word` in few places, the nearest first.

    Parameters
    ----------
    word
        What was given.
    known
        The names there are; of very many the first `MOST_NAMES` are looked at.

    Examples
    --------
    >>> near("fc.weigth", ["fc.weight", "fc.bias", "head.weight"])
    ['fc.weight']
    """
    if not word or len(word) > LONGEST:
        return []
    known = known[:MOST_NAMES]
    most = 1 if len(word) < 4 else max(2, len(word) // 4)
    found = [(1, name) for name in _one_edit_away(word, known)]
    for name in _neighbours(word, known) if len(found) < n else ():
        if abs(len(name) - len(word)) <= most and 1 < (n_edits := distance(word, name, most)) <= most:
            found.append((n_edits, name))
    return [name for _, name in sorted(found, key=lambda pair: pair[0])[:n]]


def _one_edit_away(word: str, known: Sequence[str]) -> list[str]:
    """Return the names at a distance of 1, in their order: each text at that distance is looked up among them."""
    letters = sorted(set("".join(known)))[:MOST_LETTERS]
    cuts = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    made = {a + b[1:] for a, b in cuts if b} | {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    for letter in letters:
        made.update(a + letter + b for a, b in cuts)
        made.update(a + letter + b[1:] for a, b in cuts if b)
    made.discard(word)
    return [name for name in dict.fromkeys(known) if name in made]


def _neighbours(word: str, known: Sequence[str]) -> list[str]:
    """Return the names that begin or end most like `word`, in their order."""
    if len(known) <= 2 * NEIGHBOURS:
        return list(dict.fromkeys(known))
    chosen: set[str] = set()
    for step in (1, -1):
        ordered = sorted(name[::step] for name in known)
        at = bisect.bisect_left(ordered, word[::step])
        chosen.update(name[::step] for name in ordered[max(0, at - NEIGHBOURS) : at + NEIGHBOURS])
    return [name for name in dict.fromkeys(known) if name in chosen]


def distance(a: str, b: str, most: int) -> int:
    """Return how many insertions, deletions, changes and exchanges of neighbours part two texts, or ``most + 1``.

    Only the diagonals within `most` are computed (Ukkonen, "Algorithms for approximate string matching", 1985).

    >>> distance("weigth", "weight", 2), distance("bias", "weight", 2)
    (1, 3)
    """
    far = most + 1
    before: dict[int, int] = {}
    last = {j: j for j in range(min(len(b), most) + 1)}
    for i in range(1, len(a) + 1):
        row: dict[int, int] = {}
        for j in range(max(0, i - most), min(len(b), i + most) + 1):
            best = min(last.get(j, far) + 1, row.get(j - 1, far) + 1)
            if j and a[i - 1] == b[j - 1]:
                best = min(best, last.get(j - 1, far))
            elif j:
                best = min(best, last.get(j - 1, far) + 1)
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                best = min(best, before.get(j - 2, far) + 1)
            row[j] = best
        if min(row.values(), default=far) > most:
            return far
        before, last = last, row
    return min(far, last.get(len(b), far))


def in_other_case(pattern: str, known: Sequence[str]) -> str | None:
    """Return a glob in the case of the first name that it would match if case did not count; None where none does.

    >>> in_other_case("*norm*", ["encoder.LayerNorm.weight"])
    '*Norm*'
    """
    try:
        match = re.compile(_regex(pattern), re.IGNORECASE | re.DOTALL).fullmatch
    except re.error:
        return None
    found = next(filter(None, map(match, known[:MOST_NAMES])), None)
    if found is None:
        return None
    groups = iter(found.groups())
    return "".join(next(groups) if is_plain else part for is_plain, part in _parts(pattern))


def _regex(pattern: str) -> str:
    """Return a glob as a regular expression with a group for each plain part; what a star has passed is not tried anew.

    Between stars the first place that fits is as good as any, so that the time is linear, as in `fnmatch.translate`.
    """
    chunks = [""]
    for is_plain, part in _parts(pattern):
        if part == "*":
            chunks.append("")
        else:
            chunks[-1] += f"({re.escape(part)})" if is_plain else "." if part == "?" else part
    first, *others = chunks
    if not others:
        return first
    return first + "".join(f"(?>.*?{chunk})" for chunk in others[:-1]) + f".*{others[-1]}"


def respelt(pattern: str, known: Sequence[str]) -> str | None:
    """Return a glob whose words are exchanged for the nearest that the names have; None where that changes nothing.

    >>> respelt("*.atention.*", ["encoder.attention.weight"])
    '*.attention.*'
    """
    words = list(dict.fromkeys(part for name in known[:MOST_NAMES] for part in re.split(r"[./]", name)))
    parts = _parts(pattern[:LONGEST])
    given = {word for is_plain, part in parts if is_plain for word in re.split(r"[./]", part)} - set(words) - {""}
    if not given or len(given) > MOST_WORDS:
        return None
    spelt = {word: next(iter(near(word, words, 1)), word) for word in given}

    def exchanged(match: re.Match[str]) -> str:
        return spelt.get(match[0], match[0])

    found = "".join(re.sub(r"[^./]+", exchanged, part) if is_plain else part for is_plain, part in parts)
    return found if found != pattern else None


def _parts(pattern: str) -> list[tuple[bool, str]]:
    """Return a glob's parts in order, each with whether it is plain text; a class in brackets is not."""
    found = re.split(r"([*]+|[?]|\[[^\]]+\])", pattern)
    return [(i % 2 == 0, "*" if part.startswith("**") else part) for i, part in enumerate(found) if part]

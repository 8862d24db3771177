"""What a tokenizer.json may ask for: steps that multiply a text without bound are refused before they run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from weighttools.errors import CorruptFileError

PARTS = ("normalizer", "pre_tokenizer", "decoder")
MOST_STEPS, MOST_CONTENT, MOST_GROWTH = 64, 64, 256
"""Known tokenizers have up to a dozen steps, put one character in a place, and come to a growth below 20."""
MOST_ID = 2**31 - 1


def check_bounds(data: Mapping[str, Any], subject: object) -> None:
    """Refuse a tokenizer.json whose steps let texts grow beyond measure, or whose token numbers are no int32.

    Raises
    ------
    CorruptFileError
        A part has too many steps, puts in a long text, or lets a text grow too much; or a number is too large.
    """
    for part in PARTS:
        _check_part(part, [step for step in _objects(data.get(part)) if "type" in step], subject)
    number, token = max(_numbers(data), default=(0, ""))
    if number > MOST_ID:
        raise CorruptFileError(
            f"token {token[:40]!r} has the number {number:,}", subject=subject, expected=f"at most {MOST_ID:,}"
        )


def _check_part(part: str, steps: list[Mapping[str, Any]], subject: object) -> None:
    if len(steps) > MOST_STEPS:
        raise CorruptFileError(
            f"its {part} has {len(steps):,} steps", subject=subject, expected=f"{MOST_STEPS} at most"
        )
    longest = max((len(_put_in(step)) for step in steps), default=0)
    if longest > MOST_CONTENT:
        fact = f"its {part} puts in a text of {longest:,} characters"
        raise CorruptFileError(fact, subject=subject, expected=f"{MOST_CONTENT} at most")
    growth = math.prod(_growth(step) for step in steps)
    if growth > MOST_GROWTH:
        fact = f"its {part} can make a text {growth:.3g} times as long"
        raise CorruptFileError(fact, subject=subject, expected=f"{MOST_GROWTH} times at most")


def _growth(step: Mapping[str, Any]) -> float:
    """Return how many times as long a step can make a text."""
    put_in, pattern = _put_in(step), step.get("pattern")
    if step["type"] == "ByteLevel":
        return 4  # a character may be four bytes
    if step["type"] != "Replace" or not put_in:
        return 1 + len(put_in)
    fixed = pattern.get("String") if isinstance(pattern, Mapping) else None
    return max(1, len(put_in) / len(fixed)) if isinstance(fixed, str) and fixed else 1 + len(put_in)


def _put_in(step: Mapping[str, Any]) -> str:
    found = step.get({"Replace": "content", "Prepend": "prepend"}.get(str(step.get("type")), ""))
    return found if isinstance(found, str) else ""


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the objects in a JSON value, however deep."""
    left = [value]
    while left:
        at = left.pop()
        if isinstance(at, dict):
            yield at
            left += at.values()
        elif isinstance(at, list):
            left += at


def _numbers(data: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield the numbers that tokens have, with the tokens."""
    model, added = data.get("model"), data.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield from ((number, token) for token, number in vocabulary.items() if isinstance(number, int))
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            yield token["id"], str(token.get("content"))

"""What a tokenizer.json may ask for: what multiplies a text without bound, or panics, is refused before it runs."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from weighttools.errors import CorruptFileError

PARTS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}
"""The parts of a tokenizer.json that are steps, and the key under which a sequence has its steps."""
MOST_STEPS, MOST_CONTENT, MOST_GROWTH = 64, 64, 256
"""Known tokenizers have up to a dozen steps, put one character in a place, and come to a growth below 20."""
MOST_ADDED = 64
"""Known tokenizers add up to 4 tokens to a text or a pair."""
MOST_ID = 2**31 - 1


def check_bounds(data: Mapping[str, Any], subject: object) -> None:
    """Refuse a tokenizer.json that lets texts grow beyond measure, panics, or whose token numbers are no int32.

    Raises
    ------
    CorruptFileError
        A part has too many steps, puts in a long text, or lets a text grow too much; it adds too many tokens, or some
        that it does not define; its table of characters leads nowhere; or a number is too large.
    """
    steps = {part: _steps(part, data.get(part), subject) for part in PARTS}
    for step in steps["normalizer"]:
        if "precompiled_charsmap" in step:
            _check_charsmap(step["precompiled_charsmap"], subject)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        _check_growth(part, steps[part], subject)
    if any(step.get("length") == 0 for step in steps["pre_tokenizer"]):
        raise CorruptFileError("its pre_tokenizer cuts pieces of length 0", subject=subject, expected="1 or more")
    _check_added(steps["post_processor"], subject)
    _check_numbers(data, steps["post_processor"], subject)


def _steps(part: str, value: Any, subject: object) -> list[Mapping[str, Any]]:
    """Return the steps of a part, however nested.

    The package takes arrays for objects, too, which no tokenizer is saved as, and goes by the keys rather than the
    type: so nothing here goes by the type where keys tell.
    """
    left: list[Any] = [] if value is None else [value]
    found: list[Mapping[str, Any]] = []
    while left:
        step = left.pop()
        if not isinstance(step, dict):
            raise CorruptFileError(f"its {part} has a step that is no object", subject=subject, expected="{…}")
        found.append(step)
        inner = step.get(PARTS[part], [])
        left += inner if isinstance(inner, list) else [inner]
    if len(found) > MOST_STEPS:
        raise CorruptFileError(
            f"its {part} has {len(found):,} steps", subject=subject, expected=f"{MOST_STEPS} at most"
        )
    return found


def _check_growth(part: str, steps: list[Mapping[str, Any]], subject: object) -> None:
    longest = max(map(_put_in, steps), default=0)
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
    if step.get("type") == "ByteLevel":
        return 4  # a character may be four bytes
    fixed = pattern.get("String") if isinstance(pattern, Mapping) else None
    return max(1, put_in / len(fixed)) if put_in and isinstance(fixed, str) and fixed else 1 + put_in


def _put_in(step: Mapping[str, Any]) -> int:
    """Return the length of the longest text that a step puts in a place."""
    if "precompiled_charsmap" in step:
        _, texts = _charsmap(step["precompiled_charsmap"])
        return max(map(len, texts.decode().split("\0")))
    found = step.get("content") if "pattern" in step else step.get("prepend")
    return len(found) if isinstance(found, str) else 0


def _charsmap(said: Any) -> tuple[np.ndarray[Any, Any], bytes]:
    """Return SentencePiece's table of characters: the units of its trie, and the texts between zeros that it leads to.

    Raises
    ------
    ValueError
        It is none.
    """
    if not isinstance(said, str):
        raise ValueError("it is no text")
    data = base64.b64decode(said, validate=True)
    n = int.from_bytes(data[:4], "little") // 4
    if base64.b64encode(data).decode() != said or len(data) < 4 + 4 * n:
        raise ValueError("it is cut short")
    data[4 + 4 * n :].decode()
    return np.frombuffer(data, "<u4", n, 4), data[4 + 4 * n :]


def _check_charsmap(said: Any, subject: object) -> None:
    """Refuse a table of characters of which a text could lead beyond its end.

    References
    ----------
    Yata, Darts-clone, ``darts.h``, ``DoubleArrayUnit``: the bits of a unit.
    """
    try:
        units, texts = _charsmap(said)
    except (ValueError, binascii.Error) as error:
        fact = f"its normalizer's precompiled_charsmap is no table of characters: {error}"
        raise CorruptFileError(fact, subject=subject) from None
    offsets = (units.astype(np.int64) >> 10) << ((units & 0x200) >> 6)
    is_inner = units < 1 << 31
    is_inner[:1] = True  # a search begins there, whatever it holds
    bases = (np.arange(len(units)) ^ offsets)[is_inner]
    if not len(units) or (bases | 0xFF).max() >= len(units):
        raise CorruptFileError("its normalizer's precompiled_charsmap leads beyond its trie", subject=subject)
    at = units[bases[(units[is_inner] & 0x100) > 0]] & 0x7FFFFFFF
    is_start = np.frombuffer(texts + b"\0", np.uint8) & 0xC0 != 0x80
    if at.size and (at.max() > len(texts) or not is_start[at].all()):
        raise CorruptFileError("its normalizer's precompiled_charsmap leads beyond its texts", subject=subject)


def _check_added(steps: list[Mapping[str, Any]], subject: object) -> None:
    templates = [step for step in steps if "single" in step or "pair" in step]
    if len(templates) > 1:
        raise CorruptFileError(f"its post_processor has {len(templates)} templates", subject=subject, expected="one")
    enclosed = sum("sep" in step or "cls" in step for step in steps)
    added = 4 * enclosed + sum(_added(template, subject) for template in templates)
    if added > MOST_ADDED:
        fact = f"its post_processor adds {added:,} tokens"
        raise CorruptFileError(fact, subject=subject, expected=f"{MOST_ADDED} at most")


def _added(template: Mapping[str, Any], subject: object) -> int:
    """Return how many tokens a template adds to a text and to a pair, together."""
    added = 0
    for side, sequences in (("single", ["A"]), ("pair", ["A", "B"])):
        left = list(sequences)
        for kind, name in _pieces(template, side, subject):
            if kind == "SpecialToken":
                added += len(_special(template, name, side, subject))
            elif name in left:
                left.remove(name)
            else:
                fact = f"its post_processor's {side!r} has the sequence {name!r}"
                raise CorruptFileError(fact, subject=subject, expected=f"{' and '.join(sequences)}, each once at most")
    return added


def _pieces(template: Mapping[str, Any], side: str, subject: object) -> Iterator[tuple[str, str]]:
    """Yield the pieces of a template: ``"Sequence"`` or ``"SpecialToken"``, and its name."""
    pieces = template.get(side)
    for piece in pieces if isinstance(pieces, list) else [pieces]:
        for kind in ("Sequence", "SpecialToken"):
            inner = piece.get(kind) if isinstance(piece, dict) and len(piece) == 1 else None
            if isinstance(inner, dict) and isinstance(inner.get("id"), str):
                yield kind, inner["id"]
                break
        else:
            expected = '{"Sequence": {"id": …}} or {"SpecialToken": {"id": …}}'
            raise CorruptFileError(f"its post_processor's {side!r} is no template", subject=subject, expected=expected)


def _special(template: Mapping[str, Any], name: str, side: str, subject: object) -> list[Any]:
    """Return the numbers that a template has for a special token."""
    known = template.get("special_tokens")
    token = known.get(name) if isinstance(known, dict) else None
    ids = token.get("ids") if isinstance(token, dict) else None
    if not isinstance(ids, list):
        fact = f"its post_processor's {side!r} adds {name[:40]!r}, which its special_tokens lack"
        raise CorruptFileError(fact, subject=subject)
    return ids


def _check_numbers(data: Mapping[str, Any], processors: list[Mapping[str, Any]], subject: object) -> None:
    number, token = max(_numbers(data), default=(0, ""))
    what = f"token {token[:40]!r}"
    if number <= MOST_ID:
        number, what = max(_others(data, processors), default=(0, ""))
    if number > MOST_ID:
        raise CorruptFileError(f"{what} has the number {number:,}", subject=subject, expected=f"at most {MOST_ID:,}")


def _numbers(data: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield the numbers that tokens have, with the tokens."""
    model, added = data.get("model"), data.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield from ((number, token) for token, number in vocabulary.items() if isinstance(number, int))
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            yield token["id"], str(token.get("content"))


def _others(data: Mapping[str, Any], processors: list[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    """Yield the numbers that other parts have, with where they stand."""
    padding = data.get("padding")
    if isinstance(padding, dict) and isinstance(padding.get("pad_id"), int):
        yield padding["pad_id"], "padding.pad_id"
    left: list[tuple[str, Any]] = [("post_processor", processors)]
    while left:
        where, value = left.pop()
        if isinstance(value, int):
            yield value, where
        elif isinstance(value, list):
            left += [(where, inner) for inner in value]
        elif isinstance(value, dict):
            left += [(f"post_processor's {key[:40]!r}", inner) for key, inner in value.items()]

"""Renaming tensors by rules: ``OLD=NEW`` for the beginning of names, ``re:PATTERN=REPLACEMENT`` for anything else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from weighttools.core.patterns import listed, not_found
from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import SpecError, option

Rule = Callable[[str], str | None]
"""Returns a name's new name, or None where it does not fit."""
_MOST_EXCEPTIONS = 20
"""Names that a command may list one by one."""


def rename(rules: Sequence[str]) -> Transform:
    """Return a transform that renames tensors, and names tied to them.

    Parameters
    ----------
    rules
        ``OLD=NEW``: a name that begins with OLD (any name, if OLD is empty; a whole name is its own beginning) begins
        with NEW instead. ``re:PATTERN=REPLACEMENT``: what the regular expression finds in a name is replaced, as by
        `re.sub`; ``\\x3d`` in it is an equals sign. The first rule that fits a name renames it, so that ``a.=a.``
        before others keeps such names.

    Raises
    ------
    SpecError
        A rule is none, or two tensors would have one name.
    TensorNotFoundError
        A rule fits no name.

    Examples
    --------
    >>> import numpy as np
    >>> before = TensorMap.from_arrays({"module.fc.weight": np.zeros(2), "head.weight": np.zeros(3)})
    >>> list(rename(["module.=", "re:^head=lm_head"])(before))
    ['fc.weight', 'lm_head.weight']
    """
    rules = listed(rules)
    parsed = [_parsed(rule) for rule in rules]

    def transform(tensor_map: TensorMap) -> TensorMap:
        names = [*tensor_map, *tensor_map.aliases]
        for text, rule in zip(rules, parsed, strict=True):
            if not any(rule(name) is not None for name in names):
                raise not_found(text.partition("=")[0], names, what="pattern")
        return tensor_map.rename(lambda name: _first(parsed, name))

    return transform


def command_for(path: str, wanted: Mapping[str, str], rules: Sequence[str]) -> str | None:
    """Return the command that renames a file's tensors just so, if there is a short one.

    Parameters
    ----------
    path
        The file, or directory.
    wanted
        Every name of it, and what it shall be called.
    rules
        What makes most of them so; names that they would spoil are listed before them.
    """
    place, ordered = Path(path), sorted(rules, key=lambda rule: -len(rule.partition("=")[0]))
    if not rules or not place.name:
        return None
    parsed = [_parsed(rule) for rule in ordered]
    wrong = [name for name, new in wanted.items() if _first(parsed, name) != new]
    ordered = [*(f"{name}={wanted[name]}" for name in sorted(wrong, key=len, reverse=True)), *ordered]
    parsed = [_parsed(rule) for rule in ordered]
    if len(wrong) > _MOST_EXCEPTIONS or any(_first(parsed, name) != new for name, new in wanted.items()):
        return None
    words = [path, str(place.with_name(f"{place.stem}-renamed{place.suffix}"))]
    return shlex.join(["weighttools", "convert", *words, *(word for rule in ordered for word in ("--rename", rule))])


def _first(rules: Sequence[Rule], name: str) -> str:
    found = (rule(name) for rule in rules)
    return next((new for new in found if new is not None), name)


def _parsed(text: str) -> Rule:
    old, equals, new = text.partition("=")
    if not equals or old == new == "":
        raise SpecError(f"{option('rename')} {text!r} is no rule", expected="OLD=NEW or re:PATTERN=REPLACEMENT")
    if not old.startswith("re:"):
        return lambda name: new + name.removeprefix(old) if name.startswith(old) else None
    try:
        pattern = re.compile(old[3:])
        pattern.sub(new, "")  # most of what is wrong with a replacement shows here
        re.compile(f"{old[3:]}|").sub(new, "")
    except (re.error, IndexError, OverflowError, RecursionError) as error:
        raise SpecError(f"{option('rename')} {text!r} is no regular expression and replacement: {error}") from None
    return lambda name: pattern.sub(new, name) if pattern.search(name) else None

"""Tables of an adapter_config.json: what modules have of their own, by regular expressions of their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from weighttools.core.regular import Expression, PlainNames, Steps
from weighttools.errors import CorruptFileError, UnsupportedError

T = TypeVar("T")


class ModuleTable:
    """One of peft's tables of modules: regular expressions of names, or of their ends behind a dot, and values.

    Source: peft, ``utils/other.py``, ``get_pattern_key``.

    Parameters
    ----------
    values
        The table, in the file's order; None for none.
    key, path
        What to call it in messages.
    """

    def __init__(self, values: Mapping[str, Any] | None, key: str, path: str) -> None:
        self.values, self.key, self.path = values or {}, key, path
        steps, self._patterns = Steps(), [str(pattern) for pattern in self.values]
        self._plain = PlainNames(self._patterns, steps)
        self._expressions = {i: self._made(i, steps) for i in self._plain.others}
        self._steps = steps

    def of(self, module: str, default: Any) -> Any:
        """Return the value of the first expression that fits a module, else of its very name, else `default`."""
        if "\n" in module:  # of several lines a name ends, and a point stands, for what only an expression can tell
            self._expressions |= {i: self._made(i, self._steps) for i in range(len(self._patterns))}
            plain = None
        else:
            plain = self._told(self._patterns[0], self._plain.first, module) if self._patterns else None
        for i, expression in sorted(self._expressions.items()):
            if plain is not None and i > plain:
                break
            if self._told(expression.pattern, expression.matches, module):
                return self.values[expression.pattern]
        return self.values.get(module, default) if plain is None else self.values[self._patterns[plain]]

    def _made(self, i: int, steps: Steps) -> Expression:
        return self._told(self._patterns[i], Expression, self._patterns[i], steps)

    def _told(self, pattern: str, do: Callable[..., T], *args: Any) -> T:
        try:
            return do(*args)
        except (CorruptFileError, UnsupportedError) as error:
            fact = f"{self.key}'s regular expression {pattern[:80]!r} {error.fact}"
            raise type(error)(fact, subject=self.path, expected=error.expected) from None

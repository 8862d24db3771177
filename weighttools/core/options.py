"""An option of a verb, declared once: its name, type, range, default and help, and whether it decides a result.

Python's signature is held to the declaration by a test, the command's option is made of it (`cli/options.declared`),
its range is checked by `takes`, and what a resumed run must have alike is what `decides`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

from weighttools.core.record import as_record
from weighttools.errors import SpecError, option

P = ParamSpec("P")
R = TypeVar("R")


class Option(NamedTuple):  # made faster than a dataclass, and every command makes some
    """The declaration.

    Parameters
    ----------
    name
        The parameter's name in Python.
    kind
        The type of a value: ``str``, ``int``, ``float``, ``bool``; None takes any.
    default
        What holds where it is not given.
    help
        One line for ``--help``.
    flags
        How the command line spells it; by default ``--name``, with dashes. What holds unless it is turned off has
        ``--no-name`` besides.
    least, most
        The range of a number, ends included.
    above, below
        The range of a number, ends left out.
    choices
        The values that there are.
    metavar
        What stands for the value in help.
    many
        Whether it may be given repeatedly, and is a sequence.
    by_commas
        Whether it is a sequence that is given at once, its items separated by commas.
    alone
        What the flag stands for where no value follows it; None: one must.
    is_path
        Whether it is a path, which a shell completes.
    shows_default
        Whether help prints the default.
    decides
        Whether a result depends on it, so that a run that is resumed must have it alike.
    required
        Whether it must be given: it has no default.
    """

    name: str
    kind: type | None = str
    default: Any = None
    help: str = ""
    flags: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    many: bool = False
    by_commas: bool = False
    alone: Any = None
    is_path: bool = False
    shows_default: bool = False
    decides: bool = True
    required: bool = False

    @property
    def spellings(self) -> tuple[str, ...]:
        """The flags that it has on the command line."""
        return self.flags or ("--" + self.name.replace("_", "-"),)

    @property
    def range(self) -> str:
        """The range in words.

        >>> Option("sparsity", float, least=0, most=1).range, Option("lr", float, above=0).range
        ('a number from 0 to 1', 'a number above 0')
        """
        number = "a whole number" if self.kind is int else "a number"
        if self.least is not None and self.most is not None:
            return f"{number} from {self.least:,} to {self.most:,}"
        ends = (("{:,} or more", self.least), ("above {:,}", self.above), ("at most {:,}", self.most))
        words = [text.format(end) for text, end in (*ends, ("below {:,}", self.below)) if end is not None]
        joined = ", ".join(words)
        return f"{number}, {joined}" if self.least is not None else f"{number} {joined}".rstrip()

    def check(self, value: Any) -> None:
        """Refuse a value of another type, or out of range.

        Raises
        ------
        SpecError
            With the option's name, the value and what there is.
        """
        if value is None or value is self.default or self.many:
            return
        for one in value if self.by_commas else (value,):
            self._check(one)

    def _check(self, value: Any) -> None:
        if self.choices and value not in self.choices:
            known = f"one of {', '.join(self.choices)}"
            raise SpecError(f"{option(self.name)} {value!r} is not known", expected=known, code="unknown-option-value")
        if self.kind in (int, float) and not self._holds(value):
            raise SpecError(self._fault(value), expected=self.range, code="out-of-range")

    def _fault(self, value: Any) -> str:
        import numbers

        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        wrong = "is out of range" if is_number else "is no number"
        return f"{option(self.name)} {value!r} {wrong}"

    def _holds(self, value: Any) -> bool:
        import math
        import numbers

        is_number = isinstance(value, numbers.Integral if self.kind is int else numbers.Real)
        if not is_number or isinstance(value, bool):
            return False
        if not isinstance(value, int) and not math.isfinite(value):  # an int may be too large to be asked
            return False
        low = (self.least is None or value >= self.least) and (self.above is None or value > self.above)
        return bool(low and (self.most is None or value <= self.most) and (self.below is None or value < self.below))


def takes(*options: Option) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a function's options: an unknown keyword is a TypeError that names near ones, a range is checked.

    Parameters
    ----------
    options
        Those that the function's signature has by name, each with the same default. It may have further parameters.
    """
    known = {one.name: one for one in options}

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: P.args, **given: P.kwargs) -> R:
            refuse_unknown(function.__name__, given, signature.parameters)
            for name, value in given.items():
                if name in known:
                    known[name].check(value)
            return cast("R", as_record(function(*args, **given)))

        checked.__dict__["options"] = options
        return checked

    return declare


def refuse_unknown(function: str, given: Iterable[str], known: Mapping[str, object] | Iterable[str]) -> None:
    """Raise TypeError for a keyword that a function does not have, with the near ones.

    Parameters
    ----------
    function
        Its name, for the message.
    given, known
        Keywords that a caller gives, and those that there are.
    """
    names = list(known)
    unknown = next((name for name in given if name not in names), None)
    if unknown is None:
        return
    import difflib

    near = difflib.get_close_matches(unknown, names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(names)}"
    raise TypeError(f"{function}() has no parameter {unknown!r}; {hint}")

"""Every error a caller can meet, each told as one line: subject, fact, expectation, remedy; and words for lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

_spell: list[Callable[[str], str]] = [str]


def option(name: str) -> str:
    """Return the name of an option as the caller spells it: a parameter in Python, ``--name`` on the command line.

    >>> option("max_shard_size")
    'max_shard_size'
    """
    return _spell[-1](name)


@contextmanager
def spelled(spell: Callable[[str], str]) -> Iterator[None]:
    """Have options spelled in another way, in the whole process: a command is one."""
    _spell.append(spell)
    try:
        yield
    finally:
        _spell.remove(spell)


def printable(text: str) -> str:
    """Return `text` safe for a terminal: control characters, escapes and lone surrogates are shown escaped.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def brief(text: str, most: int = 1000) -> str:
    """Return `text`, without its middle if it is longer than `most`: a file may hold names of megabytes.

    >>> brief("a" * 100 + "b" * 100, 8)
    'aaaaaa…bb'
    """
    return text if len(text) <= most else f"{text[: most * 3 // 4]}…{text[-(most // 4) :]}"


def few(names: Sequence[str], most: int = 5) -> str:
    """Return the first of `names`, and an ellipsis for the rest: a file may hold thousands.

    >>> few(["a", "b", "c"], 2)
    'a, b, …'
    """
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def counted(n: int, what: str) -> str:
    """Return an exact count of things.

    >>> counted(1, "tensor"), counted(1024, "tensor")
    ('1 tensor', '1,024 tensors')
    """
    return f"{n:,} {what}{'s' * (n != 1)}"


def install(extra: str) -> str:
    """Return the remedy for a package that is not installed: the extra that brings it, from a clone.

    >>> install("text")
    "pip install '.[text]' in a clone of weighttools"
    """
    return f"pip install '.[{extra}]' in a clone of weighttools"


class WeighttoolsError(Exception):
    """Base of every error that weighttools raises on purpose.

    Parameters
    ----------
    fact
        What is wrong.
    subject
        The file, tensor or option that it is about.
    offset
        Where in the file, in bytes.
    expected
        What would have been right.
    remedy
        What the user can do.
    code
        Which case it is, for programs and tests: stable, where words may change. One of `core.error_codes.CODES`; by
        default that of the class.
    """

    usual_code: ClassVar[str] = "error"

    def __init__(
        self,
        fact: str,
        *,
        subject: object = None,
        offset: int | None = None,
        expected: str | None = None,
        remedy: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(fact)
        self.code = code or self.usual_code
        self.fact = fact
        self.subject = None if subject is None else str(subject)
        self.offset = offset
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        place = "" if self.offset is None else f" at byte {self.offset:,}"
        parts = [f"{brief(self.fact)}{place}"]
        if self.expected:
            parts.append(f"expected {brief(self.expected)}")
        if self.remedy:
            parts.append(brief(self.remedy))
        line = "; ".join(parts)
        return printable(f"{self.subject}: {line}" if self.subject else line)

    def about(self, subject: object) -> WeighttoolsError:
        """Name the file, unless something nearer was named already, and return the error."""
        if self.subject is None:
            self.subject = str(subject)
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.fact, self.__dict__)


def _rebuild(kind: type[WeighttoolsError], fact: str, state: dict[str, object]) -> WeighttoolsError:
    """Unpickle an error, so that it can come back from a worker process."""
    error = kind(fact)
    error.__dict__.update(state)
    return error


class FormatError(WeighttoolsError, ValueError):
    """A file is not what its format demands."""

    usual_code = "bad-format"


class UnknownFormatError(FormatError):
    """No known format recognises the content."""

    usual_code = "unknown-format"


class CorruptFileError(FormatError):
    """The content is damaged, cut short or contradicts itself."""

    usual_code = "corrupt-file"


class UnsafeFileError(FormatError):
    """Reading the file as asked would run its code or leave its directory."""

    usual_code = "unsafe-file"


class UnsupportedError(WeighttoolsError, NotImplementedError):
    """The request is understood but not possible; the nearest choice is named."""

    usual_code = "unsupported"


class TensorNotFoundError(WeighttoolsError, KeyError):
    """No tensor has that name, or a pattern matches none."""

    usual_code = "tensor-not-found"
    __str__ = WeighttoolsError.__str__  # KeyError would quote the message


class SpecError(WeighttoolsError, ValueError):
    """Shapes, dtypes or options do not fit."""

    usual_code = "spec"


class SourceError(WeighttoolsError, OSError):
    """Bytes could not be read or written."""

    usual_code = "source"
    __str__ = WeighttoolsError.__str__  # OSError would print its own fields


class MissingDependencyError(WeighttoolsError, ImportError):
    """An optional package is needed; the line names the extra that brings it."""

    usual_code = "missing-dependency"
    __str__ = WeighttoolsError.__str__


class PluginError(WeighttoolsError, RuntimeError):
    """What an installed package adds to weighttools does not work; the line names the package."""

    usual_code = "plugin"


class TrainingError(WeighttoolsError, ArithmeticError):
    """Training cannot go on: a loss, a gradient or a weight is no finite number."""

    usual_code = "training"

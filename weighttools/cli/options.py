"""Options that several commands share, completion of tensor names, and progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from weighttools.core.options import Option
from weighttools.errors import WeighttoolsError
from weighttools.verbs.options import READING, TAKING, WRITING

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # before click 8.4 it takes no parameter

F = TypeVar("F", bound=Callable[..., Any])
Completer = Callable[[click.Context, click.Parameter, str], list[str]]

FORMATS = ("table", "json", "jsonl", "csv", "markdown")


def complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a tensor's name from the file given before it."""
    from click.shell_completion import CompletionItem

    from weighttools.verbs.open import open as open_checkpoint

    path = ctx.params.get("path") or ctx.params.get("paths") or ctx.params.get("src") or ctx.params.get("srcs")
    path = path or ctx.args[:1]  # where an option still lacks its value, nothing else is parsed yet
    path = path[0] if isinstance(path, (tuple, list)) and path else path
    if not path or path == "-":
        return []
    try:
        names = [name for name in open_checkpoint(path) if name.isprintable()]  # the protocol is one name a line
    except WeighttoolsError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def declared(*options: Option, **completing: Completer) -> Callable[[F], F]:
    """Add options as they are declared, in order; what they may be is checked by who uses them.

    Parameters
    ----------
    options
        Declarations; those of patterns complete the names of tensors.
    completing
        What completes the values of others, by name.
    """

    def add(command: F) -> F:
        for one in reversed(options):
            command = _made(one, completing.get(one.name))(command)
        return command

    return add


def _made(one: Option, complete: Completer | None) -> Callable[[F], F]:
    how: dict[str, Any] = {"help": one.help, "show_default": one.shows_default, "required": one.required}
    if one.kind is bool:
        on = [f"{on}/--no-{on[2:]}" for on in one.spellings] if one.default else one.spellings
        return click.option(*on, one.name, is_flag=True, default=bool(one.default), **how)
    how["shell_complete"] = complete_names if one.metavar == "PATTERN" else complete
    if not one.many and not one.required:
        how["default"] = ",".join(map(str, one.default)) if one.by_commas else one.default
    if one.alone is not None:
        how |= {"is_flag": False, "flag_value": one.alone}
    return click.option(*one.spellings, one.name, type=_kind(one), multiple=one.many, metavar=one.metavar, **how)


def _kind(one: Option) -> Any:
    if one.by_commas:
        return _Separated(one)
    return click.Choice(one.choices) if one.choices else click.Path() if one.is_path else one.kind


class _Separated(_ParamType):
    """Items separated by commas, each of an option's kind."""

    name = "text"

    def __init__(self, one: Option) -> None:
        self._one = one

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return tuple(value)
        kind = self._one.kind or str
        try:
            return tuple(kind(part.strip()) for part in value.split(",") if part.strip())
        except ValueError:
            self.fail(f"{value!r} is not {self._one.range}, or several separated by commas", param, ctx)


def patterns(command: F) -> F:
    """Add ``-i`` and ``-x``."""
    return declared(*TAKING)(command)


def writing(command: F) -> F:
    """Add what every command that writes a checkpoint takes: how, whether, and how to report it."""
    return declared(*WRITING)(as_json(command))


def as_json(command: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")(command)


def output(command: F) -> F:
    """Add ``-o``, and what says how to write there."""
    return click.option(
        "-o", "--output", "dst", required=True, type=click.Path(), metavar="PATH",
        help="Where to write: a file, a directory (no format's suffix), or - for standard output.",
    )(writing(command))  # fmt: skip


def output_format(command: F) -> F:
    """Add ``--format`` and ``--json``."""
    command = click.option("--json", "as_json", is_flag=True, help="Short for --format json.")(command)
    return click.option(
        "--format", "style", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print."
    )(command)


def reading(command: F) -> F:
    """Add what says how to read a file: ``--assume`` and ``--root``."""
    return declared(*READING)(command)


@contextmanager
def progress(total: int | Callable[[], int], label: str) -> Iterator[Callable[[int], None]]:
    """Give a callback that draws a bar with bytes a second and time left, if stderr is a terminal.

    A `total` that takes time to find is a function, called only then.
    """
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    from tqdm import tqdm

    with tqdm(
        total=total() if callable(total) else total, desc=label, unit="B", unit_scale=True, file=sys.stderr, leave=False
    ) as bar:
        yield lambda n: (bar.update(n), None)[1]
        bar.refresh()  # a pass shorter than tqdm's interval has drawn nothing but the beginning


@contextmanager
def late_progress(label: str) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """Give two callbacks: one that takes the total, once it is known, and begins a bar; and one as `progress` gives."""
    if not sys.stderr.isatty():
        yield (lambda n: None), (lambda n: None)
        return
    from tqdm import tqdm

    with tqdm(desc=label, unit="B", unit_scale=True, file=sys.stderr, leave=False) as bar:
        yield bar.reset, lambda n: (bar.update(n), None)[1]
        bar.refresh()  # as in `progress`

"""``weighttools git-setup``, and the two commands that git then runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from weighttools.cli import options, output
from weighttools.errors import WeighttoolsError, printable
from weighttools.verbs.git import OPTIONS

_POINTER = b"version https://git-lfs.github.com/spec/"


@click.command("git-setup")
@options.declared(*OPTIONS)
@options.as_json
def git_setup(as_json: bool, **settings: Any) -> None:
    """Have git show what differs between weight files: git diff model.safetensors shows the table of diff.

    For the repository around the current directory; nothing that is committed is changed. git log -p and git blame show
    a line for each tensor, with its digest.

    \b
    Examples:
      weighttools git-setup
      git diff HEAD~1 -- model.safetensors
      weighttools git-setup --remove
    """
    from weighttools.verbs.git import git_setup as verb

    record = verb(**settings)
    if as_json:
        output.emit_json([record])
    elif record["removed"]:
        done = "removed from" if record["changed"] else "there was nothing of it in"
        output.echo(printable(f"{done} {record['attributes']} and git's configuration"))
    else:
        output.echo(printable(f"git diff shows weight files as weighttools diff does: {', '.join(record['patterns'])}"))
        output.echo(printable(f"set in {record['attributes']} and git's configuration; undone by --remove"))
    output.notes(record)


@click.command("git-diff", hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def git_diff(arguments: tuple[str, ...]) -> None:
    """Show one changed file, as git asks an external diff for it: PATH OLD HEX MODE NEW HEX MODE [...].

    The exit code is always 0, for git takes any other for a failure and shows no further file. Of a file in conflict
    git gives the path alone, and of a renamed one its new name after the seven.
    """
    if len(arguments) == 1:
        output.echo(printable(f"weighttools diff {arguments[0]}"))
        output.echo("not shown: it is in conflict, and not merged yet")
        return
    if len(arguments) < 7:
        raise click.UsageError(f"git gives seven arguments or more, not {len(arguments)}.")
    path, old, new = arguments[0], arguments[1], arguments[4]
    output.echo(printable(f"weighttools diff {' -> '.join((path, *arguments[7:8]))}"))
    output.lines(_guarded(_differences, old, new))


@click.command("git-textconv", hidden=True)
@click.argument("path")
def git_textconv(path: str) -> None:
    """Show a weight file as text, a line for each tensor, as git asks for it."""
    output.lines(_guarded(_text, path))


def _guarded(lines: Any, *paths: str) -> Iterator[str]:
    """Yield lines, or why there are none: git shows it in their place."""
    try:
        yield from lines(*paths)
    except WeighttoolsError as error:
        yield f"not shown: {error}"


def _differences(old: str, new: str) -> Iterator[str]:
    for path, which in ((old, "old"), (new, "new")):
        if _is_pointer(path):
            yield f"the {which} file is a pointer of Git LFS: fetch its content first (git lfs fetch)"
            return
    if _is_none(old) or _is_none(new):
        yield "removed:" if _is_none(new) else "added:"
        yield from (f"  {line}" for line in _text(old if _is_none(new) else new))
        return
    from weighttools.cli.diff import table_lines
    from weighttools.verbs.diff import diff as verb

    yield from table_lines(verb(old, new))


def _is_none(path: str) -> bool:
    return path in ("/dev/null", "nul")


def _is_pointer(path: str) -> bool:
    file = Path(path)
    if _is_none(path) or not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(_POINTER)) == _POINTER


def _text(path: str) -> Iterator[str]:
    """Yield metadata, and each tensor's name, dtype, shape and digest."""
    if _is_pointer(path):
        yield "a pointer of Git LFS, whose content is not here"
        return
    from weighttools.verbs.hash import hash as verb
    from weighttools.verbs.open import open as open_checkpoint

    tensor_map = open_checkpoint(path)
    record = verb(tensor_map)
    for key, value in tensor_map.metadata.items():
        yield f"metadata {key}: {value}"
    for row in sorted(record["tensors"], key=lambda row: row["name"]):
        yield f"{row['name']}  {row['dtype']}  {output.shape(row['shape'])}  {row['hash']}"
    for alias, kept in record["aliases"].items():
        yield f"{alias} is tied to {kept}"

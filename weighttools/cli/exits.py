"""The one place where an error becomes an exit code.

0 fine; 1 a negative finding; 2 bad usage, or unreadable or unsafe input; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import click

from weighttools.errors import WeighttoolsError, printable

DEBUG = "--debug"
COMPLETE = "_WEIGHTTOOLS_COMPLETE"
"""The environment variable by which a shell asks for completions."""


def guarded(main: Callable[..., Any]) -> NoReturn:
    """Run a click command so that every error is one line on stderr."""
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    _fill_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an encoding that lacks a letter is no reason to fail
    gc.disable()  # a command is short, and reference counts free all that is large
    try:
        code = main(args=arguments, prog_name="weighttools", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader left: nothing more can or need be said
        code = 0
    except SystemExit as left:  # click exits by itself after completing a word, and when the reader has left
        code = left.code if COMPLETE in os.environ else 0
    except (KeyboardInterrupt, click.Abort):
        code = 130
    except BaseException as error:  # a panic of a package in Rust is no Exception
        if debug:
            traceback.print_exc()
        code = 2 if debug else _told(error)
    try:
        sys.stderr.flush()
    except OSError:
        code = 2  # what should be said is lost, and there is nowhere to say so
    os._exit(
        code if isinstance(code, int) else 0
    )  # nothing is left to do, and freeing a large map one by one takes time


def _fill_closed_streams() -> None:
    """Open something in the place of closed standard streams, or the next file opened would pass for one of them.

    The output's place is opened for reading and the input's for writing, so that use of them fails.
    """
    for fd, name, access in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            os.open(os.devnull, access)  # takes the lowest number that is free, which is this one
            if fd:
                setattr(sys, name, open(fd, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _told(error: BaseException) -> int:
    """Say an error in one line and return its exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        _say(error.format_message())
        return 2
    if isinstance(error, click.ClickException):
        ctx = getattr(error, "ctx", None)
        hint = f"; see {ctx.command_path} --help" if ctx else ""
        line = f"{' '.join(error.format_message().split())}{hint}"
    elif isinstance(error, WeighttoolsError):
        line = str(error)
    elif isinstance(error, OSError):  # of the system, not of ours: a disk that fails, a directory that vanishes
        subject = os.fspath(error.filename) if error.filename else _full_stream(error)
        line = f"{subject}: {error.strerror}" if subject else error.strerror or str(error)
    elif isinstance(error, MemoryError):
        line = "not enough memory"
    else:
        line = _unforeseen(error)
    _say(f"weighttools: {printable(line)}")
    return 2


def _unforeseen(error: BaseException) -> str:
    """Return the line for an error that nobody raised on purpose: ours to mend, or an installed package's."""
    from weighttools.core.registry import blamed

    blame = blamed(error)
    line = f"internal error: {type(error).__name__}: {error}; please report it with the output of {DEBUG}"
    return line if blame is None else str(blame)


def _full_stream(error: OSError) -> str:
    """Return the name of the standard stream that cannot be written, as what waits in it shows; empty if both can.

    In an unbuffered one nothing waits: there a full disk is taken for standard output's, for files are named by who
    writes them.
    """
    for name, stream in (("standard output", sys.stdout), ("standard error", sys.stderr)):
        try:
            stream.flush()
        except OSError:
            return f"{name}: cannot be written"
    is_unbuffered = getattr(sys.stdout, "write_through", False)
    return "standard output: cannot be written" if is_unbuffered and error.errno == errno.ENOSPC else ""


def _say(line: str) -> None:
    """Print a line on stderr, if it can be written."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)  # noqa: T201

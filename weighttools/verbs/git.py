"""The verb ``git-setup``: git shows what differs between weight files, and what is in them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from weighttools.core.options import Option, takes
from weighttools.errors import SourceError, SpecError

if TYPE_CHECKING:
    from weighttools.verbs.record_types import GitSetupRecord

OPTIONS = (
    Option("everywhere", bool, False, "For all repositories of this user.", flags=("--global",)),
    Option("remove", bool, False, "Undo it: the files are what they were."),
)

_KEYS = ("command", "textconv")


@takes(*OPTIONS)
def git_setup(*, everywhere: bool = False, remove: bool = False) -> GitSetupRecord:
    """Have git show differences of weight files as `diff` does, and their tensors where it wants text.

    ``git diff model.safetensors`` then shows the table; ``git log -p``, ``git show --textconv`` and ``git blame`` a
    line for each tensor, with its digest. Git's configuration gets a section ``diff.weighttools``, and the repository's
    ``info/attributes`` (for all repositories: the user's attributes file) a block of lines.

    Parameters
    ----------
    everywhere
        For all repositories of this user, instead of the one around the current directory.
    remove
        Undo it.

    Returns
    -------
    GitSetupRecord
        A ``weighttools.git-setup/1`` record: what was written, and where.

    Raises
    ------
    SourceError
        There is no git, or no repository here.
    SpecError
        The user has another command under ``diff.weighttools``.
    """
    from weighttools.io.attributes import put_block, take_block

    scope = "--global" if everywhere else "--local"
    place = _attributes_file(everywhere)
    patterns = _patterns()
    for key in _KEYS:
        _git("config", scope, "--unset-all", f"diff.weighttools.{key}", _OURS, allowed=(0, 5))
    if remove:
        _drop_empty_section(scope)
        changed = take_block(place)
    else:
        _refuse_settings_of_others(scope)
        for key, value in zip(_KEYS, map(_command, ("git-diff", "git-textconv")), strict=True):
            _git("config", scope, f"diff.weighttools.{key}", value)
        put_block(place, [f"{pattern} diff=weighttools" for pattern in patterns])
        changed = True
    return cast("GitSetupRecord", {
        "schema": "weighttools.git-setup/1",
        "scope": "global" if everywhere else "local",
        "attributes": str(place),
        "patterns": patterns,
        "removed": remove,
        "changed": changed,
        "notes": [_LFS] if everywhere and not remove else [],
    })  # fmt: skip


_LFS = "a repository that tracks weights by Git LFS has attributes of its own, which win: run git-setup there, too"


_OURS = " -m weighttools git-(diff|textconv)$"
"""What values of ours match, whichever Python they name; others are the user's, and stay."""


def _refuse_settings_of_others(scope: str) -> None:
    """Raise where the user has a command of another kind under our name: it would be lost."""
    for key in _KEYS:
        value = _told("config", scope, "--get", f"diff.weighttools.{key}", allowed=(0, 1))
        if value:
            fact = f"is already set to {value!r}, which is not of git-setup"
            remedy = f"git config {scope} --unset-all diff.weighttools.{key}"
            raise SpecError(fact, subject=f"diff.weighttools.{key}", remedy=remedy, code="git-setting-exists")


def _drop_empty_section(scope: str) -> None:
    """Remove the section's headings, unless settings of the user's are under them."""
    if _git("config", scope, "--get-regexp", r"^diff\.weighttools\.", allowed=(0, 1)):
        return
    while _git("config", scope, "--remove-section", "diff.weighttools", allowed=(0, 128)):
        pass


def _attributes_file(everywhere: bool) -> Path:
    """Return the file of attributes that belongs to the user, and is not part of what is committed."""
    if not everywhere:
        return Path(_told("rev-parse", "--path-format=absolute", "--git-path", "info/attributes"))
    configured = _told("config", "--global", "--type=path", "core.attributesFile", allowed=(0, 1))
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(configured or os.path.join(home, "git", "attributes"))


def _patterns() -> list[str]:
    """Return the names of weight files; ``.bin`` alone is anything."""
    from weighttools.formats import known_suffixes

    return [*(f"*{suffix}" for suffix in known_suffixes() if suffix != ".bin"), "pytorch_model*.bin"]


def _command(name: str) -> str:
    """Return a line for git's shell that runs a command of this installation, whatever the path is then."""
    return f"{shlex.quote(Path(sys.executable).as_posix())} -m weighttools {name}"


def _told(*args: str, allowed: tuple[int, ...] = (0,)) -> str:
    return _run(args, allowed).stdout.strip()


def _git(*args: str, allowed: tuple[int, ...] = (0,)) -> bool:
    """Run git, and say whether it did something."""
    return _run(args, allowed).returncode == 0


def _run(args: tuple[str, ...], allowed: tuple[int, ...]) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(["git", *args], capture_output=True, text=True, check=False)
    except OSError:
        raise SourceError("git cannot be run", remedy="install git", code="no-git") from None
    if done.returncode not in allowed:
        fact = (done.stderr.strip().splitlines() or ["git failed"])[-1].removeprefix("fatal: ")
        remedy = "run it inside a repository, or for all of yours by --global" if "repository" in fact else None
        raise SourceError(f"git: {fact}", remedy=remedy, code="no-git")
    return done

"""Links that lead nowhere: what such a one is, and how the tool whose store it leads to fetches what is not there."""

from __future__ import annotations

import errno
import os
from pathlib import PurePosixPath


def dangles(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Return what a link that leads nowhere is, and what can be done; None of anything else.

    Parameters
    ----------
    path
        A path at which nothing can be opened.
    """
    try:
        target = os.readlink(path)
    except (OSError, ValueError):
        return None
    try:
        os.stat(path)
    except FileNotFoundError:
        return f"is a link to {target}, where there is nothing", _remedy(target)
    except OSError as error:
        return ("is a link that leads in a circle", _MEND) if error.errno == errno.ELOOP else None
    return None


def _remedy(target: str) -> str:
    """Return how the tool whose store a link leads to fetches what is not there."""
    parts = PurePosixPath(target.replace(os.sep, "/")).parts
    return next((remedy for folders, remedy in _STORES.items() if _holds(parts, folders)), _MEND)


_MEND = "fetch what it leads to, or mend the link"
_STORES = {
    (".git", "annex"): "its content is not here yet: git annex get",
    (".dvc", "cache"): "its content is not here yet: dvc pull",
    ("blobs",): "the cache does not hold its content: download the model again",
}
"""Folders in which tools keep contents that links lead to, and how to fetch one."""


def _holds(parts: tuple[str, ...], folders: tuple[str, ...]) -> bool:
    return any(parts[i : i + len(folders)] == folders for i in range(len(parts)))

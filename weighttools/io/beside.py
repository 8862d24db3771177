"""Files that a file names, beside it: shards of an index, data files of a model. None is read from anywhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from weighttools.errors import SourceError, UnsafeFileError


def inside(directory: Path, name: str, subject: object) -> Path:
    """Return the path of a file that `subject` names; it must lie in the directory, or be a link to the cache's blobs.

    Parameters
    ----------
    directory
        Where `subject` lies.
    name
        What it calls the file: relative, with ``/`` between folders.
    subject
        The file that names it (for messages).

    Raises
    ------
    UnsafeFileError
        The name, or a link that it leads to, leaves the directory.
    SourceError
        There is no such file.
    """
    pure = PurePosixPath(name)
    absolute = pure.is_absolute() or PureWindowsPath(name).drive
    if not name or absolute or ".." in pure.parts or "\\" in name or "\0" in name:
        raise UnsafeFileError(f"names the file {name!r}", subject=subject, expected="a plain relative name")
    path = directory / name
    if _leaves(directory, path):  # first of all, so that no answer tells whether a file elsewhere exists
        raise UnsafeFileError("is a link that leaves its directory", subject=path, expected="a file in the directory")
    if not os.path.exists(path):  # Path.exists would raise for a name that is too long
        fact = f"is named by {os.path.basename(str(subject))}, but there is no such file"
        raise SourceError(fact, subject=path, remedy="fetch the missing file")
    return path


def _leaves(directory: Path, path: Path) -> bool:
    try:
        return not is_inside(directory, path)
    except ValueError:  # no file can have such a name (half of a surrogate pair)
        return False


def is_inside(directory: Path, path: Path) -> bool:
    """Whether a path, links followed, stays in its directory or in the blobs of the cache the directory is part of."""
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(directory))
    caches = [above.parent / "blobs" for above in home.parents if above.name == "snapshots"]
    return any(real.is_relative_to(place) for place in (home, *caches))


def why_not_copied(directory: Path, path: Path, largest: int) -> str:
    """Return why a file that lies beside weights is not copied with them; empty where it is.

    Links within the directory, or into the blobs of the cache it is part of, are copied as what they lead to. What
    leads elsewhere is not: a directory from a stranger could so have a private file put into what is given away.

    Parameters
    ----------
    directory
        The weights' directory.
    path
        A file in it.
    largest
        The most bytes that are copied.
    """
    if not is_inside(directory, path):  # first of all, so that no answer tells whether a file elsewhere exists
        return "a link that leaves its directory"
    if not path.is_file():
        return "no regular file"
    return f"more than {largest:,} bytes" if path.stat().st_size > largest else ""


def not_copied(reasons: Mapping[str, str]) -> list[str]:
    """Return the line that says which files were not copied, and why; none where all were."""
    listed = ", ".join(f"{name} ({why})" for name, why in reasons.items())
    return [f"not copied with the weights: {listed}; copy what is needed yourself"] if reasons else []

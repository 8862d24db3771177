"""Files that a directory or a file names, and the one rule for links.

- A path that a person gives may be a link: it is read, and written, through.
- Weight files that describe themselves (a directory's one file, shards, parts, and the index that names them) are read
  through a link wherever it leads, as git-annex, DVC and the Hugging Face cache make them: `weights`. Where one leaves
  its directory is said: `links_out`.
- Raw bytes that a file asks for by name (an ONNX model's data, chunks of a distributed checkpoint) and files that are
  copied with weights come from the directory itself, or from the blobs of the cache that it is part of, and from
  nowhere else: `inside` and `why_not_copied`. A stranger's directory could so have a private file read as numbers, or
  put into what is given away.
- Nothing that a directory or a file names is written or removed through a link: the link itself is replaced
  (`sink.atomic_file` with ``follow=False``), and a directory is exchanged whole, its links with it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from weighttools.errors import SourceError, UnsafeFileError, counted


def weights(directory: Path, name: str, subject: object) -> Path:
    """Return the path of a weight file that `subject` names; it may be a link to anywhere.

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
        The name leaves the directory.
    SourceError
        There is no such file, or it is a link that leads nowhere.
    """
    check_name(name, subject)
    return _there(directory / name, subject)


def inside(directory: Path, name: str, subject: object) -> Path:
    """Return the path of a file of raw bytes that `subject` names; links are followed within the directory only.

    Parameters as of `weights`.

    Raises
    ------
    UnsafeFileError
        The name, or a link that it leads to, leaves the directory.
    SourceError
        There is no such file.
    """
    check_name(name, subject)
    path = directory / name
    if _leaves(directory, path):  # first of all, so that no answer tells whether a file elsewhere exists
        raise UnsafeFileError("is a link that leaves its directory", subject=path, expected="a file in the directory")
    return _there(path, subject)


def check_name(name: str, subject: object) -> None:
    """Refuse a name by which `subject` would reach out of its directory.

    Raises
    ------
    UnsafeFileError
        It is absolute, or leads upwards, or is none that every system takes alike.
    """
    pure = PurePosixPath(name)
    absolute = pure.is_absolute() or PureWindowsPath(name).drive
    if not name or absolute or ".." in pure.parts or "\\" in name or "\0" in name:
        raise UnsafeFileError(f"names the file {name!r}", subject=subject, expected="a plain relative name")


def _there(path: Path, subject: object) -> Path:
    if os.path.exists(path):  # Path.exists would raise for a name that is too long
        return path
    named = f"is named by {os.path.basename(str(subject))}, but "
    dangling = dangles(path)
    if dangling:
        raise SourceError(f"{named}{dangling[0]}", subject=path, remedy=dangling[1])
    raise SourceError(f"{named}there is no such file", subject=path, remedy="fetch the missing file")


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


def links_out(directory: str | os.PathLike[str], files: Iterable[str]) -> list[str]:
    """Return the line that says which weight files of a directory are links out of it; none where none is.

    Parameters
    ----------
    directory
        The directory.
    files
        Paths of files in it.
    """
    home = Path(directory)
    beyond = [file for file in files if _may_leave(home, file) and _leaves(home, Path(file))]
    if not beyond:
        return []
    first = f"{os.path.relpath(beyond[0], home)}, to {os.path.realpath(beyond[0])}"
    what = "a weight file is a link" if len(beyond) == 1 else f"{counted(len(beyond), 'weight file')} are links"
    return [f"{what} out of the directory: {first}{', …' if len(beyond) > 1 else ''}"]


def _may_leave(home: Path, file: str) -> bool:
    """Whether a file may lie elsewhere, by one look at it: it is a link, or lies in a folder, which may be one."""
    return os.path.islink(file) or Path(file).parent != home


def why_not_copied(directory: Path, path: Path, largest: int) -> str:
    """Return why a file that lies beside weights is not copied with them; empty where it is.

    Links within the directory, or into the blobs of the cache it is part of, are copied as what they lead to.

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

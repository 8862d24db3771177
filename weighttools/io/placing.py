"""The last step of a write: what is whole gets its name by one call, which replaces only what it may."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from weighttools.errors import SourceError

_NO_REPLACE, _EXCHANGE = 1, 2
"""Flags of Linux's renameat2."""
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV, errno.EMLINK)
"""What system calls say where the kernel or the file system does not have them."""


def place_file(temporary: Path, path: Path, subject: object) -> None:
    """Give a temporary file its name unless something has that name by now: of several writers one wins.

    Raises
    ------
    SourceError
        Something has the name; it stays as it is.
    """
    try:
        _place_new(temporary, path)
    except FileExistsError:
        raise appeared(subject) from None


def _place_new(temporary: Path, path: Path) -> None:
    if os.name == "nt":
        os.rename(temporary, path)  # it does not replace there
        return
    number = _renameat2(temporary, path, _NO_REPLACE)
    if number == 0:
        return
    if number not in _UNKNOWN:
        raise OSError(number, os.strerror(number))
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))  # neither is to be had: take the name first, then replace it
        os.replace(temporary, path)
    else:
        with contextlib.suppress(OSError):  # the file is there; a second name of it is debris
            os.unlink(temporary)


def place_directory(temporary: Path, path: Path, subject: object) -> None:
    """Give a temporary directory its name unless a file or a directory that holds anything has it.

    A plain rename does: it replaces an empty directory and nothing else. (On Windows it replaces nothing at all.)

    Raises
    ------
    SourceError
        Something has the name; it stays as it is.
    """
    try:
        if os.name == "nt" and path.is_dir():
            os.rmdir(path)  # fails if anything is in it
        os.rename(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise appeared(subject) from None
        raise


def appeared(subject: object) -> SourceError:
    """Return the error of a target that came into being while it was written."""
    fact = "exists already: it appeared while this was being written"
    remedy = "it is left as it is; force (--force) replaces it"
    return SourceError(fact, subject=subject, remedy=remedy, code="target-exists")


def identities(path: Path) -> dict[Path, tuple[int, int]]:
    """Return device and inode of a file, or of a directory and of what is in it, from the inside out."""
    found = [path]
    if path.is_dir() and not path.is_symlink():
        walked = os.walk(path, topdown=False)
        found = [*(Path(folder) / name for folder, names, files in walked for name in (*files, *names)), path]
    return {one: (one.lstat().st_dev, one.lstat().st_ino) for one in found}


def withdraw(placed: Mapping[Path, tuple[int, int]]) -> None:
    """Remove what was placed, as `identities` told just then, except what is another's by now or holds such."""
    for path, identity in placed.items():
        with contextlib.suppress(OSError):
            info = path.lstat()
            if (info.st_dev, info.st_ino) == identity:
                (os.rmdir if stat.S_ISDIR(info.st_mode) else os.unlink)(path)


def exchange(a: Path, b: Path) -> bool:
    """Exchange two names at once (Linux's renameat2); False where that is not to be had."""
    return _renameat2(a, b, _EXCHANGE) == 0


def _renameat2(a: str | Path, b: str | Path, flag: int) -> int:
    """Call Linux's renameat2 and return its error number, 0 if it was done; ENOSYS on other systems."""
    if sys.platform != "linux":
        return errno.ENOSYS
    import ctypes

    at_cwd = -100
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return errno.ENOSYS
    done = renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), flag)
    return 0 if done == 0 else ctypes.get_errno()

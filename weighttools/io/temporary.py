"""Temporary files and directories beside a target: locked while their writer lives, removed once it is dead."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from pathlib import Path

MARK, SUFFIX = ".weighttools-", ".tmp"
_OURS = re.compile(rf"\..*{re.escape(MARK)}[a-z0-9_]{{8}}{re.escape(SUFFIX)}", re.DOTALL)
"""The names that `tempfile` makes of our mark: eight characters of its own in between."""


def prefix(path: Path) -> str:
    """The beginning of a temporary's name, short enough for any file system whatever the target is called."""
    return f".{os.fsdecode(os.fsencode(path.name)[:100])}{MARK}"


def kept(fd: int, temporary: str) -> bool:
    """Lock a temporary just made, and say whether its name is still its own."""
    lock(fd, wait=True)
    try:
        return os.path.samestat(os.fstat(fd), os.stat(temporary))
    except FileNotFoundError:
        return False


def lock(fd: int, *, wait: bool = False) -> bool:
    """Take an exclusive lock if nobody holds it (or wait for it), and say whether it was had."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def remove_debris(directory: Path) -> list[Path]:
    """Remove what killed writers left in `directory`: our temporaries whose lock nobody holds.

    What cannot be listed, opened or removed (another user's, say) is left: it is in nobody's way.
    """
    try:
        debris = [directory / entry.name for entry in os.scandir(directory) if _OURS.fullmatch(entry.name)]
    except OSError:
        return []
    return [path for path in debris if _removed(path)]


def _removed(path: Path) -> bool:
    """Remove a temporary unless a living writer holds its lock; ours is held until it is gone."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(path, flags)
    except OSError:
        return False
    try:
        if not lock(fd):
            return False
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(fd)
    return not path.exists()


def remove_tree(path: Path) -> None:
    """Remove a directory; what of it cannot be removed now is debris, for the next writer to remove."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path, ignore_errors=True)


def sync_tree(directory: Path) -> None:
    """Bring a directory with all that is in it to the disk, before it appears under its name.

    A file of several names is passed over: it was linked from where it is published already.
    """
    for folder, _, names in os.walk(directory, topdown=False):
        for name in names:
            _sync_file(Path(folder) / name)
        sync_directory(Path(folder))


def _sync_file(path: Path) -> None:
    info = os.lstat(path)
    if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
        return
    try:
        fd = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    except PermissionError:
        return  # one that was copied from where it cannot be read either, and synced then
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(directory: Path) -> None:
    """Bring a rename to the disk, where directories can be synced."""
    if os.name != "posix":
        return
    try:
        fd = os.open(directory, os.O_RDONLY)
    except PermissionError:
        return  # one may write in it, but not read it
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)

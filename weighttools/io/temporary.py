"""Temporary files and directories beside a target: locked while their writer lives, removed once it is dead."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

MARK, SUFFIX = ".weighttools-", ".tmp"


def prefix(path: Path) -> str:
    """The beginning of a temporary's name, short enough for any file system whatever the target is called."""
    return f".{os.fsdecode(os.fsencode(path.name)[:100])}{MARK}"


def kept(fd: int, temporary: str) -> bool:
    """Lock a temporary just made, and say whether its name is still its own."""
    _lock(fd, wait=True)
    try:
        return os.path.samestat(os.fstat(fd), os.stat(temporary))
    except FileNotFoundError:
        return False


def _lock(fd: int, *, wait: bool = False) -> bool:
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
        found = [entry.name for entry in os.scandir(directory) if entry.name.startswith(".")]
    except OSError:
        return []
    debris = [directory / name for name in found if MARK in name and name.endswith(SUFFIX)]
    return [path for path in debris if _removed(path)]


def _removed(path: Path) -> bool:
    """Remove a temporary unless a living writer holds its lock; ours is held until it is gone."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(path, flags)
    except OSError:
        return False
    try:
        if not _lock(fd):
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

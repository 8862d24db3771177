"""Temporary files and directories beside a target: marked, locked while their writer lives, removed once it is dead."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

MARK, SUFFIX, SIGN = ".weighttools-", ".tmp", ".mark"
"""What the names of temporaries hold and end with, and the end of the names of the marks that say they are ours."""
_SIGNED = re.compile(rf"\..*{re.escape(MARK)}[0-9a-f]{{8}}{re.escape(SIGN)}", re.DOTALL)


def prefix(path: Path) -> str:
    """The beginning of a temporary's name, short enough for any file system whatever the target is called."""
    return f".{os.fsdecode(os.fsencode(path.name)[:100])}{MARK}"


def make_beside(path: Path, make: Callable[[Path], int | None]) -> tuple[int, Path]:
    """Make a temporary beside a target, marked as ours and locked as in use.

    The mark is a symbolic link beside it, which leads nowhere and says in words what it marks: it is there at once
    and whole, before the temporary is, so that no kill leaves a temporary without it, and nobody has one by chance.
    Between its making and its locking another writer may take a temporary for debris and remove it: then make another.

    Parameters
    ----------
    path
        The target.
    make
        Makes a temporary of a name that must be new, and returns a descriptor of it: -1 if none can be had, None if it
        is gone already.

    Returns
    -------
    tuple
        The descriptor, which holds the lock, and the temporary's path.
    """
    while True:
        temporary = path.with_name(f"{prefix(path)}{secrets.token_hex(4)}{SUFFIX}")
        with contextlib.suppress(FileExistsError):
            is_marked = _set_mark(temporary)
            try:
                fd = make(temporary)
            except BaseException:
                unmark(temporary)
                raise
            if fd is not None and _kept(fd, temporary, is_marked):
                return fd, temporary
            if not os.path.lexists(temporary):
                unmark(temporary)


def _set_mark(temporary: Path) -> bool:
    """Mark a temporary that is to be made; False where there are no links: nothing clears up there after a kill."""
    try:
        os.symlink(_words(temporary.name), temporary.with_suffix(SIGN))
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def unmark(temporary: Path) -> None:
    """Remove the mark of a temporary that has its final name, or is gone."""
    with contextlib.suppress(OSError):
        if os.readlink(temporary.with_suffix(SIGN)) == _words(temporary.name):
            os.unlink(temporary.with_suffix(SIGN))


def _words(name: str) -> str:
    """What the mark of a temporary says; no path leads there."""
    return f"weighttools is writing {name} and removes it if it was killed"


def _kept(fd: int, temporary: Path, is_marked: bool) -> bool:
    """Lock a temporary just made, and say whether it and its mark are there still; if not, give both up."""
    is_kept = False
    try:
        if fd < 0 or _has_name(fd, temporary):
            is_kept = not is_marked or os.path.lexists(temporary.with_suffix(SIGN))
    finally:
        if not is_kept:
            _give_up(fd, temporary)
    return is_kept


def _has_name(fd: int, temporary: Path) -> bool:
    lock(fd, wait=True)
    try:
        return os.path.samestat(os.fstat(fd), os.stat(temporary))
    except FileNotFoundError:
        return False


def _give_up(fd: int, temporary: Path) -> None:
    """Remove a temporary that nobody has written in; its mark stays if that fails."""
    with contextlib.suppress(OSError):
        (os.rmdir if temporary.is_dir() else os.unlink)(temporary)
    if not os.path.lexists(temporary):
        unmark(temporary)
    if fd >= 0:
        os.close(fd)


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
    """Remove what killed writers left in `directory`: temporaries that a mark of ours names and nobody holds locked.

    A name alone makes nothing ours. What cannot be listed, opened or removed (another user's, say) is left: it is in
    nobody's way. Returned is what was removed, without marks.
    """
    try:
        marks = [directory / entry.name for entry in os.scandir(directory) if _SIGNED.fullmatch(entry.name)]
    except OSError:
        return []
    found = [mark.with_suffix(SUFFIX) for mark in marks if _is_ours(mark)]
    return [temporary for temporary in found if _removed(temporary)]


def _is_ours(mark: Path) -> bool:
    try:
        return os.readlink(mark) == _words(mark.with_suffix(SUFFIX).name)
    except OSError:
        return False


def _removed(path: Path) -> bool:
    """Remove a temporary, and then its mark, unless a living writer holds its lock; ours is held until it is gone."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        unmark(path)
        return False
    except OSError:
        return False
    try:
        if not lock(fd):
            return False
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
        if not os.path.lexists(path):
            unmark(path)
    except OSError:
        return False
    finally:
        os.close(fd)
    return not os.path.lexists(path)


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

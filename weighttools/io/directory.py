"""A directory written whole: made beside its target, then exchanged with it by one rename."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from weighttools.errors import SourceError
from weighttools.io.sink import explained, sync_rename
from weighttools.io.temporary import SUFFIX, kept, prefix, remove_debris, remove_tree, sync_directory


@contextmanager
def atomic_directory(target: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """Give an empty directory that takes the place of `target`, whole, when the block ends.

    The exchange is one rename; what else an existing target holds, the caller carries over by `keep_others`.

    Raises
    ------
    SourceError
        The target exists and is not empty and `force` is not given, or is no directory.
    """
    path = Path(os.path.realpath(target))
    _check_place(path, target)
    with explained(target):
        _bring_back(path)
        _check_directory(path, force=force, subject=target)
        remove_debris(path.parent)
        temporary, lock = _directory_beside(path)
    try:
        with explained(target):
            yield temporary
            os.chmod(temporary, _directory_mode(path))
            sync_directory(temporary)
            _exchange(temporary, path)
    except SourceError as error:
        if error.subject:  # a file in the temporary: name the one that it was to be
            error.subject = error.subject.replace(str(temporary), os.fspath(target).rstrip(os.sep))
        raise
    finally:
        remove_tree(temporary)
        if lock >= 0:
            os.close(lock)
    sync_rename(path.parent, target)


def check_writable(target: str | os.PathLike[str], *, force: bool = False) -> None:
    """Refuse, before work that takes long, what `atomic_directory` could not write; nothing stays of the attempt.

    Raises
    ------
    SourceError
        As of `atomic_directory`.
    """
    path = Path(os.path.realpath(target))
    _check_place(path, target)
    _check_directory(path, force=force, subject=target)
    with explained(target):
        temporary, lock = _directory_beside(path)
    remove_tree(temporary)
    if lock >= 0:
        os.close(lock)


def _directory_beside(path: Path) -> tuple[Path, int]:
    """Make a temporary directory beside `path`, locked as a temporary file is; return it and the lock (-1: none)."""
    while True:
        temporary = tempfile.mkdtemp(prefix=prefix(path), suffix=SUFFIX, dir=path.parent)
        if os.name != "posix":
            return Path(temporary), -1
        lock = _locked(temporary)
        if lock is not None:
            return Path(temporary), lock


def _locked(temporary: str) -> int | None:
    """Open and lock a directory just made; None if it was taken for debris meanwhile."""
    lock = -1
    try:
        lock = os.open(temporary, os.O_RDONLY)
        if kept(lock, temporary):
            return lock
    except FileNotFoundError:
        return None
    except BaseException:
        os.rmdir(temporary)
        if lock >= 0:
            os.close(lock)
        raise
    os.close(lock)
    return None


def _check_directory(path: Path, *, force: bool, subject: object) -> None:
    if not path.exists():
        if not path.parent.is_dir():
            raise SourceError(f"its directory {path.parent} does not exist", subject=subject, remedy="make it first")
        return
    if not path.is_dir():
        raise SourceError(
            "is a file", subject=subject, expected="a directory", remedy="name a directory, or give a file suffix"
        )
    if os.listdir(path) and not force:
        raise SourceError("exists and is not empty", subject=subject, remedy="force (--force) replaces its weights")


def _check_place(path: Path, subject: object) -> None:
    """Refuse what no rename can exchange, or only from under the feet of this process and of its shell."""
    if os.path.ismount(path):
        raise SourceError("is the root of a file system", subject=subject, expected="a directory inside it")
    try:
        is_around = Path.cwd().is_relative_to(path)
    except OSError:
        return  # the current directory is gone
    if is_around:
        raise SourceError(
            "is, or holds, the current directory, and is exchanged whole",
            subject=subject or repr(subject),
            remedy="name another directory, or a file in it",
        )


def _directory_mode(path: Path) -> int:
    if path.exists():
        return stat.S_IMODE(os.stat(path).st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o777 & ~mask


def _exchange(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`; what `target` was is then found under `new`, or gone."""
    if not target.exists() or (os.name == "posix" and not os.listdir(target)):
        os.rename(new, target)  # a rename may replace an empty directory
    elif not _exchange_in_kernel(new, target):
        _exchange_in_steps(new, target)


def _aside(target: Path) -> Path:
    """Where the old target waits while the new one takes its name, on systems that cannot exchange two names."""
    return target.with_name(f".{os.fsdecode(os.fsencode(target.name)[:100])}.weighttools.old")


def _exchange_in_steps(new: Path, target: Path) -> None:
    aside = _aside(target)
    os.rename(target, aside)
    try:
        os.rename(new, target)
    except OSError:
        os.rename(aside, target)
        raise
    remove_tree(aside)


def _bring_back(target: Path) -> None:
    """Give the old target its name again if a writer was killed in the middle of `_exchange_in_steps`."""
    aside = _aside(target)
    if not aside.is_dir():
        return
    if target.exists():
        remove_tree(aside)  # it was killed one step later: the new one is in its place
    else:
        os.rename(aside, target)


def _exchange_in_kernel(a: Path, b: Path) -> bool:
    """Exchange two names at once (Linux renameat2 with RENAME_EXCHANGE); False where that is not to be had."""
    if sys.platform != "linux":
        return False
    import ctypes

    at_cwd, exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return bool(renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0)


def keep_others(old: Path, new: Path, replaced: Callable[[str], bool]) -> None:
    """Link (or copy) into `new` all of `old` that it lacks, except the files that it supersedes.

    Parameters
    ----------
    replaced
        Says by a file's relative name, with ``/`` between folders, whether it is superseded.
    """
    made: list[tuple[Path, Path]] = []
    for folder, folders, names in os.walk(old, onerror=_fail):
        inside = Path(folder).relative_to(old)
        for name in [*names, *(n for n in folders if (Path(folder) / n).is_symlink())]:
            if not replaced((inside / name).as_posix()):
                _keep(Path(folder) / name, new / inside / name)
        for name in folders:
            if not os.path.lexists(new / inside / name):
                (new / inside / name).mkdir()
                made.append((Path(folder) / name, new / inside / name))
    for old_folder, new_folder in reversed(made):  # last, for a folder may be one that nothing can be added to
        shutil.copystat(old_folder, new_folder)


def _fail(error: OSError) -> None:
    """Do not pass over what cannot be listed, as `os.walk` would: it would be lost."""
    raise error


def _keep(old: Path, new: Path) -> None:
    """Link or copy one file, or a symbolic link as such, unless the new directory has one of that name."""
    if os.path.lexists(new):
        return
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:
        shutil.copy2(old, new, follow_symlinks=False)

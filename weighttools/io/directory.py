"""A directory written whole: made beside its target, then exchanged with it by one rename."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from weighttools.errors import SourceError
from weighttools.io.placing import exchange, place_directory
from weighttools.io.sink import explained, sync_rename
from weighttools.io.temporary import lock, make_beside, prefix, remove_debris, remove_tree, sync_tree, unmark

_ASIDE, _MARK_FILE, _OLD = ".old", "weighttools-exchange", "old"
"""The end of the name of a directory in which an old target waits, the file in it that says so, and the target."""
_MARK_TEXT = b"weighttools was exchanging a directory, and puts it back when it writes there again\n"


@contextmanager
def atomic_directory(target: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """Give an empty directory that takes the place of `target`, whole, when the block ends.

    The exchange is one rename, of what is synced to the disk, files and folders; what else an existing target holds,
    the caller carries over by `keep_others`.

    Raises
    ------
    SourceError
        The target exists and is not empty and `force` is not given (whenever it came there), or is no directory.
    """
    path = Path(os.path.realpath(target))
    _check_place(path, target)
    with explained(target):
        _bring_back(path)
        _check_directory(path, force=force, subject=target)
        _remove_asides(path)
        held, temporary = make_beside(path, _make)
    try:
        with explained(target):
            yield temporary
            os.chmod(temporary, _directory_mode(path))
            sync_tree(temporary)
            _put(temporary, path, force, target)
    except SourceError as error:
        if error.subject:  # a file in the temporary: name the one that it was to be
            error.subject = error.subject.replace(str(temporary), os.fspath(target).rstrip(os.sep))
        raise
    finally:
        _give_up(held, temporary)
    remove_debris(path.parent)
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
        held, temporary = make_beside(path, _make)
    _give_up(held, temporary)


def _make(temporary: Path) -> int | None:
    os.mkdir(temporary, 0o700)
    if os.name != "posix":
        return -1  # directories cannot be opened there
    try:
        return os.open(temporary, os.O_RDONLY)
    except FileNotFoundError:
        return None  # it was taken for debris
    except BaseException:
        os.rmdir(temporary)
        raise


def _give_up(held: int, temporary: Path) -> None:
    """Remove a temporary, and what took its name; what cannot be removed stays marked, for the next writer."""
    remove_tree(temporary)
    if not os.path.lexists(temporary):
        unmark(temporary)
    if held >= 0:
        os.close(held)


def _check_directory(path: Path, *, force: bool, subject: object) -> None:
    if not path.exists():
        if not path.parent.is_dir():
            raise SourceError(
                f"its directory {path.parent} does not exist",
                subject=subject,
                remedy="make it first",
                code="no-such-directory",
            )
        return
    if not path.is_dir():
        raise SourceError(
            "is a file",
            subject=subject,
            expected="a directory",
            remedy="name a directory, or give a file suffix",
            code="target-exists",
        )
    if os.listdir(path) and not force:
        raise SourceError(
            "exists and is not empty",
            subject=subject,
            remedy="force (--force) replaces its weights",
            code="target-exists",
        )


def _check_place(path: Path, subject: object) -> None:
    """Refuse what no rename can exchange, or only from under the feet of this process and of its shell."""
    if os.path.ismount(path):
        raise SourceError(
            "is the root of a file system", subject=subject, expected="a directory inside it", code="target-unsafe"
        )
    try:
        is_around = Path.cwd().is_relative_to(path)
    except OSError:
        return  # the current directory is gone
    if is_around:
        raise SourceError(
            "is, or holds, the current directory, and is exchanged whole",
            subject=subject or repr(subject),
            remedy="name another directory, or a file in it",
            code="target-unsafe",
        )


def _directory_mode(path: Path) -> int:
    if path.exists():
        return stat.S_IMODE(os.stat(path).st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o777 & ~mask


def _put(new: Path, target: Path, force: bool, subject: object) -> None:
    """Give `new` the target's name; with `force` what the target was is then found under `new`, or gone."""
    if not (force and target.is_dir() and os.listdir(target)):
        place_directory(new, target, subject)
    elif not exchange(new, target):
        _exchange_in_steps(new, target)


def _exchange_in_steps(new: Path, target: Path) -> None:
    """Exchange two directories where the system has no call for it; between two renames the target is not there."""
    holder, held = _set_aside(target, new)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(holder / _OLD, target)
        raise
    finally:
        os.close(held)
        if os.path.lexists(target):  # else the old one waits there for the next writer
            remove_tree(holder)


def _set_aside(target: Path, new: Path) -> tuple[Path, int]:
    """Move a target into a directory of our own beside it, and return that with a descriptor of its locked mark.

    The mark says which directory is to take the target's place.
    """
    holder = Path(tempfile.mkdtemp(prefix=prefix(target), suffix=_ASIDE, dir=target.parent))
    held = os.open(holder / _MARK_FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        lock(held, wait=True)
        os.write(held, _MARK_TEXT + _identity(new))
        os.rename(target, holder / _OLD)
    except BaseException:
        os.close(held)
        remove_tree(holder)
        raise
    return holder, held


def _identity(path: Path) -> bytes:
    info = os.stat(path)
    return b"%d %d\n" % (info.st_dev, info.st_ino)


def _bring_back(target: Path) -> None:
    """Give the old target its name again if a writer was killed in the middle of `_exchange_in_steps`."""
    if not os.path.lexists(target):
        for holder in _asides(target):
            if (holder / _OLD).is_dir() and not os.path.lexists(target):
                os.rename(holder / _OLD, target)


def _remove_asides(target: Path) -> None:
    """Remove what killed writers set aside, where what was to take its place has done so, or it is back itself."""
    for holder, successor in _asides(target).items():
        if not (holder / _OLD).exists() or (target.exists() and _identity(target) == successor):
            remove_tree(holder)


def _asides(target: Path) -> dict[Path, bytes]:
    """Return our own holders of a target that no living writer has, and what was to take the target's place.

    Nobody else's directory is one, whatever its name.
    """
    try:
        names = [n for n in os.listdir(target.parent) if n.startswith(prefix(target)) and n.endswith(_ASIDE)]
    except OSError:
        return {}
    found = {target.parent / name: _left_mark(target.parent / name / _MARK_FILE) for name in names}
    return {holder: mark for holder, mark in found.items() if mark is not None}


def _left_mark(path: Path) -> bytes | None:
    """Return what our mark says if its writer is dead; None of what is no mark of ours, or held."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        text = os.read(fd, 200)
        is_free = lock(fd) or os.name != "posix"  # elsewhere there are no such locks
        return text[len(_MARK_TEXT) :] if is_free and text.startswith(_MARK_TEXT) else None
    except OSError:
        return None
    finally:
        os.close(fd)


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
        shutil.copy2(old, new, follow_symlinks=False)  # synced with all the rest

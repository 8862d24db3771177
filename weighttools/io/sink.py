"""Bytes out: written beside the target, fsynced, then renamed over it, so a target is always the old or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from weighttools.core.tensor import Span
from weighttools.errors import SourceError
from weighttools.io.progress import Progress, silent
from weighttools.io.source import LocalFile

_MARK = ".weighttools-"
_COPY = 8 << 20
"""Bytes a copy call moves at a time, so that progress shows and an interrupt is heard."""


class Sink(Protocol):
    """Where a writer puts bytes, in order."""

    def write(self, data: Any) -> int:
        """Append bytes (any C-contiguous buffer)."""

    def copy(self, span: Span) -> None:
        """Append the bytes of a span, undecoded."""

    def reserve(self, n_bytes: int) -> None:
        """Say how large the whole will be, so that a full disk shows before anything is written."""


class FileSink:
    """A file being written front to back, with an optional step back to mend a header (zip needs that)."""

    def __init__(self, fd: int, name: str, progress: Progress = silent) -> None:
        self.fd, self.name, self.progress = fd, name, progress
        self._at = 0
        self._end = 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        view = view.cast("B") if view.nbytes else view[:0]
        done = 0
        while done < view.nbytes:
            with self._explained():
                done += os.write(self.fd, view[done : done + _COPY])
        self._moved(view.nbytes)
        return view.nbytes

    def copy(self, span: Span) -> None:
        done = 0
        copier = _copiers(span, self.fd)
        while done < span.length:
            with self._explained():
                n = copier(span.offset + done, min(_COPY, span.length - done))
            if n == 0:
                raise SourceError(
                    "ends early: it shrank while open", subject=span.source.name, offset=span.offset + done
                )
            done += n
            self._moved(n)

    def reserve(self, n_bytes: int) -> None:
        if not hasattr(os, "posix_fallocate") or n_bytes == 0 or not stat.S_ISREG(os.fstat(self.fd).st_mode):
            return
        try:
            os.posix_fallocate(self.fd, 0, n_bytes)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO):
                raise _write_error(self.name, error, n_bytes) from None

    def _moved(self, n: int) -> None:
        self._at += n
        self._end = max(self._end, self._at)
        self.progress(n)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = os.lseek(self.fd, offset, whence)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read back from where the sink stands what was written there (HDF5's library looks at its own pages)."""
        view = memoryview(buffer).cast("B")
        with self._explained():
            data = os.read(self.fd, view.nbytes)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Say where the file ends; it is cut or lengthened by `finish`."""
        self._end = self._at if size is None else size
        return self._end

    def seekable(self) -> bool:
        return stat.S_ISREG(os.fstat(self.fd).st_mode)

    def flush(self) -> None:
        """Nothing waits in a buffer here; zipfile asks all the same."""

    def finish(self) -> None:
        """Cut what was reserved and not used, and bring everything to the disk."""
        with self._explained():
            os.ftruncate(self.fd, self._end)
            os.fsync(self.fd)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _write_error(self.name, error, None) from None


def _write_error(name: str, error: OSError, n_bytes: int | None) -> SourceError:
    remedy = "the target is as it was"
    if error.errno == errno.ENOSPC and n_bytes is not None:
        free = shutil.disk_usage(Path(name).parent).free
        remedy = f"{n_bytes:,} bytes are needed and {free:,} are free; {remedy}"
    return SourceError(f"cannot be written: {error.strerror}", subject=name, remedy=remedy)


def _copiers(span: Span, fd: int) -> Callable[[int, int], int]:
    """Return a function (offset, length) -> bytes moved: in the kernel where it can, else through a buffer."""
    source = span.source
    scratch = memoryview(bytearray(min(_COPY, max(1, span.length))))

    def through_memory(offset: int, length: int) -> int:
        source.readinto(offset, scratch[:length])
        done = 0
        while done < length:
            done += os.write(fd, scratch[done:length])
        return length

    if not isinstance(source, LocalFile) or not hasattr(os, "copy_file_range"):
        return through_memory

    def in_kernel(offset: int, length: int) -> int:
        try:
            return os.copy_file_range(source.fileno(), fd, length, offset)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT):
                raise
            return through_memory(offset, length)  # another file system, a pipe, an old kernel

    return in_kernel


@contextmanager
def atomic_file(
    target: str | os.PathLike[str], *, force: bool = False, progress: Progress = silent
) -> Iterator[FileSink]:
    """Give a sink for `target` that appears under that name only when it is complete and on the disk.

    An existing file's mode is kept, and a symbolic link is written through. ``-`` is standard output.

    Raises
    ------
    SourceError
        The target exists and `force` is not given, is no regular file, or cannot be written; it is then as it was.
    """
    if os.fspath(target) == "-":
        yield standard_output(progress)
        return
    path = Path(os.path.realpath(target))
    check_target(path, force=force, subject=target)
    remove_debris(path.parent)
    fd, temporary = _beside(path)
    try:
        sink = FileSink(fd, str(target), progress)
        yield sink
        sink.finish()
        os.chmod(temporary, _mode(path))
        with sink._explained():
            os.replace(temporary, path)
        sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def standard_output(progress: Progress = silent) -> FileSink:
    """Return a sink on standard output.

    Raises
    ------
    SourceError
        Standard output is a terminal, where weights would be noise.
    """
    if sys.stdout.isatty():
        raise SourceError("standard output is a terminal", subject="-", remedy="redirect it, or name a file")
    sys.stdout.flush()
    return FileSink(sys.stdout.fileno(), "-", progress)


def check_target(path: Path, *, force: bool, subject: object) -> None:
    """Refuse a target that exists without `force`, or that a rename would destroy (a device, a pipe, a directory).

    Raises
    ------
    SourceError
        With the reason.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise SourceError(
                f"its directory {path.parent} does not exist", subject=subject, remedy="make it first"
            ) from None
        return
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot be written: {getattr(error, 'strerror', error)}", subject=subject) from None
    if not stat.S_ISREG(mode):
        raise SourceError("is not a regular file", subject=subject, expected="a new file, or one to replace")
    if not force:
        raise SourceError("exists", subject=subject, remedy="give --force to replace it")


def _beside(path: Path) -> tuple[int, str]:
    """Make a locked temporary file in the target's directory; the lock tells others that its writer lives."""
    try:
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}{_MARK}", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise SourceError(f"cannot be written: {error.strerror}", subject=path) from None
    _lock(fd)
    return fd, temporary


def _mode(path: Path) -> int:
    """The mode the finished file gets: the old file's, or what the umask gives a new one."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _lock(fd: int) -> bool:
    """Take an exclusive lock if nobody holds it, and say whether it was had; without locks it never is."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_debris(directory: Path) -> list[Path]:
    """Remove what killed writers left in `directory`: our temporaries whose lock nobody holds."""
    removed = []
    for entry in list(os.scandir(directory)):
        if _MARK in entry.name and entry.name.startswith(".") and entry.name.endswith(".tmp"):
            path = Path(entry.path)
            if _abandoned(path):
                shutil.rmtree(path) if entry.is_dir(follow_symlinks=False) else path.unlink(missing_ok=True)
                removed.append(path)
    return removed


def _abandoned(path: Path) -> bool:
    """Whether no living writer holds the lock on this temporary file or directory."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        return _lock(fd)
    finally:
        os.close(fd)


def sync_directory(directory: Path) -> None:
    """Bring a rename to the disk, where directories can be synced."""
    if os.name != "posix":
        return
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
    _check_directory(path, force=force, subject=target)
    remove_debris(path.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}{_MARK}", suffix=".tmp", dir=path.parent))
    lock = os.open(temporary, os.O_RDONLY) if os.name == "posix" else -1
    _lock(lock)
    try:
        yield temporary
        os.chmod(temporary, _directory_mode(path))
        sync_directory(temporary)
        _exchange(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(
            f"cannot be written: {error.strerror}", subject=target, remedy="the target is as it was"
        ) from None
    finally:
        if lock >= 0:
            os.close(lock)
        shutil.rmtree(temporary, ignore_errors=True)


def _check_directory(path: Path, *, force: bool, subject: object) -> None:
    if not path.exists():
        if not path.parent.is_dir():
            raise SourceError(f"its directory {path.parent} does not exist", subject=subject, remedy="make it first")
        return
    if not path.is_dir():
        raise SourceError(
            "is a file", subject=subject, expected="a directory", remedy="name a directory, or give a file suffix"
        )
    if any(os.scandir(path)) and not force:
        raise SourceError("exists and is not empty", subject=subject, remedy="give --force to replace its weights")


def _directory_mode(path: Path) -> int:
    if path.exists():
        return stat.S_IMODE(os.stat(path).st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o777 & ~mask


def _exchange(new: Path, target: Path) -> None:
    """Put `new` in the place of `target` by one rename; what `target` was is then found under `new`."""
    if not target.exists():
        os.rename(new, target)
    elif not any(os.scandir(target)) and os.name == "posix":
        os.rename(new, target)  # a rename may replace an empty directory
    elif not _exchange_in_kernel(new, target):
        aside = new.with_name(new.name.replace(".tmp", ".old.tmp"))
        os.rename(target, aside)
        os.rename(new, target)
        os.rename(aside, new)


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
    """Link (or copy) into `new` every file of `old` that it lacks, except those that `replaced` says it supersedes."""
    for folder, _, names in os.walk(old):
        inside = Path(folder).relative_to(old)
        for name in names:
            wanted = new / inside / name
            if wanted.exists() or (inside == Path(".") and replaced(name)):
                continue
            wanted.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                os.link(Path(folder) / name, wanted, follow_symlinks=False)
            if not wanted.is_symlink() and not wanted.exists():
                shutil.copy2(Path(folder) / name, wanted, follow_symlinks=False)

"""Bytes out: written beside the target, fsynced, then renamed over it, so a target is always the old or the new one."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from weighttools.core.spec import Span
from weighttools.errors import SourceError
from weighttools.io.contents import read_beside
from weighttools.io.placing import place_file
from weighttools.io.progress import Progress, silent
from weighttools.io.source import LocalFile
from weighttools.io.temporary import make_beside, remove_debris, sync_directory, unmark

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
    """A file being written front to back, with an optional step back to mend a header (zip needs that).

    Parameters
    ----------
    fd
        A descriptor open for writing.
    name
        What to call it in a message.
    progress
        Called with the number of bytes just written.
    ours
        Whether the file is ours from its first byte on. Of another's (standard output, which may be appended to a
        file) nothing is reserved, and there is no stepping back in it.
    around
        A directory whose debris is removed if there is no room without.
    path
        Where the bytes lie until the file gets its name; None of a file that is not ours.
    """

    def __init__(
        self,
        fd: int,
        name: str,
        progress: Progress = silent,
        *,
        ours: bool = True,
        around: Path | None = None,
        path: Path | None = None,
    ) -> None:
        self.fd, self.name, self.progress, self._around, self.path = fd, name, progress, around, path
        self._ours = ours and stat.S_ISREG(os.fstat(fd).st_mode)
        self._at = 0
        self._end = 0
        self._pushed = 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        view = view.cast("B") if view.nbytes else view[:0]
        done = 0
        while done < view.nbytes:
            with explained(self.name):
                done += os.write(self.fd, view[done : done + _COPY])
        self._moved(view.nbytes)
        return view.nbytes

    def copy(self, span: Span) -> None:
        with read_beside(span):
            self._copy(span)

    def _copy(self, span: Span) -> None:
        done = 0
        copier = _copiers(span, self.fd)
        while done < span.length:
            with explained(self.name):
                n = copier(span.offset + done, min(_COPY, span.length - done))
            if n == 0:
                raise SourceError(
                    "ends early: it shrank while open",
                    subject=span.source.name,
                    offset=span.offset + done,
                    code="ends-early",
                )
            done += n
            self._moved(n)

    def reserve(self, n_bytes: int) -> None:
        if not self._ours or not hasattr(os, "posix_fallocate") or n_bytes == 0:
            return
        try:
            os.posix_fallocate(self.fd, 0, n_bytes)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT) and self._around and remove_debris(self._around):
                self.reserve(n_bytes)  # what a killed writer left took the room
            elif error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO):
                raise _too_large(self.name, error, n_bytes, self.fd) from None

    def _moved(self, n: int) -> None:
        self._at += n
        self._end = max(self._end, self._at)
        if self._ours and self._at - self._pushed >= _COPY:
            start_writeback(self.fd, self._pushed, self._at - self._pushed)
            self._pushed = self._at
        self.progress(n)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if not self._ours:
            raise io.UnsupportedOperation("this sink only goes forward")
        self._at = os.lseek(self.fd, offset, whence)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read back from where the sink stands what was written there (HDF5's library looks at its own pages)."""
        view = memoryview(buffer).cast("B")
        with explained(self.name):
            data = os.read(self.fd, view.nbytes)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Say where the file ends; it is cut or lengthened by `finish`."""
        self._end = self._at if size is None else size
        return self._end

    def seekable(self) -> bool:
        return self._ours

    def flush(self) -> None:
        """Nothing waits in a buffer here; zipfile asks all the same."""

    def finish(self) -> None:
        """Cut what was reserved and not used, and bring everything to the disk."""
        with explained(self.name):
            os.ftruncate(self.fd, self._end)
            os.fsync(self.fd)


@contextmanager
def explained(name: object) -> Iterator[None]:
    """Turn the operating system's errors into one line about the target; a reader that left is no error of ours."""
    try:
        yield
    except (BrokenPipeError, SourceError):
        raise
    except OSError as error:
        raise _write_error(name, error) from None


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask Linux to begin writing these bytes to the disk, so that the fsync at the end finds little left to do."""
    if sys.platform == "linux":
        import ctypes

        begin = 2  # SYNC_FILE_RANGE_WRITE; it fails harmlessly on pipes and where it is not known
        ctypes.CDLL(None).sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), begin)


def _write_error(name: object, error: OSError, remedy: str = "the target is as it was") -> SourceError:
    fact = f"cannot be written: {error.strerror or error}"
    if name == "-":  # what went out cannot be taken back
        return SourceError(fact, subject="standard output", code="cannot-be-written")
    return SourceError(fact, subject=name, remedy=remedy, code="cannot-be-written")


def _too_large(name: str, error: OSError, n_bytes: int, fd: int) -> SourceError:
    """The error of a write that did not fit, with what it needs and what there is."""
    room = ""
    if error.errno == errno.ENOSPC and hasattr(os, "fstatvfs"):
        with contextlib.suppress(OSError):
            disk = os.fstatvfs(fd)
            room = f"{n_bytes:,} bytes are needed and {disk.f_bavail * disk.f_frsize:,} are free; "
    return _write_error(name, error, f"{room}the target is as it was")


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
    target: str | os.PathLike[str], *, force: bool = False, follow: bool = True, progress: Progress = silent
) -> Iterator[FileSink]:
    """Give a sink for `target` that appears under that name only when it is complete and on the disk.

    An existing file's mode is kept. ``-`` is standard output.

    Parameters
    ----------
    target
        The path.
    force
        Replace what is there. Without it nothing is, whenever it came there.
    follow
        Write through a symbolic link, as is right for a path that a person gives. A link of a name that was found in
        a directory is replaced itself.
    progress
        Called with the number of bytes just written.

    Raises
    ------
    SourceError
        The target exists and `force` is not given, is no regular file, or cannot be written; it is then as it was.
    """
    if os.fspath(target) == "-":
        yield standard_output(progress)
        return
    path = _place(target, follow)
    if follow or not path.is_symlink():
        check_target(path, force=force, subject=target)
    with explained(target):
        fd, temporary = make_beside(path, _make)
    try:
        sink = FileSink(fd, str(target), progress, around=path.parent, path=temporary)
        yield sink
        sink.finish()
        with explained(target):
            os.chmod(temporary, _mode(path))
            if force:
                os.replace(temporary, path)
            else:
                place_file(temporary, path, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        unmark(temporary)
        with contextlib.suppress(OSError):  # all is synced, or given up
            os.close(fd)
    remove_debris(path.parent)
    sync_rename(path.parent, target)


def _place(target: str | os.PathLike[str], follow: bool) -> Path:
    """Where the bytes of a target go; of one that is not followed its directory's links still are."""
    path = Path(os.path.realpath(target))
    return path if follow else Path(os.path.realpath(Path(target).parent)) / Path(target).name


@contextmanager
def new_file(path: str | os.PathLike[str], progress: Progress = silent) -> Iterator[FileSink]:
    """Give a sink for a file that does not exist yet, in a directory that is itself still to appear; synced at the end.

    Raises
    ------
    SourceError
        It exists, or cannot be written.
    """
    with explained(path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        sink = FileSink(fd, os.fspath(path), progress, around=Path(path).parent.parent)
        yield sink
        sink.finish()
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def standard_output(progress: Progress = silent) -> FileSink:
    """Return a sink on standard output.

    Raises
    ------
    SourceError
        Standard output is a terminal, where weights would be noise, or is closed.
    """
    if sys.stdout.isatty():
        raise SourceError(
            "standard output is a terminal", subject="-", remedy="redirect it, or name a file", code="terminal"
        )
    sys.stdout.flush()
    with explained("-"):
        os.write(sys.stdout.fileno(), b"")  # fails where nothing can be written
    return FileSink(sys.stdout.fileno(), "-", progress, ours=False)


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
                f"its directory {path.parent} does not exist",
                subject=subject,
                remedy="make it first",
                code="no-such-directory",
            ) from None
        return
    except (OSError, ValueError) as error:
        raise SourceError(
            f"cannot be written: {getattr(error, 'strerror', error)}", subject=subject, code="cannot-be-written"
        ) from None
    if not stat.S_ISREG(mode):
        raise SourceError(
            "is not a regular file", subject=subject, expected="a new file, or one to replace", code="not-a-file"
        )
    if not force:
        raise SourceError("exists already", subject=subject, remedy="force (--force) replaces it", code="target-exists")


def check_writable(target: str | os.PathLike[str], *, force: bool = False) -> None:
    """Refuse, before work that takes long, what `atomic_file` could not write; nothing stays of the attempt.

    Raises
    ------
    SourceError
        As of `atomic_file`.
    """
    if os.fspath(target) == "-":
        standard_output()
        return
    path = Path(os.path.realpath(target))
    check_target(path, force=force, subject=target)
    with explained(target):
        fd, temporary = make_beside(path, _make)
        os.close(fd)
        temporary.unlink(missing_ok=True)  # without its lock, another writer may take it for debris
        unmark(temporary)


def _make(temporary: Path) -> int:
    return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)


def _mode(path: Path) -> int:
    """The mode the finished file gets: the old file's, or what the umask gives a new one."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if not stat.S_ISLNK(mode):
            return stat.S_IMODE(mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def sync_rename(directory: Path, target: object) -> None:
    """Sync the directory after a rename; the target is then the new one already, and whole."""
    try:
        sync_directory(directory)
    except OSError as error:
        raise SourceError(
            f"is written, but its directory cannot be synced: {error.strerror or error}",
            subject=target,
            remedy="it is the new one and whole, but a loss of power now may bring back what was there before",
        ) from None

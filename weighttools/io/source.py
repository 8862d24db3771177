"""Bytes in: local files by positioned reads, and bytes in memory."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, TYPE_CHECKING, TextIO

from weighttools.errors import SourceError, UnsupportedError

if TYPE_CHECKING:
    from weighttools.core.spec import Source

_CHUNK = 1 << 30
"""The most that one read call is asked for: Linux stops at 2 GiB less a page."""


class LocalFile:
    """A regular file, read by position (pread), so that threads share one descriptor.

    The descriptor is opened on the first read and again after unpickling; the file must then be the one it was, of the
    same size and modification time, so that one exchanged in between is noticed rather than misread. `info` is what
    is known of it, where a path may not lead where it leads now (`weighttools.io.beside`).

    Raises
    ------
    SourceError
        The path is no regular file, or cannot be read.
    """

    def __init__(
        self, path: str | os.PathLike[str], name: str | None = None, info: os.stat_result | None = None
    ) -> None:
        self.path = os.fspath(path)
        self.name = name or self.path
        info = info or _stat(self.path)
        if not stat.S_ISREG(info.st_mode):
            raise SourceError(
                f"is {_what(info.st_mode)}", subject=self.name, expected="a regular file", code="not-a-file"
            )
        self.size = info.st_size
        self._stamp: tuple[int, ...] = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
        self._fd = -1
        self._has_name = True
        self._lock = threading.Lock()

    @classmethod
    def of_descriptor(cls, fd: int, name: str) -> LocalFile:
        """Return the regular file behind a descriptor, which becomes this object's; it is kept open as long as that is.

        Raises
        ------
        OSError
            Nothing can be said of the descriptor.
        """
        self = cls.__new__(cls)
        self.path, self.name, self.size = "", name, os.fstat(fd).st_size
        self._fd, self._has_name, self._stamp, self._lock = fd, False, (), threading.Lock()
        return self

    @property
    def identity(self) -> tuple[int, ...]:
        """What tells this file from others, by whatever names they are called; empty for a file without a name."""
        return self._stamp

    def fileno(self) -> int:
        """Return a descriptor open for reading; it stays this object's."""
        if self._fd < 0:
            with self._lock:
                if self._fd < 0:
                    self._fd = self._open()
        return self._fd

    def _open(self) -> int:
        if not self._has_name:
            raise SourceError("is known to the process that opened it only", subject=self.name)
        try:
            fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise SourceError(f"cannot be opened: {error.strerror}", subject=self.name, code="cannot-be-read") from None
        try:
            info = os.fstat(fd)
        except OSError as error:
            os.close(fd)
            raise SourceError(f"cannot be read: {error.strerror}", subject=self.name, code="cannot-be-read") from None
        if (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns) != self._stamp:
            os.close(fd)
            raise SourceError("changed since it was opened", subject=self.name, remedy="open it again", code="changed")
        return fd

    def close(self) -> None:
        """Give the descriptor back; the next read opens it again. One of a file without a name is kept."""
        with self._lock:
            if self._fd >= 0 and self._has_name:
                os.close(self._fd)
                self._fd = -1

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`.

        Raises
        ------
        SourceError
            The file ends before.
        """
        buffer = bytearray(length)
        self.readinto(offset, memoryview(buffer))
        return bytes(buffer)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`; as `read`."""
        fd = self.fileno()
        view = buffer.cast("B") if buffer.nbytes else buffer
        done = 0
        while done < view.nbytes:
            try:
                n = _pread_into(fd, view[done : done + _CHUNK], offset + done, self._lock)
            except OSError as error:
                raise SourceError(
                    f"read failed: {error.strerror}", subject=self.name, offset=offset, code="cannot-be-read"
                ) from None
            if n == 0:
                raise SourceError(
                    "ends early: it shrank while open", subject=self.name, offset=offset + done, code="ends-early"
                )
            done += n

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_fd", "_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._fd, self._lock = -1, threading.Lock()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)

    def __repr__(self) -> str:
        return f"LocalFile({self.path!r})"


def _pread_into(fd: int, view: memoryview, offset: int, lock: threading.Lock) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(fd, [view], offset)
    with lock:  # Windows and old macOS have no positioned read into a buffer
        os.lseek(fd, offset, os.SEEK_SET)
        data = os.read(fd, view.nbytes)
    view[: len(data)] = data
    return len(data)


@dataclass(frozen=True)
class Bytes:
    """Bytes in memory as a source."""

    data: bytes = field(repr=False)
    name: str = "<bytes>"

    @property
    def size(self) -> int:
        """The length in bytes."""
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`."""
        if offset + length > len(self.data):
            raise SourceError("ends early", subject=self.name, offset=len(self.data), code="ends-early")
        return self.data[offset : offset + length]

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`."""
        if buffer.nbytes:
            buffer.cast("B")[:] = self.read(offset, buffer.nbytes)


@dataclass(frozen=True)
class Part:
    """A run of another source's bytes, as a source of its own."""

    whole: Source
    start: int
    size: int
    name: str

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`."""
        if offset + length > self.size:
            raise SourceError("ends early", subject=self.name, offset=self.size, code="ends-early")
        return self.whole.read(self.start + offset, length)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`."""
        if buffer.nbytes:
            buffer.cast("B")[:] = self.read(offset, buffer.nbytes)


class SourceStream(io.RawIOBase):
    """A seekable file object over a source, for libraries that want one (zipfile, h5py)."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source, self._at = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._source.size}[whence]
        if at < 0:
            raise OSError(f"cannot seek to {at}")  # as files do: zipfile asks for a comment before the beginning
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; a size that a file invents allocates no more than the file holds."""
        left = max(0, self._source.size - self._at)
        n = left if size < 0 else min(size, left)
        data = self._source.read(self._at, n) if n else b""
        self._at += n
        return data

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        n = max(0, min(view.nbytes, self._source.size - self._at))
        if n:
            self._source.readinto(self._at, view[:n])
        self._at += n
        return n


def open_source(path: str | os.PathLike[str], look: Callable[[bytes], object] | None = None) -> LocalFile | Bytes:
    """Open a file by path, or standard input by ``-``.

    Parameters
    ----------
    path
        The path, or a ``file://`` URL.
    look
        Called with the first bytes of standard input before the rest is taken, so that it can be refused by them.

    Raises
    ------
    SourceError
        There is no such file, or it is not a regular one.
    UnsupportedError
        The path is a URL.
    """
    text = os.fspath(path)
    if text == "-":
        return _standard_input(look)
    if text.startswith("file://"):
        text = path_of_url(text)
    if "://" in text:
        raise UnsupportedError(
            "URLs are not read", subject=text, remedy="download the file and give its path", code="url"
        )
    return LocalFile(text)


def path_of_url(url: str) -> str:
    """Return the path that a ``file://`` URL means.

    Raises
    ------
    UnsupportedError
        It names another machine.

    >>> path_of_url("file:///data/my%20model.safetensors")
    '/data/my model.safetensors'
    """
    from urllib.parse import unquote

    host, slash, path = url.removeprefix("file://").partition("/")
    if host not in ("", "localhost") or not slash:
        raise UnsupportedError(
            "is a URL of another machine", subject=url, expected="file:/// and an absolute path", code="url"
        )
    is_drive = os.name == "nt" and re.match(r"[A-Za-z][:|]", path)
    return unquote(path if is_drive else slash + path)


def _standard_input(look: Callable[[bytes], object] | None) -> LocalFile:
    """Read standard input: a redirected file by position, a pipe through a temporary file that never has a name."""
    import sys

    if sys.stdin is None or sys.stdin.isatty():
        raise SourceError(
            "standard input is a terminal or closed",
            subject="-",
            remedy="pipe or redirect a file into it",
            code="terminal",
        )
    redirected = _redirected(sys.stdin)
    if redirected is not None:
        return redirected
    head = sys.stdin.buffer.read(_HEAD)
    if look is not None:
        look(head)
    return spooled(chain([head], iter(lambda: sys.stdin.buffer.read(1 << 20), b"")), "-")


_HEAD = 1 << 16
"""How much of a pipe is looked at before the rest of it is taken: what a format is known by lies within."""


def _redirected(stream: TextIO) -> LocalFile | None:
    """Return the file that a stream is redirected from, if it is one and nothing of it is read yet."""
    try:
        fd = stream.fileno()
        if stat.S_ISREG(os.fstat(fd).st_mode) and os.lseek(fd, 0, os.SEEK_CUR) == 0:
            return LocalFile.of_descriptor(os.dup(fd), "-")
    except OSError:
        pass  # it has no descriptor, or one that tells nothing: it is read as a pipe is
    return None


def spooled(chunks: Iterable[bytes], name: str) -> LocalFile:
    """Put bytes that have no place of their own into a temporary file without a name, so that no kill leaves one.

    Raises
    ------
    SourceError
        The temporary directory cannot hold them.
    """
    import tempfile

    try:
        with tempfile.TemporaryFile(prefix="weighttools-", buffering=0) as file:
            for chunk in chunks:
                _write_all(file, chunk)
            return LocalFile.of_descriptor(os.dup(file.fileno()), name)
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(f"cannot be unpacked to a temporary file: {error.strerror}", subject=name) from None


def _write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except (OSError, ValueError) as error:
        from weighttools.io.dangling import dangles

        if dangling := dangles(path):
            raise SourceError(dangling[0], subject=path, remedy=dangling[1], code="dangling-link") from None
        if isinstance(error, FileNotFoundError):
            raise SourceError(
                "no such file or directory", subject=path, remedy=_near_files(path), code="no-such-file"
            ) from None
        raise SourceError(
            f"cannot be read: {getattr(error, 'strerror', error)}", subject=path, code="cannot-be-read"
        ) from None


def _near_files(path: str) -> str | None:
    from weighttools.core.near import near

    parent, wanted = os.path.split(path)
    try:
        names = [entry.name for entry in os.scandir(parent or ".")]
    except (OSError, ValueError):
        return None
    close = near(wanted, names, n=2)
    return f"did you mean {' or '.join(os.path.join(parent, name) for name in close)}?" if close else None


def _what(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "not a regular file")

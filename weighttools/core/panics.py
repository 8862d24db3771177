"""What a package written in Rust raises (``tokenizers``, ``safetensors``), its panics included, as one line."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Collection, Iterator

from weighttools.errors import SpecError, WeighttoolsError


@contextlib.contextmanager
def panics_as_errors(fact: str, kind: type[WeighttoolsError] = SpecError, subject: object = None) -> Iterator[None]:
    """Turn what the package raises within into an error of ours, its first line after `fact`.

    Notes
    -----
    A panic is no Exception, and the package writes it to the standard error before it raises it: see `_Diverted`.
    """
    try:
        with _DIVERTED:
            yield
    except (WeighttoolsError, ImportError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise kind(f"{fact}: {line}", subject=subject) from None


class _Diverted:
    """Holds back what is written to descriptor 2, and writes it on without the text of panics.

    Rust writes that text to the descriptor itself, so no stream of Python's can catch it. The descriptor is one for
    all threads: the first that comes in diverts it, the last that goes out lets go what was held back, and no byte but
    a panic's is lost. A write that had begun when the descriptor was set right may end in the held file later: so one
    file serves a process, and what came late is written on the next time, or at its end. Where there is no standard
    error, nothing is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._true: int | None = None
        self._held: _Held | None = None
        self._messages: set[bytes] = set()

    def __enter__(self) -> None:
        with self._lock:
            self._n_inside += 1
            if self._n_inside == 1:
                self._divert()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._lock:
            self._n_inside -= 1
            self._messages |= set(str(error).encode("utf-8", "replace").splitlines()) if error is not None else set()
            if self._n_inside == 0:
                self._let_go()

    def _divert(self) -> None:
        try:
            self._true = os.dup(2)
        except OSError:  # closed
            return
        if self._held is None or self._held.process != os.getpid():  # a fork must not write into its parent's file
            self._held = _Held()
            atexit.register(self._held.end)
        os.dup2(self._held.descriptor, 2)

    def _let_go(self) -> None:
        if self._true is None or self._held is None:
            return
        os.dup2(self._true, 2)
        self._held.write_on(self._messages)
        self._messages = set()
        os.close(self._true)
        self._true = None


_MOST = 1 << 20  # bytes of what was written on that stay in memory


class _Held:
    """The file that takes what is written to descriptor 2, and how much of it was written on."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.descriptor = _scratch()
        self._mark = os.urandom(16)
        self._n_read = 0

    def write_on(self, messages: Collection[bytes]) -> None:
        """Write what is new, less the text of panics, to descriptor 2.

        Writes to a file take turns, so what stands before a mark of ours is whole: no line is cut in two.
        """
        os.write(self.descriptor, self._mark)
        text = os.pread(self.descriptor, os.fstat(self.descriptor).st_size - self._n_read, self._n_read)
        text = text.partition(self._mark)[0]
        self._n_read += len(text) + len(self._mark)
        if self._n_read > _MOST and os.fstat(self.descriptor).st_size == self._n_read:
            os.ftruncate(self.descriptor, 0)
            self._n_read = 0
        left = without_panics(text, messages)
        with contextlib.suppress(OSError):  # nobody reads it any more
            while left:
                left = left[os.write(2, left) :]

    def end(self) -> None:
        """Write on what came after the last time, in the process whose file this is."""
        if self.process == os.getpid():
            self.write_on(())


_DIVERTED = _Diverted()


def _scratch() -> int:
    """Return the descriptor of a file that has no name, and to which every write appends.

    Without O_APPEND two threads that write to a memfd at once write over each other: unlike an ordinary file's, its
    position has no lock (Linux, fs/file.c: FMODE_ATOMIC_POS).
    """
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    import fcntl

    found = os.memfd_create("weighttools-stderr")
    fcntl.fcntl(found, fcntl.F_SETFL, fcntl.fcntl(found, fcntl.F_GETFL) | os.O_APPEND)
    return found


_ALWAYS = re.compile(rb"thread '.*' panicked at |thread '.*' \(\d+\) panicked at |note: .*RUST_BACKTRACE")
_BACKTRACE = re.compile(rb"stack backtrace:$| +\d+: | +at ")


def without_panics(text: bytes, messages: Collection[bytes]) -> bytes:
    """Return what was written to the standard error less the text of Rust's panics, line by line.

    Parameters
    ----------
    text
        What was written; lines of other threads may stand between those of a panic.
    messages
        The lines of what the panics said.

    Examples
    --------
    >>> without_panics(b"before\\nthread 'x' panicked at a.rs:1\\nwhy\\nnote: RUST_BACKTRACE=1\\nafter\\n", {b"why"})
    b'before\\nafter\\n'
    """
    if b" panicked at " not in text:
        return text
    has_backtrace = b"stack backtrace:\n" in text
    kept = []
    for line in text.splitlines(keepends=True):
        bare = line.rstrip(b"\n")
        if not (_ALWAYS.match(bare) or bare in messages or (has_backtrace and _BACKTRACE.match(bare))):
            kept.append(line)
    return b"".join(kept).removeprefix(b"\n")

"""Starting the child process that lists an HDF5 file, and what its death means.

libhdf5 can be made to crash or to loop for ever by a hostile file. What it does here, it does in a process of its
own that may take little time and memory and can open no other file; a death becomes one error. Values are read by
this process from the offsets in the listing, without libhdf5. The package pyfive would need the same child (it takes
what memory a file claims) and lacks what files of today hold; the figures are in ARCHITECTURE.md.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weighttools.core.spec import Span
from weighttools.errors import CorruptFileError, MissingDependencyError, SourceError
from weighttools.io.source import LocalFile

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PROGRAM = "import sys; sys.path[:] = sys.argv[5:]; from weighttools.formats.hdf5.listing import main; main()"
_COPY = 1 << 20
_PLACES = (0, *(512 << i for i in range(40)))
_CPU_SECONDS, _BYTES_A_SECOND, _MOST_SECONDS = 1.0, 1 << 20, 300.0
_MEMORY, _MOST_MEMORY = 160 << 20, 4 << 30


def user_block(head: bytes) -> int | None:
    """Return where in a file that begins with `head` the HDF5 signature lies: at 0, 512, 1024, 2048, … or nowhere."""
    return next((at for at in _PLACES if head[at : at + 8] == SIGNATURE), None)


def _signature(span: Span) -> int | None:
    places = [at for at in _PLACES if at + 8 <= span.length]
    return next((at for at in places if span.source.read(span.offset + at, 8) == SIGNATURE), None)


def check_superblock(span: Span) -> None:
    """Refuse, without libhdf5, what is cut short or has no superblock; as `end_of_file`."""
    end = end_of_file(span)
    if end > span.length:
        raise _corrupt(span, f"truncated: {end - span.length:,} bytes are missing of {end:,}", "fetch the file again")


def end_of_file(span: Span) -> int:
    """Return where the superblock says that the file ends; 0 where its addresses are of an unusual width.

    Raises
    ------
    CorruptFileError
        There is none, or it is cut short.

    References
    ----------
    HDF5 File Format Specification 3.0, II.A (superblock).
    """
    at = _signature(span)
    if at is None:
        raise _corrupt(span, "has no HDF5 signature")
    head = span.source.read(span.offset + at, min(64, span.length - at))
    version = head[8] if len(head) > 8 else 255
    sizes_at, end_at = {0: (13, 40), 1: (13, 44), 2: (9, 28), 3: (9, 28)}.get(version, (0, 0))
    if not end_at or len(head) < end_at + 8:
        raise _corrupt(span, f"its HDF5 superblock is cut off or of version {version}", expected="version 0 to 3")
    width = head[sizes_at]
    if width != 8:
        return 0  # rare, and left to the library
    return int(struct.unpack_from("<Q", head, end_at)[0])


def _corrupt(span: Span, fact: str, remedy: str | None = None, expected: str | None = None) -> CorruptFileError:
    return CorruptFileError(fact, subject=span.source.name, expected=expected, remedy=remedy)


def listing(span: Span) -> dict[str, Any]:
    """Return what `weighttools.formats.hdf5.listing` says of the HDF5 file that lies in `span`.

    Raises
    ------
    CorruptFileError
        The library finds fault with the file, crashes on it, or takes too long or too much memory.
    """
    check_superblock(span)
    cpu_seconds = min(_MOST_SECONDS, _CPU_SECONDS + span.length / _BYTES_A_SECOND)
    memory = min(_MOST_MEMORY, _MEMORY + 4 * span.length)
    with _descriptor(span) as (fd, offset):
        done = _started(fd, (offset, span.length, cpu_seconds, memory), span)
    if done.returncode or not done.stdout:
        raise _corrupt(span, _death(done, cpu_seconds), "it is damaged or hostile: get it from another place")
    found: dict[str, Any] = json.loads(done.stdout)
    if "missing" in found:
        raise MissingDependencyError("reading HDF5 needs h5py", remedy="pip install h5py")
    if "error" in found:
        raise _corrupt(span, f"the HDF5 library cannot read it: {found['error']}")
    return found


def _started(fd: int, limits: tuple[float, ...], span: Span) -> subprocess.CompletedProcess[bytes]:
    wall_seconds = 30 + 10 * limits[2]  # the CPU is what is limited; this ends a child that only waits
    try:
        return start(fd, limits, wall_seconds)
    except subprocess.TimeoutExpired:
        raise _corrupt(span, f"the HDF5 library did not list it in {wall_seconds:.0f} s") from None
    except OSError as error:
        raise SourceError(f"no process to list it can be started: {error.strerror}", subject=span.source.name) from None


def start(fd: int, limits: tuple[float, ...], wall_seconds: float) -> subprocess.CompletedProcess[bytes]:
    """List the file that `fd` has open in a fresh process; the one place that starts one.

    Parameters
    ----------
    fd
        Becomes its standard input.
    limits
        Offset and size of the HDF5 file, the CPU seconds and the bytes of memory that it may take.
    wall_seconds
        When to give up waiting.

    Raises
    ------
    subprocess.TimeoutExpired
        It is still there after `wall_seconds`.
    OSError
        No process can be started.
    """
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, *map(str, limits), *_search_path()]
    return subprocess.run(command, stdin=fd, capture_output=True, check=False, timeout=wall_seconds, env=environment())


def environment() -> dict[str, str]:
    """Return the environment of a process that lists: no threads, and no plug-ins of libhdf5."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}


def _death(done: subprocess.CompletedProcess[bytes], cpu_seconds: float) -> str:
    import signal

    timers = {-getattr(signal, name) for name in ("SIGPROF", "SIGXCPU") if hasattr(signal, name)}
    if done.returncode in timers:
        return f"the HDF5 library needs more than {cpu_seconds:.0f} s to list it"
    if b"MemoryError" in done.stderr:
        return "the HDF5 library needs more memory to list it than a file of this size can"
    names = {-s.value: s.name for s in signal.Signals}
    return f"the HDF5 library crashed on it ({names.get(done.returncode, f'exit {done.returncode}')})"


def _search_path() -> list[str]:
    """The places that this process imports from, without the current directory."""
    root = str(Path(__file__).resolve().parents[3])
    known = [place for place in sys.path if os.path.isabs(place)]
    return known if root in known else [*known, root]


@contextmanager
def _descriptor(span: Span) -> Iterator[tuple[int, int]]:
    """Give a descriptor and the offset at which the span lies in it; bytes in memory go to a temporary file."""
    if isinstance(span.source, LocalFile):
        yield span.source.fileno(), span.offset
        return
    with tempfile.TemporaryFile(prefix="weighttools-") as file:
        for at in range(0, span.length, _COPY):
            file.write(span.source.read(span.offset + at, min(_COPY, span.length - at)))
        file.flush()
        yield file.fileno(), 0

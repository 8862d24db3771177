"""A parent that has h5py imported and forks a confined child for each HDF5 file: many files cost no interpreters.

What a child does, and what it may take, is `weighttools.formats.hdf5.listing.main`, as in the package; only how it comes
into being differs. The parent is a process of its own without threads, and no file but its own is ever opened in it.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from tests.listing_server import serve; serve(int(sys.argv[1]))"


class ListingServer:
    """Runs listings as `weighttools.formats.hdf5.process.start` does. POSIX only."""

    def __init__(self) -> None:
        from weighttools.formats.hdf5.process import environment

        self._socket, theirs = socket.socketpair()
        path = [str(ROOT), *(place for place in sys.path if os.path.isabs(place))]
        command = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(theirs.fileno()), *path]
        with theirs:
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment()
            )

    def close(self) -> None:
        """End the parent; its children are over by then."""
        self._socket.close()
        self._process.wait()

    def start(self, fd: int, limits: tuple[float, ...], wall_seconds: float) -> subprocess.CompletedProcess[bytes]:
        """List the file that `fd` has open, within limits.

        Raises
        ------
        subprocess.TimeoutExpired
            The child was still there after `wall_seconds`.
        """
        out, err = os.pipe(), os.pipe()
        message = " ".join(map(str, (*limits, wall_seconds))).encode()
        socket.send_fds(self._socket, [message], [fd, out[1], err[1]])
        os.close(out[1])
        os.close(err[1])
        said, complained = (_read_all(end) for end in (out[0], err[0]))
        status = int(self._socket.recv(64))
        if status == -signal.SIGALRM:
            raise subprocess.TimeoutExpired("a listing", wall_seconds)
        return subprocess.CompletedProcess([], status, said, complained)


def _read_all(fd: int) -> bytes:
    with open(fd, "rb") as pipe:
        return pipe.read()


@contextmanager
def one_parent(server: ListingServer | None = None) -> Iterator[None]:
    """Have the package's listings made by one parent; where there is no fork, leave them as they are."""
    from weighttools.formats.hdf5 import process

    if not hasattr(os, "fork"):
        yield
        return
    before = process.start
    with nullcontext(server) if server else closing(ListingServer()) as used:
        process.start = used.start
        try:
            yield
        finally:
            process.start = before


def serve(fd: int) -> None:
    """Fork a child for each message on a socket, and send back how it ended."""
    _warm_up()
    with socket.socket(fileno=fd) as requests:
        while True:
            message, fds, _, _ = socket.recv_fds(requests, 1024, 3)
            if not message:
                return
            child = os.fork() or _list(fds, message.decode().split())
            for passed in fds:
                os.close(passed)
            _, status = os.waitpid(child, 0)
            requests.send(b"%d" % os.waitstatus_to_exitcode(status))


def _warm_up() -> None:
    """Do here, on a file of our own, what every child would have to do; and keep the collector off shared pages."""
    import gc

    import h5py

    from weighttools.formats.hdf5 import listing as hdf5_listing

    file = io.BytesIO()
    with h5py.File(file, "w") as written:
        written.create_dataset("chunked", data=[1.0, 2.0], chunks=(1,), compression="gzip")
        written.attrs["text"] = "words"
    with h5py.File(file, "r") as read:
        hdf5_listing.Listing(h5py).of(read)
    gc.disable()
    gc.collect()
    gc.freeze()


def _list(fds: list[int], limits: list[str]) -> int:
    """Be the child: the program that the package starts, with the file as standard input."""
    import traceback

    from weighttools.formats.hdf5 import listing as hdf5_listing

    for standard, passed in enumerate(fds):
        os.dup2(passed, standard)
    signal.setitimer(signal.ITIMER_REAL, float(limits[-1]))
    sys.argv = ["-c", *limits[:-1]]
    try:
        hdf5_listing.main()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
    return 0

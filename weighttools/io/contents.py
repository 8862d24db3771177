"""What is read of an archive's members, held against their CRC-32 in the same pass.

Pieces come in any order and from any thread. Each is divided while it is in the processor's cache, neighbours are
joined, and once all that tensors need of a member has been read, what else it holds (an array's header, padding) is
read too, and its CRC-32 compared. Whoever reads a slice pays for its own bytes, and is told nothing.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager

from weighttools.core.crc32 import crc32_of, joined
from weighttools.core.spec import Source, Span
from weighttools.errors import CorruptFileError

STEP = 1 << 18
"""Bytes read and divided at a time: the second-level cache still holds them when they are divided."""
_LEAST = 4096
"""Fewer bytes, of a member that holds more, are a few elements of a slice, and are not remembered."""
_BESIDE = 1 << 22
"""Spans of fewer bytes are not worth a thread."""


class Checked:
    """A stored member: `length` bytes at `start` of `source`, whose CRC-32 is `crc`; see `core.spec.Content`.

    Parameters
    ----------
    source
        Of the archive.
    name
        The member's, for messages.
    start, length
        Where its bytes lie.
    crc
        As the archive's directory has it.

    Attributes
    ----------
    n_needed
        The bytes that tensors take of it, which its format sets: once so many have been read, the member was.
    """

    def __init__(self, source: Source, name: str, start: int, length: int, crc: int) -> None:
        self.source, self.name, self.start, self.length, self.crc = source, name, start, length, crc
        self.n_needed = length
        self.is_confirmed = False
        self._is_original = True
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._used: set[tuple[int, int]] = set()
        self._starts: list[int] = []
        self._runs: dict[int, tuple[int, int]] = {}

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the source's bytes from `offset`, and remember their CRC-32."""
        view = buffer.cast("B") if buffer.nbytes else buffer
        few = view.nbytes < min(_LEAST, self.length)
        if self.is_confirmed or few or not self._is_original or not self._is_new(offset):
            self.source.readinto(offset, view)
            return
        found = crc32_of(self._pieces(offset, view))
        self._remember(offset, offset + view.nbytes, found)

    def _pieces(self, offset: int, view: memoryview) -> Iterator[memoryview]:
        """Fill `view` piece by piece; each is divided while the processor's cache holds it."""
        for at in range(0, view.nbytes, STEP):
            piece = view[at : at + STEP]
            self.source.readinto(offset + at, piece)
            yield piece

    def look(self, span: Span) -> None:
        """Read a span only for its CRC-32: what it holds goes where nobody sees it."""
        if not self.is_confirmed and self._is_original and self._is_new(span.offset):
            self._remember(
                span.offset, span.offset + span.length, self._crc32_of(span.offset, span.offset + span.length)
            )

    def confirm(self, offset: int, length: int) -> None:
        """Hear that a tensor's bytes have been read; with the last that are needed, check the CRC-32 of the whole.

        Raises
        ------
        CorruptFileError
            It is not that of the archive's directory.
        """
        with self._lock:
            if self.is_confirmed:
                return
            self._used.add((offset, length))
            if sum(n for _, n in self._used) >= self.n_needed:
                self.check()

    def check(self) -> None:
        """Read what of the member has not been read yet, and compare its CRC-32.

        Raises
        ------
        CorruptFileError
            It is another.
        """
        with self._lock:
            if self.is_confirmed:
                return
            for start, stop in list(self._gaps()):
                self._remember(start, stop, self._crc32_of(start, stop))
            found = self._runs[self.start][1] if self.length else 0
            if found != self.crc:
                raise damaged(self.source, self.name, self.start, found, self.crc)
            self.is_confirmed = True

    def _crc32_of(self, start: int, stop: int) -> int:
        return crc32_of(_through_memory(Span(self.source, start, stop - start)))

    def _gaps(self) -> Iterator[tuple[int, int]]:
        at = self.start
        for start in self._starts:
            if at < start:
                yield at, start
            at = self._runs[start][0]
        if at < self.start + self.length:
            yield at, self.start + self.length

    def _is_new(self, offset: int) -> bool:
        """Whether the byte at `offset` is not known yet: a second pass need not be divided again."""
        with self._lock:
            at = bisect_left(self._starts, offset + 1) - 1
            return at < 0 or self._runs[self._starts[at]][0] <= offset

    def _remember(self, start: int, stop: int, crc: int) -> None:
        """Add a run, joined with its neighbours; one that overlaps another is left out, and read once more at last."""
        with self._lock:
            at = bisect_left(self._starts, start)
            before = self._starts[at - 1] if at else None
            after = self._starts[at] if at < len(self._starts) else None
            if (before is not None and self._runs[before][0] > start) or (after is not None and after < stop):
                return
            if after == stop and after is not None:
                last, second = self._runs.pop(self._starts.pop(at))
                stop, crc = last, joined(crc, second, last - stop)
            if before is not None and self._runs[before][0] == start:
                self._runs[before] = stop, joined(self._runs[before][1], crc, stop - start)
            else:
                self._starts.insert(at, start)
                self._runs[start] = stop, crc

    def __getstate__(self) -> dict[str, object]:
        kept = ("source", "name", "start", "length", "crc", "n_needed", "is_confirmed")
        return {key: getattr(self, key) for key in kept}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Be a copy in another process: it knows nothing of what others read, so it only reads."""
        self.__dict__.update(state)
        self._is_original = False
        self._reset()

    def __repr__(self) -> str:
        return f"Checked({self.source.name!r}, {self.name!r})"


def damaged(source: Source, name: str, offset: int, found: int, stored: int) -> CorruptFileError:
    """Return the error for a member whose content is not what was stored."""
    return CorruptFileError(
        f"archive member {name!r} is damaged: its CRC-32 is {found:08x}",
        subject=source.name,
        offset=offset,
        expected=f"{stored:08x}, as the archive says",
        remedy="fetch the file again, or take a backup: some of its values are not those that were stored",
        code="damaged-member",
    )


@contextmanager
def read_beside(span: Span) -> Iterator[None]:
    """Read a span for the CRC-32 of its content while another copies it without seeing its bytes."""
    if not isinstance(span.content, Checked):
        yield
        return
    if span.length < _BESIDE:
        span.content.look(span)
        yield
        return
    failures: list[BaseException] = []
    thread = threading.Thread(
        target=_caught, args=(span.content, span, failures), name="weighttools-crc32", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        thread.join()
    for failure in failures:
        raise failure


def _caught(content: Checked, span: Span, failures: list[BaseException]) -> None:
    try:
        content.look(span)
    except Exception as error:  # raised again where it is waited for
        failures.append(error)


def _through_memory(span: Span) -> Iterator[memoryview]:
    """Yield the bytes of a span, as the source has them, in memory that is used again."""
    scratch = memoryview(bytearray(min(STEP, span.length)))
    for at in range(0, span.length, STEP):
        piece = scratch[: min(STEP, span.length - at)]
        span.source.readinto(span.offset + at, piece)
        yield piece

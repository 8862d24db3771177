"""The bytes of pickles, taken front to back."""

from __future__ import annotations

from weighttools.core.budgets import PICKLE_LINE as _MAX_LINE
from weighttools.core.spec import Source
from weighttools.errors import CorruptFileError, UnsafeFileError

_CHUNK = 1 << 18


class Stream:
    """Bytes of a source from `offset` to `end`, taken front to back, at least `chunk` at a time."""

    __slots__ = ("_at", "_base", "_buffer", "_chunk", "_end", "source")

    def __init__(self, source: Source, offset: int = 0, end: int | None = None, chunk: int = _CHUNK) -> None:
        self.source, self._chunk = source, chunk
        self._base, self._at, self._buffer = offset, 0, b""
        self._end = source.size if end is None else end

    @property
    def position(self) -> int:
        """The offset of the next byte in the source."""
        return self._base + self._at

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return self._end - self.position

    def take(self, n: int) -> bytes:
        """Return the next `n` bytes.

        Raises
        ------
        CorruptFileError
            There are fewer.
        """
        stop = self._at + n
        if stop > len(self._buffer):
            self._fill(n)
            stop = n
        data = self._buffer[self._at : stop]
        self._at = stop
        return data

    def _fill(self, n: int) -> None:
        if n > self.remaining:
            raise CorruptFileError(
                f"the pickle claims {n:,} more bytes, where {self.remaining:,} remain",
                subject=self.source.name,
                offset=self.position,
                remedy="the file is probably cut short: fetch it again",
            )
        self._base, self._at = self.position, 0
        self._buffer = self.source.read(self._base, min(max(n, self._chunk), self._end - self._base))

    def line(self) -> bytes:
        """Return the bytes up to the next line feed, and step over it."""
        found = self._buffer.find(b"\n", self._at)
        if found < 0:
            self._fill(min(_MAX_LINE, self.remaining))
            found = self._buffer.find(b"\n", 0, _MAX_LINE)
        if found < 0 and len(self._buffer) >= _MAX_LINE:
            raise UnsafeFileError(f"a line of the pickle is longer than {_MAX_LINE:,} bytes", subject=self.source.name)
        if found < 0:
            raise CorruptFileError("a line of the pickle has no end", subject=self.source.name, offset=self.position)
        data = self._buffer[self._at : found]
        self._at = found + 1
        return data

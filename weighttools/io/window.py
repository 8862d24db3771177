"""A window that slides over a source: for parsers that hop from header to header and never touch the values."""

from __future__ import annotations

from weighttools.core.spec import Source
from weighttools.errors import CorruptFileError

WINDOW_BYTES = 1 << 16


class Window:
    """Random reads of a few bytes each, served from one buffer that follows them.

    Parameters
    ----------
    source
        What to read.
    """

    __slots__ = ("_data", "_start", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        self._start, self._data = 0, b""

    def byte(self, at: int) -> int:
        """Return the byte at offset `at`."""
        place = at - self._start
        if 0 <= place < len(self._data):
            return self._data[place]
        return self.bytes(at, 1)[0]

    def bytes(self, at: int, length: int) -> bytes:
        """Return `length` bytes from offset `at`.

        Raises
        ------
        CorruptFileError
            The source ends before; how many bytes are missing is said.
        """
        place = at - self._start
        if place < 0 or place + length > len(self._data):
            self._slide(at, length)
            place = 0
        return self._data[place : place + length]

    def _slide(self, at: int, length: int) -> None:
        missing = at + length - self.source.size
        if missing > 0:
            raise CorruptFileError(
                f"truncated: {missing:,} bytes are missing of {at + length:,}",
                subject=self.source.name,
                offset=self.source.size,
                remedy="fetch the file again",
                code="truncated",
            )
        wanted = max(length, WINDOW_BYTES)
        self._start, self._data = at, self.source.read(at, min(wanted, self.source.size - at))

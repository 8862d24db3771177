"""Sources that watch or hinder those who read them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class CountingSource:
    """Bytes in memory that record every read as (offset, length)."""

    data: bytes = field(repr=False)
    name: str = "<counted>"
    reads: list[tuple[int, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        assert min(offset, length) >= 0 and offset + length <= len(self.data), "read beyond the end"
        self.reads.append((offset, length))
        return self.data[offset : offset + length]

    def readinto(self, offset: int, buffer: memoryview) -> None:
        if buffer.nbytes:
            buffer.cast("B")[:] = self.read(offset, buffer.nbytes)

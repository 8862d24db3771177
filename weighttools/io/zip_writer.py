"""Writing zip archives whose bytes depend on their content alone, with members stored and aligned.

Source: APPNOTE 6.3, sections 4.3 and 4.5. NPZ and PyTorch files are such archives; aligned members can be read, and
mapped, by offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighttools.core.spec import Span
from weighttools.core.tensor import BLOCK_ELEMENTS

if TYPE_CHECKING:
    import zipfile

    from weighttools.io.sink import Sink

ALIGN = 64
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PADDING_ID = 0xD935
"""The extra field that Android's zipalign uses for padding."""
_ZIP64_FROM = (1 << 31) - (1 << 20)
_EXTRA_HEAD, _LOCAL_HEAD, _ZIP64_EXTRA = 4, 30, 20
_COPY_BYTES = 4 * BLOCK_ELEMENTS


def planned_bytes(name: str, size: int) -> int:
    """Return at least what a member of this name and size takes, headers and padding included."""
    return size + 2 * len(name.encode("utf-8", "replace")) + 2 * ALIGN + 256


class ZipWriter:
    """An archive being written to a sink, member after member."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    @contextmanager
    def member(self, name: str, size: int) -> Iterator[MemberSink]:
        """Give a sink for the `size` bytes of a member."""
        info = _info(name, self._archive.start_dir, size)
        with self._archive.open(info, "w", force_zip64=size >= _ZIP64_FROM) as stream:
            yield MemberSink(stream)

    def add(self, name: str, content: bytes) -> None:
        """Write a small member whole."""
        with self.member(name, len(content)) as sink:
            sink.write(content)


@contextmanager
def zip_writer(sink: Sink) -> Iterator[ZipWriter]:
    """Give a writer of an archive; its directory is written when the block ends."""
    import zipfile

    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:  # type: ignore[call-overload]
        yield ZipWriter(archive)


def _info(name: str, offset: int, size: int) -> zipfile.ZipInfo:
    """Describe a member so that its data begins on a multiple of 64, whatever the clock and the machine say."""
    import zipfile

    info = zipfile.ZipInfo(name, _EPOCH)
    info.filename = info.orig_filename = name  # ZipInfo would turn the separators of some systems into slashes
    info.external_attr = 0o644 << 16
    info.create_system = 3
    fixed = _LOCAL_HEAD + len(name.encode("utf-8")) + (_ZIP64_EXTRA if size >= _ZIP64_FROM else 0)
    padding = -(offset + fixed + _EXTRA_HEAD) % ALIGN
    info.extra = _PADDING_ID.to_bytes(2, "little") + padding.to_bytes(2, "little") + bytes(padding)
    return info


@dataclass(frozen=True, slots=True)
class MemberSink:
    """A sink inside the archive: bytes must pass through, for their CRC-32."""

    stream: Any

    def write(self, data: Any) -> int:
        return int(self.stream.write(data))

    def copy(self, span: Span) -> None:
        scratch = memoryview(bytearray(min(_COPY_BYTES, span.length)))
        for at in range(0, span.length, _COPY_BYTES):
            piece = scratch[: min(_COPY_BYTES, span.length - at)]
            span.readinto(at, piece)
            self.stream.write(piece)

    def reserve(self, n_bytes: int) -> None:
        """The archive's sink has been told already."""

"""NPZ: a zip archive of NPY files. Source: ``numpy.savez``; zip: APPNOTE 6.3, sections 4.3 and 4.5.

Metadata and ties lie in one more member, ``__weighttools__.npy``: a uint8 array that is JSON text. Members are
stored and 64-aligned, so that a tensor, or a slice of one, is read by offset; deflated members are read whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighttools.core import budgets
from weighttools.core.findings import Finding
from weighttools.core.readers import Raw, Whole
from weighttools.core.spec import Reader, Source, Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import CorruptFileError, SpecError, UnsafeFileError, UnsupportedError
from weighttools.formats import members_check, npy_elements, npy_header
from weighttools.formats.base import Format, ReadBack, ReadOptions, Region, WriteOptions, plain, refuse_shapes
from weighttools.formats.raw import write_raw
from weighttools.io.archive import Member, first_member, members, needs
from weighttools.io.text import parse_json
from weighttools.io.zip_writer import ZipWriter, planned_bytes, zip_writer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from weighttools.core.spec import Array
    from weighttools.io.sink import Sink

SIDECAR = "__weighttools__"
_MOST_NOTES = 8


def matches(head: bytes) -> bool:
    """Whether a file begins as a zip whose first member is an NPY file."""
    name, content = first_member(head) or (b"", b"")
    return name.endswith(b".npy") or content.startswith(npy_header.MAGIC)


def matches_file(source: Source) -> bool:
    """Whether a file is a zip that holds an NPY file, be it not the first of its members."""
    return any(_is_array(member) for member in members(source).values())


def _is_array(member: Member) -> bool:
    """Whether a member is an NPY file by its name, but for what macOS puts beside files, or by its content."""
    folder = member.name.partition("/")[0]
    return (member.name.endswith(".npy") and folder != "__MACOSX") or member.head(
        len(npy_header.MAGIC)
    ) == npy_header.MAGIC


def read(source: Source, options: ReadOptions | None = None) -> TensorMap:
    """Read the directory of an archive and the header of each member.

    Raises
    ------
    CorruptFileError
        The archive or a member is damaged.
    UnsafeFileError
        A member holds Python objects (a pickle), or members overlap.
    UnsupportedError
        There are members, but none of numbers.
    """
    found = members(source)
    sidecar = found.pop(SIDECAR + ".npy", None)
    tensors: dict[str, Tensor] = {}
    skipped = []
    for name, member in found.items():
        if not _is_array(member):
            skipped.append(f"member {name!r} is no NPY array: it is left out")
            continue
        try:
            tensor = _tensor(member, options or ReadOptions())
        except UnsupportedError as error:
            if "holds no plain numbers" not in error.fact:
                raise
            skipped.append(f"member {name!r} {error.fact}: it is left out")
            continue
        key = name.removesuffix(".npy")
        if key in tensors:
            raise CorruptFileError(f"two members are the tensor {key!r}", subject=source.name, code="names-collide")
        tensors[key] = tensor
    if skipped and not tensors:
        raise UnsupportedError(f"holds no array of numbers: {skipped[0]}", subject=source.name)
    metadata, aliases = _sidecar(sidecar, tensors) if sidecar else ({}, {})
    return TensorMap(tensors, metadata, aliases, Origin(source.name, "npz", (source.name,), _few(skipped)))


def _few(notes: list[str]) -> tuple[str, ...]:
    """Return the first notes, and how many more there are."""
    more = [f"… and {len(notes) - _MOST_NOTES:,} more members are left out"] if len(notes) > _MOST_NOTES else []
    return tuple(notes[:_MOST_NOTES] + more)


def _tensor(member: Member, options: ReadOptions) -> Tensor:
    subject = f"{member.span.source.name}: {member.name}"
    header = npy_header.parse_header(member.head, subject)
    spec, order, length = npy_header.layout(header, subject, member.size - header.length, options.assume)
    if member.deflated:
        spec = Spec(spec.dtype, spec.shape, "deflate" if spec.encoding == "raw" else spec.encoding)
        elements: Reader = Whole(_Inflate(member, header.length, length, spec, order), spec.n_elements)
        return npy_elements.tensor_of(spec, elements, member.span)
    span = member.span.part(header.length, length)
    needs(member, length)
    return npy_elements.tensor_of(spec, Raw(span, npy_header.stored_type(spec.dtype), order), span)


@dataclass(frozen=True, slots=True)
class _Inflate:
    """Loads a deflated member's elements."""

    member: Member
    offset: int
    length: int
    spec: Spec
    order: str

    def __call__(self) -> Array:
        import numpy as np

        data = np.frombuffer(self.member.content(), np.uint8)[self.offset : self.offset + self.length]
        values = data.view(npy_header.stored_type(self.spec.dtype).numpy)
        return values if self.order == "<" else values.byteswap(inplace=True)


def _sidecar(member: Member, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, str]]:
    subject = f"{member.span.source.name}: {member.name}"
    if member.deflated and member.size > budgets.SIDECAR_BYTES:
        raise UnsafeFileError(
            f"would inflate to {member.size:,} bytes",
            subject=subject,
            expected=f"at most {budgets.SIDECAR_BYTES:,}",
            code="inflates-without-measure",
        )
    header = npy_header.parse_header(member.head, subject)
    record = parse_json(bytes(member.content()[header.length :]), subject)
    metadata, aliases = record.get("metadata", {}), record.get("aliases", {})
    if not isinstance(metadata, dict) or not isinstance(aliases, dict):
        raise CorruptFileError("does not hold metadata and aliases as objects", subject=subject)
    for alias, kept in aliases.items():
        if not isinstance(kept, str) or kept not in tensors or alias in tensors:
            raise CorruptFileError(f"ties {alias!r} to {kept!r}, which does not fit the tensors", subject=subject)
    return metadata, aliases


def losses(tensor_map: TensorMap) -> list[str]:
    """Raise where NPZ cannot hold the map; it loses nothing.

    Raises
    ------
    SpecError
        A name that a zip directory cannot hold, or that is taken; a shape that NumPy has not.
    """
    refuse_shapes(tensor_map, "NPZ", npy_header.MAX_AXES)
    for name in tensor_map:
        try:
            encoded = name.encode("utf-8")
        except UnicodeEncodeError:
            encoded = b"\0"
        if name == SIDECAR or b"\0" in encoded or len(encoded) > 65_000:
            raise SpecError(f"NPZ cannot hold a tensor called {name[:80]!r}", remedy="rename it", code="cannot-hold")
    return []


def write(tensor_map: TensorMap, sink: Sink, options: WriteOptions | None = None) -> None:
    """Write a map; the same tensors in the same order and the same metadata give the same bytes."""
    losses(tensor_map)
    sink.reserve(
        sum(planned_bytes(name, npy_header.data_bytes(t.spec) + npy_header.ALIGN) for name, t in tensor_map.items())
    )
    with zip_writer(sink) as archive:
        for name, tensor in _with_sidecar(tensor_map):
            _write_member(archive, name, tensor, options or WriteOptions())


def _with_sidecar(tensor_map: TensorMap) -> Iterator[tuple[str, Tensor]]:
    yield from tensor_map.items()
    if tensor_map.metadata or tensor_map.aliases:
        import numpy as np

        record = {
            "schema": "weighttools.npz/1",
            "metadata": plain(tensor_map.metadata),
            "aliases": dict(tensor_map.aliases),
        }
        text = _utf8(json.dumps(record, ensure_ascii=False, sort_keys=True))
        yield from TensorMap.from_arrays({SIDECAR: np.frombuffer(text, np.uint8)}).items()


def _utf8(text: str) -> bytes:
    """Return JSON text as UTF-8; half of a surrogate pair (bytes of a source that were no text) is written escaped."""
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text).encode("utf-8")


def _write_member(archive: ZipWriter, name: str, tensor: Tensor, options: WriteOptions) -> None:
    header = npy_header.encode_header(tensor.spec)
    with archive.member(f"{name}.npy", len(header) + npy_header.data_bytes(tensor.spec)) as sink:
        sink.write(header)
        write_raw([npy_elements.byte_wide(tensor)], sink, options)


def check(source: Source) -> Iterator[Finding]:
    """Yield bytes around the archive, what loading a member with ``allow_pickle=True`` could run, any other pickle."""
    from weighttools.formats.pickles.scan import of_archive

    yield from members_check.surroundings(source)
    yield from of_archive(source)


def regions(source: Source) -> list[Region]:
    """Return the parts of the archive."""
    from weighttools.io.archive_places import archive_places

    return [Region(*place) for place in archive_places(source)]


def read_back(path: Path, tensor_map: TensorMap) -> AbstractContextManager[ReadBack]:
    """Open what was written with the reference reader."""
    from weighttools.formats.numpy.readback import read_archive as opened

    return opened(path, tensor_map)


FORMAT = Format(
    matches=matches, read=read, write=write, losses=losses, check=check, read_back=read_back, regions=regions
)

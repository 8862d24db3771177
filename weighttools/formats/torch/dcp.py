"""Directories of torch.distributed.checkpoint: ``.metadata``, a pickle, and ``__<rank>_<n>.distcp`` files.

Source: ``torch/distributed/checkpoint/metadata.py`` and ``filesystem.py``. The metadata says of each tensor its
dtype, size and chunks (offsets and sizes), and of each chunk the file, offset and length where it lies: a whole zip
as `torch.save` writes it, of one tensor, or of one view of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from weighttools.core import budgets, plan
from weighttools.core.dtypes import DTYPES, DType
from weighttools.core.readers import joined
from weighttools.core.spec import Reader, Source, Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import CorruptFileError, UnsafeFileError, UnsupportedError
from weighttools.formats.base import ReadOptions
from weighttools.formats.left_out import LeftOut
from weighttools.formats.pickles.machine import Machine
from weighttools.formats.pickles.objects import Global, Made, entries, plain
from weighttools.formats.pickles.stream import Stream
from weighttools.formats.torch import format as pytorch
from weighttools.formats.torch.state import METADATA
from weighttools.formats.torch.tensors import TORCH_DTYPES
from weighttools.io.beside import inside
from weighttools.io.source import Bytes, LocalFile

if TYPE_CHECKING:
    from weighttools.core.spec import Array

NAME = "dcp"
_FILE = ".metadata"


class Chunk(NamedTuple):
    """A box of a tensor: where it begins on each axis, and how long it is."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


class ChunkPlace(NamedTuple):
    """Where a chunk lies."""

    file: str
    offset: int
    length: int


def read(directory: Path, options: ReadOptions | None = None) -> TensorMap:
    """Read the metadata of a directory and the header of each chunk.

    Raises
    ------
    CorruptFileError
        The metadata is damaged, chunks do not cover a tensor, or a chunk is not where it should be.
    UnsafeFileError
        A chunk's file would leave the directory.
    """
    source = LocalFile(directory / _FILE)
    if source.size > budgets.METADATA_BYTES:
        raise CorruptFileError(f"is {source.size:,} bytes long", subject=source.name)
    machine = Machine(Stream(source))
    fields = _fields(machine.load())
    places = _places(fields.get("storage_data"), source.name)
    files = Files(directory)
    tensors: dict[str, Tensor] = {}
    left_out = LeftOut()
    for name, held in entries(fields.get("state_dict_metadata")) or []:
        if type(name) is not str or "size" not in (described := _fields(held)):
            left_out.add("an entry that is no tensor", name if type(name) is str else "an entry without a name")
            continue
        tensors[name] = _tensor(name, described, places, files, source.name)
    opened = files.opened.values()
    _refuse_repetition(tensors, source.size + sum(file.size for file in opened), source.name)
    origin = Origin(str(directory), NAME, tuple(file.name for file in opened), tuple(left_out.notes()))
    for file in opened:
        file.close()
    return TensorMap(tensors, METADATA, origin=origin)


def _fields(value: Any) -> dict[str, Any]:
    """Return the attributes of what would have been a dataclass."""
    found = entries(value.state) if type(value) is Made else None
    return {key: held for key, held in found or [] if type(key) is str}


def _places(value: Any, subject: str) -> dict[tuple[str, tuple[int, ...] | None], ChunkPlace]:
    """Return where each chunk lies, by tensor and offsets."""
    found = {}
    for key, held in entries(value) or []:
        index, info = _fields(key), _fields(held)
        name, offsets = index.get("fqn"), _lengths(index.get("offset"))
        place = ChunkPlace(info.get("relative_path", ""), info.get("offset", -1), info.get("length", -1))
        if type(name) is not str or type(place.file) is not str or not _are_counts(place[1:]):
            raise CorruptFileError("does not say where its chunks lie as torch writes it", subject=subject)
        if info.get("transform_descriptors"):
            raise UnsupportedError("its chunks are compressed or otherwise transformed", subject=subject)
        found[name, offsets] = place
    return found


def _lengths(value: Any) -> tuple[int, ...] | None:
    listed = plain(value)
    return tuple(listed) if type(listed) in (tuple, list) and len(listed) <= 64 and _are_counts(listed) else None


def _are_counts(values: Iterable[Any]) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _tensor(
    name: str,
    described: dict[str, Any],
    places: dict[tuple[str, tuple[int, ...] | None], ChunkPlace],
    files: Files,
    subject: str,
) -> Tensor:
    shape = _lengths(described["size"])
    chunks = [_chunk(part) for part in described.get("chunks") or []]
    dtype = _dtype(described.get("properties"))
    if shape is None or dtype not in TORCH_DTYPES or TORCH_DTYPES[dtype] not in DTYPES:
        raise UnsupportedError(f"tensor {name[:200]!r} has the dtype {dtype}", subject=subject)
    spec = Spec(DTYPES[TORCH_DTYPES[dtype]], shape)
    parts = []
    for chunk in chunks:
        place = places.get((name, chunk.offsets)) if chunk else None
        if chunk is None or place is None:
            raise CorruptFileError(f"does not say where the chunks of {name[:200]!r} lie", subject=subject)
        part = files.chunk(place)
        if part.shape != chunk.sizes or part.dtype != spec.dtype:
            raise CorruptFileError(
                f"a chunk of {name[:200]!r} is {part.dtype} {list(part.shape)}", subject=place.file,
                expected=f"{spec.dtype} {list(chunk.sizes)}",
            )  # fmt: skip
        parts.append((chunk, part))
    return _joined(name, spec, parts, subject)


def _chunk(value: Any) -> Chunk | None:
    fields = _fields(value)
    offsets, sizes = _lengths(fields.get("offsets")), _lengths(fields.get("sizes"))
    return Chunk(offsets, sizes) if offsets is not None and sizes is not None and len(offsets) == len(sizes) else None


def _dtype(properties: Any) -> str:
    """Return torch's name of the dtype: the first of the state that ``TensorProperties`` would have been given."""
    state = properties.state if type(properties) is Made else None
    first = state[0] if type(state) is tuple and state else _fields(properties).get("dtype")
    return first.name if type(first) is Global and first.module == "torch" else "unknown"


class Files:
    """The files of a directory and the chunks in them, each opened once.

    Attributes
    ----------
    opened
        The files, by the names that the metadata give them.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.opened: dict[str, LocalFile] = {}
        self._chunks: dict[ChunkPlace, Tensor] = {}

    def chunk(self, place: ChunkPlace) -> Tensor:
        """Return the tensor that lies at a place, whoever else names it."""
        if place not in self._chunks:
            self._chunks[place] = _read_chunk(self._file(place.file), place)
        return self._chunks[place]

    def _file(self, name: str) -> LocalFile:
        if name not in self.opened:
            self.opened[name] = inside(self._directory, name, self._directory / _FILE)
        return self.opened[name]


def _refuse_repetition(tensors: Mapping[str, Tensor], n_held: int, subject: str) -> None:
    """Refuse metadata that name the same chunks for ever more tensors."""
    shown = sum(tensor.spec.nbytes for tensor in tensors.values())
    if shown > budgets.views(n_held):
        raise UnsafeFileError(
            f"its tensors show {shown:,} bytes of files that hold {n_held:,}",
            subject=subject,
            expected=f"at most {budgets.VIEWS_TIMES} for each, and {budgets.VIEWS_FREE:,}",
        )


def _read_chunk(file: LocalFile, place: ChunkPlace) -> Tensor:
    """Read the header of the zip that holds a chunk."""
    if place.offset + place.length > file.size:
        raise CorruptFileError(
            f"truncated: {place.offset + place.length - file.size:,} bytes are missing",
            subject=file.name, offset=file.size, remedy="fetch the file again",
            code="truncated",
        )  # fmt: skip
    found = pytorch.read(SourceWindow(file, place.offset, place.length), ReadOptions(root="."))
    if len(found) != 1:
        raise CorruptFileError(f"holds {len(found)} tensors where one chunk should be", subject=file.name)
    return next(iter(found.values()))


@dataclass(frozen=True, slots=True)
class SourceWindow:
    """A part of a source, as a source."""

    source: Source
    start: int
    size: int

    @property
    def name(self) -> str:
        """The name of the whole."""
        return self.source.name

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset` of the part."""
        self._check(offset, length)
        return self.source.read(self.start + offset, length)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset` of the part."""
        self._check(offset, buffer.nbytes)
        self.source.readinto(self.start + offset, buffer)

    def _check(self, offset: int, length: int) -> None:
        if offset + length > self.size:
            raise CorruptFileError("a chunk reaches past its end", subject=self.name, offset=self.start + offset)


def _joined(name: str, spec: Spec, parts: list[tuple[Chunk, Tensor]], subject: str) -> Tensor:
    """Return the tensor of chunks that tile it without a gap."""
    fit = all(_inside(chunk, spec.shape) for chunk, _ in parts)
    covered = sum(part.n_elements for _, part in parts)
    if not fit or covered != spec.n_elements or _overlap([chunk for chunk, _ in parts]):
        raise CorruptFileError(
            f"the chunks of {name[:200]!r} cover {covered:,} of its {spec.n_elements:,} elements, each once",
            subject=subject, expected="chunks that tile it",
        )  # fmt: skip
    if len(parts) == 1:
        return parts[0][1]
    if not spec.n_elements:
        return Tensor(spec, None, Span(Bytes(b"", subject), 0, 0))
    rows = sorted(((chunk, part) for chunk, part in parts if part.n_elements), key=lambda pair: pair[0].offsets)
    reader: Reader
    if all(chunk.sizes[1:] == spec.shape[1:] for chunk, _ in rows):
        reader = joined((part.reader, part.n_elements) for _, part in rows)
    else:
        reader = Tiled(tuple((chunk, part.reader) for chunk, part in rows), spec.shape, spec.dtype)
    return Tensor(Spec(spec.dtype, spec.shape, "chunked"), reader)


def _inside(chunk: Chunk, shape: tuple[int, ...]) -> bool:
    if len(chunk.offsets) != len(shape):
        return False
    return all(o + n <= length for o, n, length in zip(chunk.offsets, chunk.sizes, shape, strict=True))


def _overlap(chunks: list[Chunk]) -> bool:
    """Whether two boxes share an element: each is held, all at once, against those that begin before it ends."""
    import numpy as np

    boxes = [chunk for chunk in chunks if math.prod(chunk.sizes)]
    if len(boxes) < 2 or not boxes[0].sizes:
        return len(boxes) > 1
    begins = np.array([box.offsets for box in boxes], np.int64)
    ends = begins + np.array([box.sizes for box in boxes], np.int64)
    axis = max(range(begins.shape[1]), key=lambda axis: len(np.unique(begins[:, axis])))
    order = np.argsort(begins[:, axis], kind="stable")
    begins, ends = begins[order], ends[order]
    after = np.searchsorted(begins[:, axis], ends[:, axis])
    for i, last in enumerate(after):
        others = slice(i + 1, last)
        if ((begins[others] < ends[i]) & (begins[i] < ends[others])).all(axis=1).any():
            return True
    return False


@dataclass(frozen=True, slots=True)
class Tiled:
    """Reads a tensor of boxes that tile it: what of each box lies in a run of elements is one run of the box."""

    boxes: tuple[tuple[Chunk, Reader], ...]
    shape: tuple[int, ...]
    dtype: DType

    @property
    def granularity(self) -> int:
        return 1

    def __call__(self, start: int, stop: int) -> Array:
        import numpy as np

        out = np.empty(stop - start, self.dtype.numpy)
        begins = np.array([chunk.offsets for chunk, _ in self.boxes], np.int64)
        ends = begins + np.array([chunk.sizes for chunk, _ in self.boxes], np.int64)
        done = 0
        for at, lengths in plan.boxes(start, stop, self.shape):
            n = math.prod(lengths)
            region = out[done : done + n].reshape(lengths)
            meet = ((begins < np.add(at, lengths)) & (ends > np.array(at))).all(axis=1)
            for number in np.flatnonzero(meet):
                self._fill(region, at, *self.boxes[number])
            done += n
        return out

    def _fill(self, region: Array, at: tuple[int, ...], chunk: Chunk, reader: Reader) -> None:
        """Put what a box has of a region that begins at `at` into it.

        A region is one index of each of the first axes, some of the next, and all of the others; so its part of a box
        lies there in one run.
        """
        from weighttools.core.readers import aligned_read

        first = [max(0, a - o) for a, o in zip(at, chunk.offsets, strict=True)]
        last = [
            min(n, a + length - o) for a, length, o, n in zip(at, region.shape, chunk.offsets, chunk.sizes, strict=True)
        ]
        lengths = [b - a for a, b in zip(first, last, strict=True)]
        begin = 0
        for index, n in zip(first, chunk.sizes, strict=True):
            begin = begin * n + index
        values = aligned_read(reader, begin, begin + math.prod(lengths), math.prod(chunk.sizes))
        places = (o + f - a for o, f, a in zip(chunk.offsets, first, at, strict=True))
        region[tuple(slice(p, p + n) for p, n in zip(places, lengths, strict=True))] = values.reshape(lengths)

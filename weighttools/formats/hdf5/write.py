"""Writing HDF5: h5py lays out the structure in memory, then structure and values go to the sink in one pass.

Data sets are contiguous and allocated when they are made, so that their offsets are known before a value moves; values
are then copied or decoded block by block, as for any raw format. With compression, chunks are compressed here, in
threads, and h5py writes them as they come. The format is HDF5 1.8's, without time stamps: the same map gives the
same bytes. Keras loads the file if the map came from one of its own (see `keras_layout`).
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighttools.core.engine import run, threads
from weighttools.core.spec import Span, Spec
from weighttools.core.tensor import BLOCK_ELEMENTS, Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, UnsupportedError
from weighttools.formats import npy_elements, npy_header
from weighttools.formats.base import WriteOptions
from weighttools.formats.hdf5 import keras_layout
from weighttools.formats.hdf5 import names as hdf5_names
from weighttools.formats.hdf5.filters import shuffled
from weighttools.formats.hdf5.tensors import needed_bytes
from weighttools.formats.raw import raw_block, write_raw
from weighttools.io.source import Bytes

if TYPE_CHECKING:
    from weighttools.core.spec import Array
    from weighttools.io.sink import FileSink, Sink

PAGE = 4096
ALIGN = 64
CHUNK_BYTES = 1 << 20
GZIP_LEVEL = 4
_LEAST_CHUNKED = 4096
_GAP = 1 << 20
COMPRESSIONS = ("gzip",)


def write(tensor_map: TensorMap, sink: Sink, options: WriteOptions | None = None) -> None:
    """Write a map; a name is a path, `/` makes groups.

    Raises
    ------
    SpecError
        The compression is unknown.
    UnsupportedError
        Compressed output to a pipe.
    """
    chosen = options or WriteOptions()
    if chosen.compression is None:
        _write_contiguous(tensor_map, sink, chosen)
    elif chosen.compression in COMPRESSIONS:
        _write_compressed(tensor_map, sink, chosen)
    else:
        raise SpecError(f"HDF5 knows no compression {chosen.compression!r}", expected=" or ".join(COMPRESSIONS))


class Skeleton(io.RawIOBase):
    """A file in memory of which only the pages that were written exist: the structure around values to come."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[int, bytearray] = {}
        self.size = 0
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start, stop, page, at in self._pieces(self._at, view.nbytes):
            self.pages.setdefault(page, bytearray(PAGE))[at : at + stop - start] = view[start:stop]
        self._at += view.nbytes
        self.size = max(self.size, self._at)
        return view.nbytes

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n = max(0, min(view.nbytes, self.size - self._at))
        view[:n] = self.read_at(self._at, n)
        self._at += n
        return n

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes, zeros where nothing was written."""
        parts = [
            self.pages[page][at : at + stop - start] if page in self.pages else bytes(stop - start)
            for start, stop, page, at in self._pieces(offset, length)
        ]
        return b"".join(parts)

    def truncate(self, size: int | None = None) -> int:
        self.size = self._at if size is None else size
        return self.size

    def flush(self) -> None:
        """Nothing waits."""

    @staticmethod
    def _pieces(offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Cut a run of bytes at page boundaries: start and stop within the run, page, position in the page."""
        done = 0
        while done < length:
            page, at = divmod(offset + done, PAGE)
            n = min(PAGE - at, length - done)
            yield done, done + n, page, at
            done += n


def _write_contiguous(tensor_map: TensorMap, sink: Sink, options: WriteOptions) -> None:
    skeleton = Skeleton()
    with _created(skeleton, tensor_map) as file:
        made = {name: file.contiguous(path, tensor_map[name]) for name, path in file.stored.items()}
        file.finish()
        offsets = {name: dataset.get_offset() for name, dataset in made.items()}
        del made
    sink.reserve(skeleton.size)
    write_raw(_laid_out(tensor_map, offsets, skeleton), sink, options)


def _laid_out(tensor_map: TensorMap, offsets: Mapping[str, int | None], skeleton: Skeleton) -> Iterator[Tensor]:
    """Yield structure and values as they lie in the file, front to back."""
    at = 0
    placed = sorted((offset, name) for name, offset in offsets.items() if offset is not None)
    for offset, name in placed:
        yield from _structure(skeleton, at, offset)
        tensor = npy_elements.byte_wide(tensor_map[name])
        yield tensor
        at = offset + needed_bytes(tensor.spec)
    yield from _structure(skeleton, at, skeleton.size)


def _structure(skeleton: Skeleton, start: int, stop: int) -> Iterator[Tensor]:
    from weighttools.core.dtypes import DTYPES

    for at in range(start, stop, _GAP):
        data = Bytes(skeleton.read_at(at, min(_GAP, stop - at)))
        yield Tensor(Spec(DTYPES["uint8"], (data.size,)), None, Span(data, 0, data.size))


# -- the structure ------------------------------------------------------------------------------------------------


class _created:  # noqa: N801 - a context manager, used as a function
    """An HDF5 file being made on a file object: paths, data sets, ties, attributes.

    Parameters
    ----------
    target
        A file object.
    tensor_map
        What it is to hold.
    """

    def __init__(self, target: Any, tensor_map: TensorMap) -> None:
        import h5py

        self.h5, self.target, self.tensor_map = h5py, target, tensor_map
        self.paths = hdf5_names.paths(tensor_map)
        self.stored = {name: self.paths[name] for name in tensor_map}

    def __enter__(self) -> _created:
        h5 = self.h5
        self.file = h5.File(
            self.target, "w", libver=("earliest", "v108"), alignment_threshold=PAGE // 4, alignment_interval=ALIGN
        )
        self.links = h5.h5p.create(h5.h5p.LINK_CREATE)
        self.links.set_create_intermediate_group(True)
        self.links.set_char_encoding(h5.h5t.CSET_UTF8)
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def contiguous(self, path: str, tensor: Tensor) -> Any:
        """Make a data set whose place is known at once, and whose values nobody fills in."""
        h5 = self.h5
        plist = self._plist()
        plist.set_layout(h5.h5d.CONTIGUOUS)
        plist.set_alloc_time(h5.h5d.ALLOC_TIME_EARLY)
        return self._make(path, tensor, plist)

    def chunked(self, path: str, tensor: Tensor, chunk: Sequence[int]) -> Any:
        """Make a data set of shuffled and deflated chunks."""
        plist = self._plist()
        plist.set_chunk(tuple(chunk))
        plist.set_shuffle()
        plist.set_deflate(GZIP_LEVEL)
        return self._make(path, tensor, plist)

    def _plist(self) -> Any:
        plist = self.h5.h5p.create(self.h5.h5p.DATASET_CREATE)
        plist.set_fill_time(self.h5.h5d.FILL_TIME_NEVER)
        plist.set_obj_track_times(False)
        return plist

    def _make(self, path: str, tensor: Tensor, plist: Any) -> Any:
        h5, dtype = self.h5, tensor.dtype
        space = h5.h5s.create_simple(tensor.shape) if tensor.shape else h5.h5s.create(h5.h5s.SCALAR)
        named = dtype.name not in npy_header.CODES
        kind = h5.h5t.py_create(f"V{-(-dtype.bits // 8)}" if named else npy_header.CODES[dtype.name], logical=True)
        made = h5.h5d.create(self.file.id, path.encode(), kind, space, plist, lcpl=self.links)
        if named:
            self._attribute(h5.Dataset(made), "dtype", dtype.name)
        return made

    def _attribute(self, thing: Any, name: str, value: Any) -> None:
        import numpy as np

        if isinstance(value, str):
            thing.attrs.create(name, value, dtype=self.h5.string_dtype("utf-8"))
        else:
            thing.attrs[name] = np.array(value)

    def finish(self) -> None:
        """Add ties, groups and attributes."""
        for alias, kept in sorted(self.tensor_map.aliases.items()):
            links, new = self.file.id.links, self.paths[alias].encode()
            links.create_hard(new, self.file.id, self.paths[kept].encode(), lcpl=self.links)
        structure = keras_layout.attributes(self.tensor_map)
        for path, attributes in structure.items():
            self._group(path, attributes)
        structural = {keras_layout.LAYERS, keras_layout.WEIGHTS, keras_layout.NAMES} if structure else set()
        for key, value in sorted(self.tensor_map.metadata.items()):
            if hdf5_names.is_plain_attribute(key, value) and key not in structural:
                self._attribute(self.file, key, value)
        met = [] if structure else sorted(self.stored.values(), key=hdf5_names.met)  # Keras's order is its own
        record = hdf5_names.sidecar(self._unstructured(structural), self.paths, met)
        if record is not None:
            self._attribute(self.file, hdf5_names.SIDECAR, record)

    def _unstructured(self, structural: set[str]) -> TensorMap:
        metadata = {k: v for k, v in self.tensor_map.metadata.items() if k not in structural}
        return self.tensor_map.replace(metadata=metadata)

    def _group(self, path: str, attributes: Mapping[str, Any]) -> None:
        group = self.file.require_group(path) if path else self.file
        for name, value in attributes.items():
            self._attribute(group, name, value)


# -- compression ------------------------------------------------------------------------------------------------------


class _Target(io.RawIOBase):
    """A sink as the file object that h5py writes to; it keeps the first error, which h5py would not pass on."""

    def __init__(self, sink: FileSink) -> None:
        super().__init__()
        self.sink = sink
        self.error: BaseException | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self.error is None:
            try:
                self.sink.write(view)
            except BaseException as error:
                self.error = error
        return view.nbytes

    def readinto(self, buffer: Any) -> int:
        return self.sink.readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.sink.seek(offset, whence)

    def tell(self) -> int:
        return self.sink.tell()

    def truncate(self, size: int | None = None) -> int:
        return self.sink.truncate(size)

    def flush(self) -> None:
        """The sink brings everything to the disk at its end."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A run of elements that one chunk holds: its first index, and how to read it."""

    origin: tuple[int, ...]
    values: Array
    n_elements: int


def _write_compressed(tensor_map: TensorMap, sink: Sink, options: WriteOptions) -> None:
    from weighttools.io.sink import FileSink

    if not isinstance(sink, FileSink) or not sink.seekable():
        raise UnsupportedError("compressed HDF5 is not written front to back", remedy="name a file, not a pipe")
    target = _Target(sink)
    with _created(target, tensor_map) as file, threads(options.threads) as pool:
        for name, path in file.stored.items():
            tensor = npy_elements.byte_wide(tensor_map[name])
            side = chunk_shape(tensor.spec)
            if side is None:
                _write_small(file.contiguous(path, tensor_map[name]), tensor, sink)
                continue
            dataset = file.chunked(path, tensor_map[name], side)
            for origin, data in run(_deflated, _parts(tensor, side), pool, window=4):
                dataset.write_direct_chunk(origin, data)
            if target.error is not None:
                break
        file.finish()
    if target.error is not None:
        raise target.error


def chunk_shape(spec: Spec) -> tuple[int, ...] | None:
    """Return chunks of at most about 1 MiB that are runs in C order, or None for a tensor too small for any.

    >>> from weighttools.core.dtypes import dtype
    >>> chunk_shape(Spec(dtype("float32"), (4096, 1024)))
    (256, 1024)
    """
    if needed_bytes(spec) < _LEAST_CHUNKED:
        return None
    most = CHUNK_BYTES * 8 // max(8, spec.dtype.bits)
    axis, inner = len(spec.shape) - 1, 1
    while axis > 0 and inner * spec.shape[axis] <= most:
        inner *= spec.shape[axis]
        axis -= 1
    return (*(1,) * axis, max(1, min(spec.shape[axis], most // inner)), *spec.shape[axis + 1 :])


def _parts(tensor: Tensor, side: Sequence[int]) -> Iterator[_Part]:
    """Yield the chunks' elements in C order, reading each run of the tensor once."""
    axis = next((a for a, n in enumerate(side) if n != 1), len(side) - 1)
    inner = math.prod(tensor.shape[axis + 1 :])
    length, step = tensor.shape[axis], side[axis]
    pieces = _Pieces(tensor)
    for lead in range(math.prod(tensor.shape[:axis])):
        origin = _index(lead, tensor.shape[:axis])
        for start in range(0, length, step):
            values = pieces.take((min(length, start + step) - start) * inner)
            yield _Part((*origin, start, *(0,) * (len(side) - axis - 1)), values, step * inner)


def _index(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    found = []
    for length in reversed(shape):
        flat, at = divmod(flat, length)
        found.append(at)
    return tuple(reversed(found))


class _Pieces:
    """A tensor's elements in runs of any length, read in blocks of its own granularity."""

    def __init__(self, tensor: Tensor) -> None:
        import numpy as np

        self._blocks = tensor.blocks(BLOCK_ELEMENTS)
        self._rest: Array = np.empty(0, tensor.dtype.numpy)

    def take(self, n: int) -> Array:
        import numpy as np

        parts: list[Array] = [self._rest]
        have = self._rest.size
        while have < n:
            parts.append(next(self._blocks))
            have += parts[-1].size
        whole = np.concatenate(parts) if len(parts) > 1 else self._rest
        self._rest = whole[n:]
        return whole[:n]


def _deflated(part: _Part) -> tuple[tuple[int, ...], bytes]:
    """Pad an edge chunk with zeros, shuffle, deflate; the byte order is little-endian."""
    import sys
    import zlib

    import numpy as np

    values = part.values if sys.byteorder == "little" else part.values.byteswap()
    if values.size < part.n_elements:
        whole = np.zeros(part.n_elements, values.dtype)
        whole[: values.size] = values
        values = whole
    return part.origin, zlib.compress(shuffled(values), GZIP_LEVEL)


def _write_small(dataset: Any, tensor: Tensor, sink: FileSink) -> None:
    offset = dataset.get_offset()
    if offset is not None and tensor.n_elements:
        sink.seek(offset)
        sink.write(raw_block((tensor, 0, tensor.n_elements)))

"""NPY: one array, or several one after the other.

Source: NumPy's ``numpy/lib/_format_impl.py``, "Format Version 1.0" to "3.0"; Equinox's ``_serialisation.py``.

What a header says stands in `npy_header`, and how elements lie in `npy_elements`. Python objects are pickles: only the
arrays in them are read, as data.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from weighttools.core.findings import Finding
from weighttools.core.readers import Raw
from weighttools.core.spec import Source, Span
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import SpecError, UnsafeFileError, UnsupportedError
from weighttools.formats import trailing
from weighttools.formats.base import Format, ReadBack, ReadOptions, Region, WriteOptions, refuse_shapes
from weighttools.formats.npy_elements import byte_wide, tensor_of
from weighttools.formats.npy_header import (
    MAGIC,
    MAX_AXES,
    NpyHeader,
    data_bytes,
    encode_header,
    holds_objects,
    layout,
    parse_header,
    stored_type,
)
from weighttools.formats.raw import write_raw

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from weighttools.io.sink import Sink


def matches(head: bytes) -> bool:
    """Whether a file begins with NPY's magic."""
    return head.startswith(MAGIC)


def read(source: Source, options: ReadOptions | None = None) -> TensorMap:
    """Read the header of an NPY file; its one tensor is named after the file.

    Several arrays one after the other, as repeated `numpy.save` to one file and Equinox's
    ``tree_serialise_leaves`` write them, are named by their numbers: ``0``, ``1``, …

    An array of objects is a pickle: the arrays in it are read as data, under the names of what holds them.
    """
    header = parse_header(lambda n: source.read(0, min(n, source.size)), source.name)
    assume = options.assume if options else None
    if header.descr == "|O" and source.read(header.length, min(1, source.size - header.length)) == b"\x80":
        from weighttools.formats.numpy.objects import read_objects

        return read_objects(source, header.length, options.root if options else None)
    tensors, end = _stream(source, header, assume)
    if len(tensors) == 1 and not source.name.lower().endswith(".eqx"):
        name = os.path.splitext(os.path.basename(source.name))[0] if source.name != "-" else "array"
        tensors = {name: tensors["0"]}
    extra = source.size - end
    notes = (f"{extra:,} bytes follow the array{'s' if len(tensors) > 1 else ''} and are not read",) if extra else ()
    return TensorMap(tensors, origin=Origin(source.name, "npy", (source.name,), notes))


def _stream(source: Source, header: NpyHeader, assume: str | None = None) -> tuple[dict[str, Tensor], int]:
    """Return the arrays that follow one another in a file, by their numbers, and where the last one ends."""
    tensors: dict[str, Tensor] = {}
    end = 0
    while True:
        spec, order, length = layout(header, source.name, source.size - end - header.length, assume)
        span = Span(source, end + header.length, length)
        tensors[str(len(tensors))] = tensor_of(spec, Raw(span, stored_type(spec.dtype), order), span)
        end += header.length + length
        if source.read(end, min(len(MAGIC), source.size - end)) != MAGIC:
            return tensors, end
        header = parse_header(partial(_head, source, end), source.name)


def _head(source: Source, offset: int, n_bytes: int) -> bytes:
    return source.read(offset, min(n_bytes, source.size - offset))


def losses(tensor_map: TensorMap) -> list[str]:
    """Return what NPY cannot hold; raise unless there is exactly one tensor.

    Raises
    ------
    SpecError
        There are none or several tensors, or it is one of a shape that NumPy has not.
    """
    if len(tensor_map) != 1:
        raise SpecError(
            f"an NPY file holds one array, not {len(tensor_map):,}",
            remedy="choose one with -i, or write .npz",
            code="cannot-hold",
        )
    refuse_shapes(tensor_map, "NPY", MAX_AXES)
    lost = [("metadata", tensor_map.metadata), ("tied names", tensor_map.aliases)]
    return [f"NPY holds no {what}: {', '.join(names)} will be lost" for what, names in lost if names]


def write(tensor_map: TensorMap, sink: Sink, options: WriteOptions | None = None) -> None:
    """Write the one tensor of a map; its name becomes the file's."""
    losses(tensor_map)
    tensor = next(iter(tensor_map.values()))
    header = encode_header(tensor.spec)
    sink.reserve(len(header) + data_bytes(tensor.spec))
    sink.write(header)
    write_raw([byte_wide(tensor)], sink, options or WriteOptions())


def check(source: Source) -> Iterator[Finding]:
    """Yield what loading the file with ``allow_pickle=True`` could run, for Python objects; bytes behind its arrays."""
    header = parse_header(partial(_head, source, 0), source.name)
    if holds_objects(header):
        from weighttools.formats.pickles.scan import of_npy

        yield from of_npy(source)
        return
    with contextlib.suppress(SpecError, UnsupportedError):  # said where it is read
        tensors, end = _stream(source, header)
        yield from trailing.behind(
            source, end, f"the last of {len(tensors):,} arrays" if len(tensors) > 1 else "the array"
        )


def regions(source: Source) -> Iterator[Region]:
    """Yield where the headers of its arrays lie; of arrays whose elements are not known, the first one's."""
    header = parse_header(partial(_head, source, 0), source.name)
    yield Region(0, header.length, "headers")
    with contextlib.suppress(SpecError, UnsupportedError, UnsafeFileError):
        end = 0
        for tensor in _stream(source, header)[0].values():
            assert tensor.stored is not None, "it lies in the file"
            yield Region(end, tensor.stored.offset - end, "headers")
            end = tensor.stored.offset + tensor.stored.length


def read_back(path: Path, tensor_map: TensorMap) -> AbstractContextManager[ReadBack]:
    """Open what was written with the reference reader."""
    from weighttools.formats.numpy.readback import read_array as opened

    return opened(path, tensor_map)


FORMAT = Format(
    matches=matches, read=read, write=write, losses=losses, check=check, read_back=read_back, regions=regions
)

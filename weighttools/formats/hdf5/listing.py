"""The program that lists an HDF5 file's structure in a child process, where a crash or an endless loop does no harm.

It is the only code that lets libhdf5 near a file that is not ours. It reads descriptors, never values (but for
compact data sets, which lie inside a descriptor), follows hard links only, and prints one JSON object.
Run as ``main`` with the file as standard input and, as arguments: offset and size of the HDF5 file within it, the
CPU seconds and the bytes of memory that it may take.
"""

from __future__ import annotations

import base64
import codecs
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from weighttools.formats.hdf5.types import Types

_KEPT = re.compile(r"(?:layer_names|weight_names)\d*|keras_version|backend")
_MARKS = frozenset(
    b"CLASS NAME TITLE VERSION FLAVOR DIMENSION_LIST DIMENSION_LABELS REFERENCE_LIST _Netcdf4Dimid".split()
)
"""Attributes of dimension scales, netCDF and PyTables, which say nothing of the values."""
_MOST_EXAMPLES = 3
_MOST_VALUES = 4096
"""A root attribute with more numbers than this is data, not metadata."""

Json = dict[str, Any]


class InputWindow(io.RawIOBase):
    """Standard input's bytes from `offset` on, `size` of them, as the file that libhdf5 sees."""

    def __init__(self, offset: int, size: int) -> None:
        super().__init__()
        self._offset, self._size, self._at = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n = max(0, min(view.nbytes, self._size - self._at))
        done = 0
        while done < n:
            data = self._pread(min(n - done, 1 << 24), self._offset + self._at + done)
            if not data:
                break
            view[done : done + len(data)] = data
            done += len(data)
        self._at += done
        return done

    @staticmethod
    def _pread(length: int, offset: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(0, length, offset)
        os.lseek(0, offset, os.SEEK_SET)
        return os.read(0, length)


def confine(cpu_seconds: float, memory_bytes: int) -> None:
    """Limit this process: CPU time, memory from here on, no file opened or written any more, no core file."""
    try:
        import resource
        import signal
    except ImportError:  # Windows: the parent's clock is the only limit
        return
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    limits = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 0, "RLIMIT_CPU": int(cpu_seconds) + 5}
    sizes = Path("/proc/self/statm")
    if sizes.exists():
        limits["RLIMIT_AS"] = int(sizes.read_bytes().split()[0]) * resource.getpagesize() + memory_bytes
    for name, limit in limits.items():
        hard = resource.getrlimit(getattr(resource, name))[1]
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(getattr(resource, name), (value, hard))


def main() -> None:
    """Print the listing of standard input as JSON, or ``{"error": why}``."""
    try:
        import h5py
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))  # noqa: T201
        return
    for codec in ("ascii", "latin-1", "utf-8"):
        codecs.lookup(codec)  # h5py needs them later, when no file can be opened any more
    offset, size, cpu_seconds, memory_bytes = sys.argv[1:5]
    confine(float(cpu_seconds), int(memory_bytes))
    try:
        with h5py.File(InputWindow(int(offset), int(size)), "r") as file:
            found = Listing(h5py).of(file)
    except MemoryError:
        found = {"error": "its structure needs more memory than a file of this size can"}
    except Exception as error:  # whatever libhdf5 makes of it is a fact about the file
        found = {"error": re.sub(r"\s+", " ", str(error)) or type(error).__name__}
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # nothing of a hostile file is torn down


def text(raw: bytes) -> str:
    """Decode a name; bytes that are not UTF-8 become lone surrogates, so that nothing is lost."""
    return raw.decode("utf-8", "surrogateescape")


def natural(name: str) -> list[Any]:
    """A sort key under which ``conv1d_2`` comes before ``conv1d_10``."""
    parts = re.split(r"([0-9]{1,18})", name)  # numbers are the odd ones
    return [(0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts)]


class Listing:
    """Walks the hard links of a file and describes what it finds."""

    def __init__(self, h5py: Any) -> None:
        self.h5, self.types = h5py, Types(h5py.h5t)
        self.seen: dict[int, str] = {}
        self.found: Json = {
            "tensors": [], "aliases": [], "soft": [], "outside": [], "left_out": [], "attributes": {}, "groups": {},
            "n_attributes": 0, "some_attributes": [],
        }  # fmt: skip

    def of(self, file: Any) -> Json:
        """Return the listing of an open file."""
        self._root_attributes(file)
        root = file.id
        self.seen[self._address(root)] = ""
        stack = [self._links(self.h5.h5g.open(root, b"/"), "")]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
                continue
            deeper = self._link(*step)
            if deeper is not None:
                stack.append(deeper)
        return self.found

    def _address(self, thing: Any) -> int:
        return int(self.h5.h5o.get_info(thing).addr)

    def _links(self, group: Any, prefix: str) -> Iterator[tuple[Any, bytes, str]]:
        """Yield the links of a group: in the order of their making where it is kept, else in natural order."""
        h5 = self.h5
        names: list[bytes] = []
        tracked = group.get_create_plist().get_link_creation_order() & h5.h5p.CRT_ORDER_INDEXED
        group.links.iterate(names.append, idx_type=h5.h5.INDEX_CRT_ORDER if tracked else h5.h5.INDEX_NAME)
        for name in names if tracked else sorted(names, key=lambda raw: natural(text(raw))):
            yield group, name, prefix + text(name)

    def _link(self, group: Any, name: bytes, path: str) -> Iterator[tuple[Any, bytes, str]] | None:
        """Describe one link, looking at its class before anything is opened; return the links of a new group."""
        kind = group.links.get_info(name).type
        if kind == self.h5.h5l.TYPE_SOFT:
            self.found["soft"].append([path, text(group.links.get_val(name))])
        elif kind == self.h5.h5l.TYPE_EXTERNAL:
            file, _ = group.links.get_val(name)
            self.found["outside"].append([path, f"a link to the file {text(file)!r}"])
        elif kind != self.h5.h5l.TYPE_HARD:
            self.found["outside"].append([path, "a user-defined link"])
        else:
            return self._object(self.h5.h5o.open(group, name), path)
        return None

    def _object(self, thing: Any, path: str) -> Iterator[tuple[Any, bytes, str]] | None:
        first = self.seen.setdefault(self._address(thing), path)
        if first != path:
            self.found["aliases"].append([path, first])
        elif isinstance(thing, self.h5.h5g.GroupID):
            self._group_attributes(thing, path)
            return self._links(thing, path + "/")
        elif isinstance(thing, self.h5.h5d.DatasetID):
            self._dataset(thing, path)
        return None

    # -- data sets ------------------------------------------------------------------------------------------------

    def _dataset(self, dataset: Any, path: str) -> None:
        plist = dataset.get_create_plist()
        layout = plist.get_layout()
        if plist.get_external_count():
            file = text(plist.get_external(0)[0])
            self.found["outside"].append([path, f"values in another file, {file!r}"])
            return
        if layout == self.h5.h5d.VIRTUAL:
            self.found["outside"].append([path, "a virtual data set, made of others"])
            return
        self._count_attributes(dataset, path, (b"dtype",))
        dtype, order, why = self.types.element(dataset.get_type())
        space = dataset.get_space()
        if why is None and space.get_simple_extent_type() == self.h5.h5s.NULL:
            why = "no value: a null data space"
        if why is not None:
            self.found["left_out"].append([path, why])
            return
        entry = {"path": path, "dtype": dtype, "order": order, "shape": list(space.shape)}
        entry["itemsize"] = dataset.get_type().get_size()
        if dtype == "opaque":
            entry["named"] = self._attribute(dataset, b"dtype")
        described = {
            self.h5.h5d.COMPACT: self._compact,
            self.h5.h5d.CONTIGUOUS: self._contiguous,
            self.h5.h5d.CHUNKED: self._chunked,
        }[layout]
        self.found["tensors"].append(entry | described(dataset, plist))

    def _compact(self, dataset: Any, plist: Any) -> Json:
        import numpy as np

        kind = dataset.get_type()
        values = np.empty(dataset.get_space().shape, np.dtype(("V", kind.get_size())))
        if values.size:
            dataset.read(self.h5.h5s.ALL, self.h5.h5s.ALL, values, mtype=kind)
        return {"layout": "compact", "data": base64.b64encode(values.tobytes()).decode("ascii")}

    def _contiguous(self, dataset: Any, plist: Any) -> Json:
        offset = dataset.get_offset()
        return {
            "layout": "contiguous",
            "offset": offset,
            "size": dataset.get_storage_size(),
            "fill": None if offset is not None else self._fill(dataset, plist),
        }

    def _chunked(self, dataset: Any, plist: Any) -> Json:
        chunks: list[list[int]] = []

        def add(info: Any) -> None:
            chunks.append([*info.chunk_offset, info.byte_offset, info.size, info.filter_mask])

        if dataset.get_num_chunks():
            dataset.chunk_iter(add)
        filters = [plist.get_filter(i) for i in range(plist.get_nfilters())]
        return {
            "layout": "chunked",
            "chunk": list(plist.get_chunk()),
            "filters": [[code, list(values), text(name)] for code, _, values, name in filters],
            "chunks": chunks,
            "fill": self._fill(dataset, plist),
        }

    def _fill(self, dataset: Any, plist: Any) -> str:
        """The value of elements that were never written, as the file would store it, in hexadecimal."""
        import numpy as np

        size = dataset.get_type().get_size()
        if plist.fill_value_defined() != self.h5.h5d.FILL_VALUE_USER_DEFINED:
            return bytes(size).hex()
        value = np.zeros((), dataset.dtype)
        plist.get_fill_value(value)
        return value.tobytes().hex()

    # -- attributes -------------------------------------------------------------------------------------------------

    def _root_attributes(self, file: Any) -> None:
        names: list[bytes] = []
        self.h5.h5a.iterate(file.id, names.append)
        for name in names:
            value = self._attribute(file.id, name)
            if value is None:
                why = "no value" if self._is_null(file.id, name) else "neither text nor a few numbers"
                self.found["left_out"].append([f"attribute {text(name)!r}", why])
            else:
                self.found["attributes"][text(name)] = value

    def _group_attributes(self, group: Any, path: str) -> None:
        """Keep the attributes of a group that Keras gives a meaning."""
        names: list[bytes] = []
        self.h5.h5a.iterate(group, names.append)
        is_vars = path == "vars" or path.endswith("/vars")
        wanted = [name for name in names if _KEPT.fullmatch(text(name)) or (is_vars and name == b"name")]
        self._count_attributes(group, path, wanted)
        self.found["groups"][path] = {text(name): self._attribute(group, name) for name in wanted}

    def _count_attributes(self, thing: Any, path: str, used: Sequence[bytes]) -> None:
        """Count the attributes that nothing takes up, but for those by which libraries mark their own structure."""
        if not self.h5.h5a.get_num_attrs(thing):
            return
        names: list[bytes] = []
        self.h5.h5a.iterate(thing, names.append)
        others = [text(name) for name in names if name not in used and name not in _MARKS]
        self.found["n_attributes"] += len(others)
        room = _MOST_EXAMPLES - len(self.found["some_attributes"])
        self.found["some_attributes"] += [f"{name} of {path}" for name in others[:room]]

    def _attribute(self, thing: Any, name: bytes) -> Any:
        """Return an attribute's value as JSON can hold it; None where it cannot."""
        if not self.h5.h5a.exists(thing, name):
            return None
        try:
            value = self.h5.AttributeManager(_Holder(thing))[name]
        except MemoryError:
            raise
        except Exception:  # whatever h5py makes of an odd type: the attribute is left out, the file is read
            return None
        return plain(value)

    def _is_null(self, thing: Any, name: bytes) -> bool:
        """Whether an attribute has a null data space."""
        return bool(self.h5.h5a.open(thing, name).get_space().get_simple_extent_type() == self.h5.h5s.NULL)


class _Holder:
    """What h5py's AttributeManager asks of an object."""

    def __init__(self, identifier: Any) -> None:
        self.id = identifier


def plain(value: Any) -> Any:
    """Return text, numbers, and lists of them as plain Python; None for anything else.

    >>> plain(b"tensorflow"), plain([b"a", "b"]), plain(1.5), plain(object())
    ('tensorflow', ['a', 'b'], 1.5, None)
    """
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, list):
        parts = [plain(part) for part in value]
        return None if None in parts else parts
    if hasattr(value, "tolist") and (getattr(value, "size", 0) <= _MOST_VALUES or _is_text(value)):
        listed = value.tolist()
        return None if type(listed) is type(value) else plain(listed)
    return None


def _is_text(value: Any) -> bool:
    return hasattr(value, "dtype") and value.dtype.kind in "SOU"

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_FLOATS = {
    (8, 63, 52, 11, 0, 52, 1023): "float64",
    (4, 31, 23, 8, 0, 23, 127): "float32",
    (2, 15, 10, 5, 0, 10, 15): "float16",
    (2, 15, 7, 8, 0, 7, 127): "bfloat16",
    (1, 7, 2, 5, 0, 2, 15): "float8_e5m2",
    (1, 7, 3, 4, 0, 3, 7): "float8_e4m3fn",
}
"""Size; positions and widths of sign, exponent and mantissa; bias: HDF5 File Format 3.0, IV.A.2.d, class 1."""
_COMPLEX = {"float32": "complex64", "float64": "complex128"}
_KEPT = re.compile(r"(?:layer_names|weight_names)\d*|keras_version|backend")
_MOST_VALUES = 4096
"""A root attribute with more numbers than this is data, not metadata."""

Json = dict[str, Any]


class Window(io.RawIOBase):
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
        with h5py.File(Window(int(offset), int(size)), "r") as file:
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
        self.h5 = h5py
        self.seen: dict[int, str] = {}
        self.found: Json = {
            "tensors": [], "aliases": [], "soft": [], "unsafe": [], "left_out": [], "attributes": {}, "groups": {},
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
            self.found["unsafe"].append([path, f"is an external link to the file {text(file)!r}"])
        elif kind != self.h5.h5l.TYPE_HARD:
            self.found["unsafe"].append([path, "is a user-defined link"])
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
            self.found["unsafe"].append([path, f"keeps its values in another file, {file!r}"])
            return
        if layout == self.h5.h5d.VIRTUAL:
            self.found["unsafe"].append([path, "is a virtual data set, made of other files"])
            return
        dtype, order, why = self._type(dataset.get_type())
        space = dataset.get_space()
        if why is None and space.get_simple_extent_type() == self.h5.h5s.NULL:
            why = "holds no value (a null data space)"
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

    # -- types ----------------------------------------------------------------------------------------------------

    def _type(self, kind: Any) -> tuple[str, str, str | None]:
        """Return dtype, byte order and, if it is none of ours, why."""
        h5t = self.h5.h5t
        code = kind.get_class()
        readers: dict[int, Callable[[Any], tuple[str, str, str | None]]] = {
            h5t.INTEGER: self._integer,
            h5t.BITFIELD: self._integer,
            h5t.FLOAT: self._float,
            h5t.ENUM: self._enum,
            h5t.COMPOUND: self._compound,
            h5t.OPAQUE: lambda kind: ("opaque", "<", None),
        }
        if getattr(h5t, "COMPLEX", None) == code:
            readers[code] = self._complex
        names = {h5t.STRING: "text", h5t.REFERENCE: "references", h5t.VLEN: "sequences of varying length"}
        if code in readers:
            return readers[code](kind)
        return "", "<", f"holds {names.get(code, 'elements of an array or time type')}, not numbers"

    def _order(self, kind: Any) -> str:
        return ">" if kind.get_order() == self.h5.h5t.ORDER_BE else "<"

    def _integer(self, kind: Any) -> tuple[str, str, str | None]:
        size = kind.get_size()
        if size not in (1, 2, 4, 8) or kind.get_precision() != 8 * size:
            return "", "<", f"holds integers of {kind.get_precision()} bits in {size} bytes"
        signed = kind.get_class() == self.h5.h5t.INTEGER and kind.get_sign() == self.h5.h5t.SGN_2
        return f"{'' if signed else 'u'}int{8 * size}", self._order(kind), None

    def _float(self, kind: Any) -> tuple[str, str, str | None]:
        name = _FLOATS.get((kind.get_size(), *kind.get_fields(), kind.get_ebias()))
        if name is None or kind.get_order() not in (self.h5.h5t.ORDER_LE, self.h5.h5t.ORDER_BE):
            return "", "<", f"holds an unusual float type of {kind.get_size()} bytes"
        return name, self._order(kind), None

    def _enum(self, kind: Any) -> tuple[str, str, str | None]:
        members = {kind.get_member_name(i): kind.get_member_value(i) for i in range(min(kind.get_nmembers(), 3))}
        if members == {b"FALSE": 0, b"TRUE": 1} and kind.get_size() == 1:
            return "bool", "<", None
        return self._integer(kind.get_super())

    def _compound(self, kind: Any) -> tuple[str, str, str | None]:
        parts = [kind.get_member_type(i) for i in range(min(kind.get_nmembers(), 3))]
        floats = [self._float(p)[:2] for p in parts if p.get_class() == self.h5.h5t.FLOAT]
        if len(parts) == len(floats) == 2 and floats[0] == floats[1] and floats[0][0] in _COMPLEX:
            names = (kind.get_member_name(0), kind.get_member_name(1))
            half = parts[0].get_size()
            packed = (kind.get_member_offset(0), kind.get_member_offset(1), kind.get_size()) == (0, half, 2 * half)
            if packed and names in ((b"r", b"i"), (b"real", b"imag")):
                return _COMPLEX[floats[0][0]], floats[0][1], None
        return "", "<", "holds records of several fields (a compound type), not numbers"

    def _complex(self, kind: Any) -> tuple[str, str, str | None]:
        name = str(kind.dtype.name)
        why = None if name in _COMPLEX.values() else "holds an unusual complex type"
        return name, self._order(kind), why

    # -- attributes -------------------------------------------------------------------------------------------------

    def _root_attributes(self, file: Any) -> None:
        names: list[bytes] = []
        self.h5.h5a.iterate(file.id, names.append)
        for name in names:
            value = self._attribute(file.id, name)
            if value is None:
                self.found["left_out"].append([f"attribute {text(name)}", "is neither text nor a few numbers"])
            else:
                self.found["attributes"][text(name)] = value

    def _group_attributes(self, group: Any, path: str) -> None:
        """Keep the attributes of a group that Keras gives a meaning."""
        names: list[bytes] = []
        self.h5.h5a.iterate(group, names.append)
        is_vars = path == "vars" or path.endswith("/vars")
        wanted = [name for name in names if _KEPT.fullmatch(text(name)) or (is_vars and name == b"name")]
        self.found["groups"][path] = {text(name): self._attribute(group, name) for name in wanted}

    def _attribute(self, thing: Any, name: bytes) -> Any:
        """Return an attribute's value as JSON can hold it; None where it cannot."""
        if not self.h5.h5a.exists(thing, name):
            return None
        try:
            value = self.h5.AttributeManager(_Holder(thing))[name]
        except (OSError, TypeError, ValueError, RuntimeError):
            return None
        return plain(value)


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
    if (hasattr(value, "tolist") and getattr(value, "size", 0) <= _MOST_VALUES) or _is_text(value):
        listed = value.tolist()
        return None if type(listed) is type(value) else plain(listed)
    return None


def _is_text(value: Any) -> bool:
    return hasattr(value, "dtype") and value.dtype.kind in "SOU"

"""PyTorch's ``.pt``, ``.pth``, ``.bin``, ``.ckpt``: zip archives, TorchScript, legacy streams and bare pickles.

Source: ``torch/serialization.py``. A zip holds ``<root>/data.pkl``, ``<root>/data/<key>`` for each storage, and
``<root>/byteorder``; a legacy stream is described in `torch_legacy`. The pickle is read as data (see `pickles`):
PyTorch is not needed, and nothing that the file names is imported or called.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weighttools.core import budgets
from weighttools.core.findings import Finding
from weighttools.core.spec import Source
from weighttools.errors import CorruptFileError, UnknownFormatError, UnsafeFileError, UnsupportedError, WeighttoolsError
from weighttools.formats import members_check, trailing
from weighttools.formats.base import Format, ReadBack, ReadOptions, Region, WriteOptions
from weighttools.io.archive import Member, first_member, is_zip, members, needs

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from weighttools.core.spec import Array
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.pickles.machine import Machine
    from weighttools.formats.torch.tensors import Identity, Storage
    from weighttools.io.sink import Sink

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickle of 0x1950a86a20f9469cfc6c, with which a legacy stream begins."""

_PICKLE = "data.pkl"
_PARTS = {_PICKLE, "data", "code", "constants.pkl", "constants", "version", "byteorder", ".format_version", ".data"}


def matches(head: bytes) -> bool:
    """Whether a file begins as a torch zip (its first member lies in a root, under a name of torch's) or a pickle."""
    member = first_member(head)
    if member is None:
        return len(head) > 2 and head[0] == 0x80 and 1 <= head[1] <= 5
    parts = member[0].decode("utf-8", "replace").split("/")
    return len(parts) > 1 and (parts[1] in _PARTS or (parts[1] == "" and b"/data.pkl" in head))


def read(source: Source, options: ReadOptions | None = None) -> TensorMap:
    """Read the pickle of a file and return its tensors, lazy.

    Raises
    ------
    CorruptFileError
        The archive or the pickle is damaged, or a tensor does not fit its storage.
    UnsafeFileError
        The archive holds two pickles, or containers unfold without measure.
    """
    root = (options or ReadOptions()).root
    if is_zip(source.read(0, min(4, source.size))):
        return _read_zip(source, root)
    from weighttools.formats.torch import legacy as torch_legacy

    return torch_legacy.read(source, root)


def _read_zip(source: Source, root: str | None) -> TensorMap:
    from weighttools.formats.torch.state import tensor_map

    found = members(source)
    folder = _folder(found, source)
    shelf = ZipShelf(source.name, folder, found, _byteorder(found, folder, source))
    machine = _machine(found[folder + _PICKLE])
    value = machine.load()
    found[folder + _PICKLE].check()  # it was read whole
    script = folder + "constants.pkl" in found
    notes = ["is a TorchScript archive: its parameters are read, its code is not"] if script else []
    found_map = tensor_map(value, machine, shelf, root, notes, unwrap=not script)
    return _with_constants(found_map, found, folder, shelf.byteorder) if script and root in (None, ".") else found_map


def _with_constants(tensor_map: TensorMap, found: dict[str, Member], folder: str, byteorder: str) -> TensorMap:
    """Add the constants of a TorchScript archive's code, ``constants.N``: a frozen model keeps its weights there."""
    from weighttools.formats.pickles.objects import PickledDict
    from weighttools.formats.torch import state as torch_state

    machine = _machine(found[folder + "constants.pkl"])
    start = folder + "constants/"
    stored = {f"{folder}data/{name.removeprefix(start)}": m for name, m in found.items() if name.startswith(start)}
    shelf = ZipShelf(tensor_map.origin.path, folder, stored, byteorder)
    value = PickledDict([("constants", machine.load())])
    try:
        constants = torch_state.tensor_map(value, machine, shelf, torch_state.KEEP)
    except (UnsafeFileError, UnsupportedError) as error:
        if not tensor_map:
            raise
        return tensor_map.noted(f"left out: the constants of its code, which {error.fact}")
    if not constants:
        return tensor_map
    said = [note for note in tensor_map.origin.notes if not note.startswith(torch_state.EMPTY)]
    said.append(f"{len(constants):,} constants of its code are read: a frozen model keeps its weights there")
    joined = {**tensor_map, **constants}
    aliases = {**tensor_map.aliases, **constants.aliases}
    origin = tensor_map.origin._replace(
        notes=(*said, *constants.origin.notes), foreign=(*tensor_map.origin.foreign, *constants.origin.foreign)
    )
    return tensor_map.replace(tensors=joined, aliases=aliases, origin=origin)


def _folder(found: dict[str, Member], source: Source) -> str:
    """Return the one folder that holds ``data.pkl``, with its slash."""
    pickles = [name for name in found if name.casefold().endswith("/" + _PICKLE) and name.count("/") == 1]
    if not pickles:
        raise UnknownFormatError(
            "is a zip archive without <root>/data.pkl", subject=source.name, expected="what torch.save writes"
        )
    if len(pickles) > 1 or not pickles[0].endswith(_PICKLE):
        raise UnsafeFileError(
            f"its pickle is not the one that every reader would take: {', '.join(map(repr, pickles[:3]))}",
            subject=source.name,
            expected="one data.pkl",
        )
    folder = pickles[0].removesuffix(_PICKLE)
    inside = [name.casefold() for name in found if name.startswith(folder) and not name.startswith(folder + "code/")]
    if len(set(inside)) != len(inside):
        raise UnsafeFileError("two of its members differ only in case", subject=source.name)
    return folder


def _byteorder(found: dict[str, Member], folder: str, source: Source) -> str:
    member = found.get(folder + "byteorder")
    said = member.head(8) if member else b"little"
    if said not in (b"little", b"big"):
        raise CorruptFileError(f"its byteorder is {said!r}", subject=source.name, expected="little or big")
    return "<" if said == b"little" else ">"


def _machine(member: Member) -> Machine:
    """Return the machine on a member's pickle."""
    from weighttools.formats.pickles.machine import Machine
    from weighttools.formats.pickles.stream import Stream
    from weighttools.io.source import Bytes

    span = member.span
    if not member.deflated:
        return Machine(Stream(span.source, span.offset, span.offset + span.length))
    most = budgets.inflated_pickle(span.source.size)
    if member.size > most:
        raise UnsafeFileError(
            f"archive member {member.name!r} is compressed and {member.size:,} bytes long",
            subject=span.source.name,
            expected=f"at most {most:,}",
        )
    inflated = Bytes(bytes(member.content()), span.source.name)
    return Machine(Stream(inflated), budgets.opcodes(span.source.size))


@dataclass(frozen=True, slots=True)
class ZipShelf:
    """The storages of a zip archive: members ``<root>/data/<key>``."""

    name: str
    folder: str
    members: dict[str, Member]
    byteorder: str
    last: LastStorage = field(default_factory=lambda: LastStorage(), compare=False)

    def storage(self, identity: Identity) -> Storage:
        """Return the storage of a key, held against its member's size.

        Raises
        ------
        CorruptFileError
            There is no such member, or it is shorter than the pickle claims.
        """
        from weighttools.formats.torch.tensors import Storage

        member = self.members.get(f"{self.folder}data/{identity.key}")
        n_bytes = identity.n_elements * identity.itemsize
        if member is None:
            raise CorruptFileError(f"has no storage {identity.key[:80]!r}, which a tensor names", subject=self.name)
        if n_bytes > member.size:
            raise CorruptFileError(
                f"storage {identity.key[:80]!r} is {member.size:,} bytes long",
                subject=self.name,
                expected=f"{n_bytes:,}",
            )
        needs(member, n_bytes)
        self.last.n_views[member.name] += 1
        load = InflatedStorage(member, self.last) if member.deflated else None
        return Storage(identity.key, member.span, n_bytes, identity.dtype, self.byteorder, load)


class LastStorage:
    """The storage of an archive that was inflated last: views of one storage are mostly read one after the other.

    Attributes
    ----------
    n_views
        How many views there are of each member: of one alone nothing is kept.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name = ""
        self._data: Array | None = None
        self.n_views: Counter[str] = Counter()

    def of(self, member: Member) -> Array:
        """Return a member's content (uint8), inflated unless it was the last one to be."""
        import numpy as np

        if self.n_views[member.name] < 2:
            return np.frombuffer(member.content(), np.uint8)
        with self._lock:
            if self._data is None or self._name != member.name:
                self._data = None  # let go of the old one first
                self._data, self._name = np.frombuffer(member.content(), np.uint8), member.name
                self._data.flags.writeable = False
            return self._data

    def __reduce__(self) -> tuple[type[LastStorage], tuple[()]]:
        return LastStorage, ()


@dataclass(frozen=True, slots=True)
class InflatedStorage:
    """Loads a compressed storage; what it returns can be changed only where nobody else sees it."""

    member: Member
    last: LastStorage

    def __call__(self) -> Array:
        return self.last.of(self.member)


def check(source: Source) -> Iterator[Finding]:
    """Yield what loading the file with Python's unpickler could run: what its pickles call, name and set.

    Raises
    ------
    WeighttoolsError
        The archive itself cannot be read.
    """
    yield from _surroundings(source)
    yield from _pickles(source)


def _surroundings(source: Source) -> Iterator[Finding]:
    """Yield bytes around an archive or behind a legacy stream; those behind a bare pickle may be another one."""
    head = source.read(0, min(len(LEGACY_MAGIC), source.size))
    with contextlib.suppress(WeighttoolsError):  # said where it is read
        if is_zip(head):
            yield from members_check.surroundings(source)
        elif head == LEGACY_MAGIC:
            from weighttools.formats.torch import legacy as torch_legacy

            yield from trailing.behind(source, torch_legacy.end_of(source), "the last storage")


def _pickles(source: Source) -> Iterator[Finding]:
    from weighttools.formats.pickles import scan as pickle_scan
    from weighttools.formats.pickles.stream import Stream

    if is_zip(source.read(0, min(4, source.size))):
        return pickle_scan.of_archive(source)
    is_legacy = source.read(0, min(len(LEGACY_MAGIC), source.size)) == LEGACY_MAGIC
    return pickle_scan.of_stream(Stream(source), pickle_scan.LEGACY_PICKLES if is_legacy else None)


def losses(tensor_map: TensorMap) -> list[str]:
    """Say what a state dict cannot hold; as `torch_write.losses`."""
    from weighttools.formats.torch import write as torch_write

    return torch_write.losses(tensor_map)


def write(tensor_map: TensorMap, sink: Sink, options: WriteOptions | None = None) -> None:
    """Write a state dict as a zip archive; as `torch_write.write`."""
    from weighttools.formats.torch import write as torch_write

    torch_write.write(tensor_map, sink, options)


def regions(source: Source) -> list[Region]:
    """Return the parts of a zip archive; of a stream of pickles, nothing is told apart."""
    from weighttools.io.archive_places import archive_places

    is_archive = is_zip(source.read(0, min(4, source.size)))
    return [Region(*place) for place in archive_places(source)] if is_archive else [Region(0, source.size, "pickles")]


def read_back(path: Path, tensor_map: TensorMap) -> AbstractContextManager[ReadBack]:
    """Open what was written with the reference reader."""
    from weighttools.formats.torch.readback import read_back as opened

    return opened(path, tensor_map)


FORMAT = Format(
    matches=matches, read=read, write=write, losses=losses, check=check, read_back=read_back, regions=regions
)

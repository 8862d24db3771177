"""PyTorch's legacy streams (before 1.6) and bare pickles.

Source: ``torch/serialization.py``, ``_legacy_save``. Five pickles one after the other: the magic number, the
protocol version (1001), facts of the system, the object, the sorted keys of its storages; then for each key its
number of elements (u64) and its elements, little-endian. A storage's id may name a view of a larger one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from weighttools.core.spec import Source, Span
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, UnsupportedError
from weighttools.formats.pickles.machine import Machine
from weighttools.formats.pickles.stream import Stream
from weighttools.formats.torch.state import tensor_map
from weighttools.formats.torch.tensors import Identity, Storage, identity_of

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_COUNT_BYTES = 8


def read(source: Source, root: str | None = None) -> TensorMap:
    """Read a legacy stream, or any other pickle, whose NumPy arrays then are its tensors.

    Raises
    ------
    CorruptFileError
        The stream is cut short, or its parts contradict one another.
    UnsupportedError
        It is a joblib file.
    """
    machine = Machine(Stream(source))
    first = _first(machine, source.name)
    if type(first) is not int or first != _MAGIC:
        shelf = LegacyShelf(source.name, {})
        note = "is a bare pickle, which torch.save did not write: its NumPy arrays are read"
        return tensor_map(first, machine, shelf, root, [note])
    value, keys = _object(machine, source)
    return tensor_map(value, machine, LegacyShelf(source.name, _spans(source, machine, keys)), root)


def end_of(source: Source) -> int:
    """Return where a legacy stream ends: behind its last storage; as `read`."""
    machine = Machine(Stream(source))
    machine.load()
    _, keys = _object(machine, source)
    found = _spans(source, machine, keys)
    return max((span.offset + span.length for span, _ in found.values()), default=machine.stream.position)


def _object(machine: Machine, source: Source) -> tuple[Any, Any]:
    """Run the pickles behind the magic number; return the object and the keys of its storages."""
    version = machine.load()
    if type(version) is not int or version != _PROTOCOL:
        raise CorruptFileError("its protocol version is not torch's", subject=source.name, expected=f"{_PROTOCOL}")
    machine.load()
    value = machine.load()
    return value, machine.load()


def _first(machine: Machine, subject: str) -> Any:
    """Load the first pickle; joblib's is none that ends: it lays the bytes of arrays between the opcodes."""
    try:
        return machine.load()
    except CorruptFileError:
        if any(found.module.startswith("joblib.") for found in machine.globals):
            remedy = "load it with joblib, if you trust it, and save its arrays as npz"
            raise UnsupportedError("is a joblib file, which is not read", subject=subject, remedy=remedy) from None
        raise


def _spans(source: Source, machine: Machine, keys: Any) -> dict[str, tuple[Span, Identity]]:
    """Return where each storage's bytes lie."""
    named = _identities(machine, source.name)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise CorruptFileError("its storage keys are not a list of text", subject=source.name)
    found: dict[str, tuple[Span, Identity]] = {}
    at = machine.stream.position
    for key in keys:
        identity = named.get(key)
        if identity is None or key in found:
            raise CorruptFileError(f"lists storage {key[:80]!r}, which no tensor names, or twice", subject=source.name)
        if at + _COUNT_BYTES > source.size:
            raise _truncated(source, at + _COUNT_BYTES)
        count = int.from_bytes(source.read(at, _COUNT_BYTES), "little")
        begin, n_bytes = at + _COUNT_BYTES, count * identity.itemsize
        if count != identity.n_elements:
            raise CorruptFileError(
                f"storage {key[:80]!r} has {count:,} elements", subject=source.name, offset=at,
                expected=f"{identity.n_elements:,}, as the pickle says",
            )  # fmt: skip
        if begin + n_bytes > source.size:
            raise _truncated(source, begin + n_bytes)
        found[key] = Span(source, begin, n_bytes), identity
        at = begin + n_bytes
    return found


def _truncated(source: Source, needed: int) -> CorruptFileError:
    return CorruptFileError(
        f"truncated: at least {needed - source.size:,} bytes are missing",
        subject=source.name,
        offset=source.size,
        remedy="fetch the file again",
        code="truncated",
    )


def _identities(machine: Machine, subject: str) -> dict[str, Identity]:
    """Return each storage's id by its key: the first that names it says its element type, as torch has it."""
    named: dict[str, Identity] = {}
    for persistent in machine.persistents:
        parts = persistent.id
        if type(parts) is tuple and parts and parts[0] in ("storage", b"storage"):
            identity = _measured(persistent, subject)
            named.setdefault(identity.key, identity)
    return named


def _measured(persistent: Any, subject: str) -> Identity:
    """Check a storage's id; of one whose elements are not read, the size must be known all the same."""
    try:
        return identity_of(persistent, subject)
    except UnsupportedError:
        _, kind, key, location, n_elements, *_ = persistent.id
        if kind.name not in _OTHER_BYTES or str(location) == "meta":
            raise
        return Identity(str(key), _OTHER_BYTES[kind.name], str(location), n_elements, None)


_OTHER_BYTES = {
    "QInt8Storage": "CharStorage",
    "QUInt8Storage": "ByteStorage",
    "QInt32Storage": "IntStorage",
    "QUInt4x2Storage": "ByteStorage",
    "QUInt2x4Storage": "ByteStorage",
}
"""Storages that are not read, and one with elements as wide."""


@dataclass(frozen=True, slots=True)
class LegacyShelf:
    """The storages of a legacy stream."""

    name: str
    spans: dict[str, tuple[Span, Identity]]

    def storage(self, identity: Identity) -> Storage:
        """Return a storage, or the part of one that a view names.

        Raises
        ------
        CorruptFileError
            It is not in the file, or the view lies outside it.
        """
        if identity.key not in self.spans:
            raise CorruptFileError(f"has no storage {identity.key[:80]!r}, which a tensor names", subject=self.name)
        span, first = self.spans[identity.key]
        storage = Storage(identity.key, span, span.length, first.dtype or identity.dtype)
        return storage if identity.view is None else self._part(storage, identity)

    def _part(self, storage: Storage, identity: Identity) -> Storage:
        view = identity.view
        if type(view) is not tuple or len(view) != 3 or not all(type(n) is int and n >= 0 for n in view[1:]):
            raise CorruptFileError("a storage's view is not named as torch names it", subject=self.name)
        start, length = view[1] * identity.itemsize, view[2] * identity.itemsize
        if start + length > storage.n_bytes:
            raise CorruptFileError(
                f"a view reaches byte {start + length:,} of storage {identity.key[:80]!r}",
                subject=self.name,
                expected=f"at most {storage.n_bytes:,}",
            )
        key = f"{identity.key}[{start}:{start + length}]"
        return Storage(key, storage.span.part(start, length), length, storage.dtype)

"""Writing a state dict as ``torch.save`` does, its pickle opcode by opcode. Source: torch/serialization.py, ``_save``.

The pickle (protocol 2) makes an OrderedDict of tensors, each rebuilt from a storage of its own; a tied tensor names
the storage it shares. ``torch.load(path, weights_only=True)`` reads it, also with ``mmap=True``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from weighttools.core.spec import Spec
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, UnsupportedError, few
from weighttools.formats.base import WriteOptions, instead, refuse_shapes
from weighttools.formats.raw import write_raw
from weighttools.formats.torch.state import METADATA
from weighttools.formats.torch.tensors import MAX_AXES, PACKED_FLOAT4, STORAGE_TYPES, TORCH_DTYPES
from weighttools.io.zip_writer import ALIGN, planned_bytes, zip_writer

if TYPE_CHECKING:
    from weighttools.io.sink import Sink

ROOT = "archive"
_CLASSES = {dtype: kind for kind, dtype in STORAGE_TYPES.items()}
_NAMES = {**{name: name for name, dtype in TORCH_DTYPES.items() if name == dtype}, "float4_e2m1fn": PACKED_FLOAT4}


def losses(tensor_map: TensorMap) -> list[str]:
    """Say what a state dict has no place for: metadata.

    Raises
    ------
    UnsupportedError
        Torch has no such dtype.
    SpecError
        4-bit elements do not pair up in the last axis, or a shape is more than torch has.
    """
    refuse_shapes(tensor_map, "PyTorch", MAX_AXES)
    for name, spec in zip(tensor_map, tensor_map.specs(), strict=True):
        _check(name, spec)
    lost = sorted(key for key, value in tensor_map.metadata.items() if METADATA.get(key) != value)
    if not lost:
        return []
    return [f"a PyTorch file has no place for metadata: {len(lost):,} entries ({few(lost)}) are left out"]


def _check(name: str, spec: Spec) -> None:
    if spec.dtype.name not in _NAMES:
        raise UnsupportedError(
            f"torch has no dtype {spec.dtype}, which tensor {name!r} has",
            remedy=instead(name, spec, "NPZ"),
            code="cannot-hold",
        )
    if spec.dtype.bits < 8 and (not spec.shape or spec.shape[-1] % 2):
        raise SpecError(
            f"the last axis of tensor {name!r} is odd", expected="pairs of 4-bit elements, as torch packs them"
        )
    if max(spec.shape, default=0) >= 1 << 63:
        raise SpecError(f"tensor {name!r} has an axis too long for torch")


def write(tensor_map: TensorMap, sink: Sink, options: WriteOptions | None = None) -> None:
    """Write a map; the same tensors and ties in the same order give the same bytes."""
    losses(tensor_map)
    data = encode(tensor_map)
    sink.reserve(sum(_planned(tensor_map, data)))
    with zip_writer(sink) as archive:
        for name, content in _first_members(data):
            archive.add(f"{ROOT}/{name}", content)
        for i, tensor in enumerate(tensor_map.values()):
            with archive.member(f"{ROOT}/data/{i}", tensor.spec.nbytes) as member:
                write_raw([tensor], member, options or WriteOptions())
        archive.add(f"{ROOT}/version", b"3\n")
        archive.add(f"{ROOT}/.data/serialization_id", _serialization_id(data))


def _first_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "data.pkl", data
    yield ".format_version", b"1"
    yield ".storage_alignment", str(ALIGN).encode()
    yield "byteorder", b"little"


def _planned(tensor_map: TensorMap, data: bytes) -> Iterator[int]:
    yield planned_bytes("data.pkl", len(data))
    yield 6 * planned_bytes(f"{ROOT}/.data/serialization_id", ALIGN)
    yield from (planned_bytes(f"{ROOT}/data/{len(tensor_map)}", spec.nbytes) for spec in tensor_map.specs())


def _serialization_id(data: bytes) -> bytes:
    """Return 40 digits, as torch writes: a hash of names and specs, so that equal maps give equal files."""
    return f"{int.from_bytes(hashlib.sha256(data).digest(), 'big') % 10**40:040d}".encode()


def encode(tensor_map: TensorMap) -> bytes:
    """Return the pickle of a state dict whose tensor number i lies in storage i."""
    keys = {name: i for i, name in enumerate(tensor_map)}
    specs = dict(zip(tensor_map, tensor_map.specs(), strict=True))
    parts = [b"\x80\x02", _ORDERED_DICT, b")R("]
    for name, spec in specs.items():
        parts += [_text(name), _tensor(spec, keys[name])]
    for alias, kept in tensor_map.aliases.items():
        parts += [_text(alias), _tensor(specs[kept], keys[kept])]
    return b"".join([*parts, b"u."])


def _tensor(spec: Spec, key: int) -> bytes:
    """Rebuild a tensor: ``_rebuild_tensor_v2``, or ``_v3`` where torch has no class of storage for the dtype."""
    kind = _CLASSES.get(spec.dtype.name)
    shape = spec.shape if spec.dtype.bits >= 8 else (*spec.shape[:-1], spec.shape[-1] // 2)
    count = spec.n_elements if kind else spec.nbytes
    storage = [
        _text("storage"),
        _global("torch", kind) if kind else _UNTYPED,
        _text(str(key)),
        _text("cpu"),
        _int(count),
    ]
    place = [_run([*storage]), b"Q", _int(0), _ints(shape), _ints(_strides(shape)), b"\x89", _ORDERED_DICT, b")R"]
    if kind:
        return _V2 + _run(place) + b"R"
    return _V3 + _run([*place, _global("torch", _NAMES[spec.dtype.name])]) + b"R"


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return C strides as torch has them: an axis of length 0 counts as 1."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= max(1, length)
    return tuple(reversed(strides))


def _run(parts: Iterable[bytes]) -> bytes:
    """A tuple of the parts."""
    return b"(" + b"".join(parts) + b"t"


def _ints(values: Iterable[int]) -> bytes:
    return _run(map(_int, values))


def _int(value: int) -> bytes:
    """BININT1, BININT2, BININT or LONG1, the shortest that holds a count."""
    for opcode, n_bytes in ((b"K", 1), (b"M", 2)):
        if value < 1 << 8 * n_bytes:
            return opcode + value.to_bytes(n_bytes, "little")
    if value < 1 << 31:
        return b"J" + value.to_bytes(4, "little")
    n_bytes = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([n_bytes]) + value.to_bytes(n_bytes, "little")


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + len(data).to_bytes(4, "little") + data


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode("ascii")


_ORDERED_DICT = _global("collections", "OrderedDict")
_UNTYPED = _global("torch.storage", "UntypedStorage")
_V2 = _global("torch._utils", "_rebuild_tensor_v2")
_V3 = _global("torch._utils", "_rebuild_tensor_v3")

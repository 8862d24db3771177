"""PyTorch's tensors in a pickle: a storage, and an offset, shape and strides into it, each held against the record.

Source: ``torch/_utils.py`` (what each ``_rebuild_*`` takes) and ``torch/serialization.py`` (the persistent ids of
storages). Strides and offsets count elements of the tensor's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from weighttools.core import budgets
from weighttools.core.dtypes import DTYPES, DType
from weighttools.core.spec import Span
from weighttools.errors import CorruptFileError, UnsafeFileError, UnsupportedError
from weighttools.formats.pickles.objects import Global, Made, Persistent, PickledDict, plain

if TYPE_CHECKING:
    from weighttools.core.spec import Array

STORAGE_TYPES: dict[str, str] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
}
"""Typed storages, by the class that names them."""

UNTYPED = ("UntypedStorage", "_UntypedStorage")
PACKED_FLOAT4 = "float4_e2m1fn_x2"
"""Torch counts pairs of 4-bit elements in the last axis; we count elements."""

TORCH_DTYPES: dict[str, str] = {
    **{name: name for name in STORAGE_TYPES.values()},
    **{name: name for name in ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2")},
    **{name: name for name in ("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")},
    "double": "float64",
    "float": "float32",
    "half": "float16",
    "long": "int64",
    "int": "int32",
    "short": "int16",
    "cfloat": "complex64",
    "cdouble": "complex128",
    PACKED_FLOAT4: "float4_e2m1fn",
}
"""Names of torch's dtypes to ours."""

MAX_AXES = 64


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of bytes that tensors are views of.

    Parameters
    ----------
    key
        What tells it apart from the file's other storages.
    span
        Where its bytes lie.
    n_bytes
        How many there are once decompressed.
    dtype
        The type its class names; None for an untyped one.
    byteorder
        ``"<"`` or ``">"``.
    load
        For a compressed storage: returns all its bytes (uint8). None where they lie in the file as they are.
    """

    key: str
    span: Span
    n_bytes: int
    dtype: DType | None
    byteorder: str = "<"
    load: Callable[[], Array] | None = None


class Identity(NamedTuple):
    """A storage's persistent id, checked."""

    key: str
    kind: str
    location: str
    n_elements: int
    view: Any

    @property
    def dtype(self) -> DType | None:
        """The type of the elements it counts; None where they are bytes of an untyped storage."""
        name = STORAGE_TYPES.get(self.kind)
        return DTYPES[name] if name else None

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return self.dtype.bits // 8 if self.dtype else 1


class Shelf(Protocol):
    """Where storages are looked up."""

    @property
    def name(self) -> str:
        """The file, for messages."""

    def storage(self, identity: Identity) -> Storage:
        """Return the storage that an id names, held against its record."""


class View(NamedTuple):
    """A tensor as a view of a storage."""

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugate: bool = False
    negative: bool = False

    @property
    def n_elements(self) -> int:
        """How many elements it shows."""
        return math.prod(self.shape)

    @property
    def extent(self) -> int:
        """Elements from its first place in the storage to its last."""
        if not self.n_elements:
            return 0
        return 1 + sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))

    @property
    def run(self) -> tuple[int, int]:
        """The bytes of the storage it lies in: first, and one past the last."""
        itemsize = max(8, self.dtype.bits) // 8
        first = self.offset * itemsize
        return first, first + (self.extent * self.dtype.bits + 7) // 8

    @property
    def place(self) -> tuple[Any, ...]:
        """Equal for two names of the same values in the same place."""
        signs = (self.conjugate, self.negative)
        return (self.storage.key, self.dtype.name, self.offset, self.shape, self.strides, signs)


def identity_of(persistent: Any, subject: str) -> Identity:
    """Check a storage's persistent id: ``("storage", class, key, location, elements[, view])``.

    Raises
    ------
    CorruptFileError
        It is not one.
    UnsupportedError
        The storage is of a class whose elements are no plain numbers, or on the meta device, which holds none.
    """
    parts = persistent.id if type(persistent) is Persistent and type(persistent.id) is tuple else ()
    if len(parts) not in (5, 6) or parts[0] not in ("storage", b"storage") or type(parts[1]) is not Global:
        raise CorruptFileError("a tensor's storage is not named as torch names it", subject=subject)
    kind, key, location, n_elements = parts[1].name, parts[2], parts[3], parts[4]
    if type(n_elements) is not int or not 0 <= n_elements < 1 << 62 or type(key) not in (str, int):
        raise CorruptFileError(f"a storage claims {n_elements!r} elements", subject=subject, expected="a count")
    if kind not in STORAGE_TYPES and kind not in UNTYPED:
        raise UnsupportedError(f"a {kind} holds no plain numbers")
    place = location.decode("ascii", "replace") if type(location) is bytes else str(location)
    if place == "meta":
        raise UnsupportedError("the meta device holds no values")
    return Identity(str(key), kind, place, n_elements, parts[5] if len(parts) == 6 else None)


def is_storage(value: Any) -> bool:
    """Whether a value is a storage itself, with no tensor that shows it."""
    return type(value) is Persistent and type(value.id) is tuple and value.id[:1] in (("storage",), (b"storage",))


def view_of(value: Any, shelf: Shelf) -> View | None:
    """Return the tensor that a call would have rebuilt; None if it would have rebuilt something else.

    Raises
    ------
    CorruptFileError
        Its numbers do not fit its storage.
    UnsupportedError
        It is a tensor of a kind that is not read: sparse, nested, without values.
    """
    call = rebuilding_call(value)
    if call is None:
        return None
    if call.callee in UNREAD:
        raise UnsupportedError(UNREAD[call.callee])
    rebuild = REBUILDS.get(call.callee)
    return rebuild(call.args, shelf) if rebuild else None


def rebuilding_call(value: Any) -> Made | None:
    """Return the call that makes a tensor, those around it taken off that make a parameter or a subclass of it."""
    for _ in range(8):  # a parameter of a subclass of a tensor: a few calls deep, never many
        if type(value) is not Made or type(value.callee) is not Global:
            return None
        if value.callee not in INNER:
            return value
        value = INNER[value.callee](value.args)
    return None


def _typed(args: tuple[Any, ...], shelf: Shelf) -> View:
    """``_rebuild_tensor(storage, offset, size, stride)`` and ``_v2``, with ``(…, metadata)`` last."""
    storage = shelf.storage(identity_of(_argument(args, 0, shelf), shelf.name))
    if storage.dtype is None:
        raise CorruptFileError("a tensor of an untyped storage names no dtype", subject=shelf.name)
    return _view(storage, storage.dtype, args, _argument(args, 6, shelf) if len(args) > 6 else None, shelf)


def _untyped(args: tuple[Any, ...], shelf: Shelf) -> View:
    """``_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])``."""
    named = _argument(args, 6, shelf)
    name = named.name if type(named) is Global and named.module == "torch" else str(type(named).__name__)
    if name not in TORCH_DTYPES:
        raise UnsupportedError(f"torch.{name} holds no plain numbers")
    storage = shelf.storage(identity_of(_argument(args, 0, shelf), shelf.name))
    view = _view(storage, DTYPES[TORCH_DTYPES[name]], args, args[7] if len(args) > 7 else None, shelf)
    return _pairs_to_elements(view) if name == PACKED_FLOAT4 else view


def _argument(args: tuple[Any, ...], at: int, shelf: Shelf) -> Any:
    if at >= len(args):
        raise CorruptFileError(f"a tensor is rebuilt from {len(args)} arguments", subject=shelf.name)
    return args[at]


def _view(storage: Storage, dtype: DType, args: tuple[Any, ...], metadata: Any, shelf: Shelf) -> View:
    """Hold offset, shape and strides against the storage, with exact integers."""
    offset = _argument(args, 1, shelf)
    shape, strides = (_lengths(plain(_argument(args, at, shelf))) for at in (2, 3))
    if not _is_length(offset) or shape is None or strides is None or len(shape) != len(strides):
        raise CorruptFileError(
            "a tensor's offset, shape and strides are not lists of counts of one length",
            subject=shelf.name,
            expected=f"at most {MAX_AXES} axes, nothing negative",
        )
    signs = metadata.named() if type(metadata) is PickledDict else {}
    view = View(storage, dtype, offset, shape, strides, signs.get("conj") is True, signs.get("neg") is True)
    itemsize = max(8, dtype.bits) // 8
    if not view.n_elements:
        return view._replace(offset=0)  # an empty slice may begin anywhere, also past the end
    needed = (offset + view.extent) * itemsize
    if needed > storage.n_bytes:
        raise CorruptFileError(
            f"a tensor of shape {list(shape)[:8]} needs {needed:,} bytes of its storage",
            subject=shelf.name,
            expected=f"at most {storage.n_bytes:,}, which storage {storage.key[:40]!r} has",
        )
    if view.n_elements * itemsize > budgets.views(storage.n_bytes):
        raise CorruptFileError(
            f"a tensor of shape {list(shape)[:8]} repeats {storage.n_bytes:,} stored bytes without measure",
            subject=shelf.name,
        )
    return view


def refuse_repetition(views: Iterable[View], subject: str) -> None:
    """Hold what views show together, in the order that they are read in, against what their storages hold.

    Raises
    ------
    UnsafeFileError
        They repeat it without measure, or a compressed storage would be inflated again and again.
    """
    held: dict[str, int] = {}
    work, last = 0, ""
    for view in views:
        storage = view.storage
        held[storage.key] = storage.n_bytes
        is_inflated = storage.load is not None and storage.key != last
        work += view.n_elements * max(8, view.dtype.bits) // 8 + (storage.n_bytes if is_inflated else 0)
        last = storage.key
    if work > budgets.views(sum(held.values())):
        raise UnsafeFileError(
            f"its tensors show {work:,} bytes of storages that hold {sum(held.values()):,}",
            subject=subject,
            expected=f"at most {budgets.VIEWS_TIMES} for each, and {budgets.VIEWS_FREE:,}",
            remedy="save clones: torch.save({name: t.clone() for name, t in state.items()}, path)",
        )


def _lengths(value: Any) -> tuple[int, ...] | None:
    if type(value) not in (tuple, list) or len(value) > MAX_AXES or not all(map(_is_length, value)):
        return None
    return tuple(value)


def _is_length(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _pairs_to_elements(view: View) -> View:
    """Count single 4-bit elements, not the pairs that torch counts."""
    from weighttools.core.strides import c_strides, is_contiguous

    if not view.shape or not is_contiguous(view.shape, view.strides):
        raise UnsupportedError("4-bit elements are read where they are contiguous only")
    shape = (*view.shape[:-1], 2 * view.shape[-1])
    return view._replace(shape=shape, strides=tuple(c_strides(shape)))


def _first(args: tuple[Any, ...]) -> Any:
    return args[0] if args else None


def _of_type(args: tuple[Any, ...]) -> Any:
    """``_rebuild_from_type_v2(function, type, args, state)``: a call within a call."""
    return Made(args[0], args[2]) if len(args) > 2 and type(args[2]) is tuple else None


def _utils(name: str) -> Global:
    return Global("torch._utils", name)


REBUILDS: dict[Global, Callable[[tuple[Any, ...], Shelf], View]] = {
    _utils("_rebuild_tensor"): _typed,
    _utils("_rebuild_tensor_v2"): _typed,
    _utils("_rebuild_tensor_v3"): _untyped,
}
INNER: dict[Global, Callable[[tuple[Any, ...]], Any]] = {
    _utils("_rebuild_parameter"): _first,
    _utils("_rebuild_parameter_with_state"): _first,
    Global("torch.nn.parameter", "Parameter"): _first,
    Global("torch.nn.parameter", "Buffer"): _first,
    Global("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    Global("torch._tensor", "_rebuild_from_type"): _of_type,
    Global("torch.tensor", "_rebuild_from_type"): _of_type,
}
QUANTIZED = _utils("_rebuild_qtensor")
UNREAD: dict[Global, str] = {
    _utils("_rebuild_sparse_tensor"): "a sparse tensor",
    _utils("_rebuild_sparse_csr_tensor"): "a sparse tensor",
    _utils("_rebuild_nested_tensor"): "a nested tensor",
    _utils("_rebuild_meta_tensor_no_storage"): "a tensor on the meta device, without values",
    _utils("_rebuild_wrapper_subclass"): "a tensor of a wrapper class",
    _utils("_rebuild_device_tensor_from_numpy"): "a tensor of a device that torch saves by way of NumPy",
    _utils("_rebuild_device_tensor_from_cpu_tensor"): "a tensor of a device that torch saves by way of the CPU",
    _utils("_rebuild_xla_tensor"): "a tensor of a device that torch saves by way of NumPy",
    Global("torch.nested._internal.nested_tensor", "_rebuild_njt"): "a nested tensor",
    Global("torch.nn.parameter", "UninitializedParameter"): "a parameter without a shape",
}

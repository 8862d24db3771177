"""The globals by which torch writes tensors and plain containers, and nothing else: what a pickle may call."""

from __future__ import annotations

from weighttools.formats.pickles.objects import Global
from weighttools.formats.torch.tensors import INNER, REBUILDS, STORAGE_TYPES, TORCH_DTYPES, UNREAD, UNTYPED


def is_plumbing(found: Global) -> bool:
    """Whether a global is part of how torch writes tensors and plain containers."""
    if found in REBUILDS or found in INNER or found in UNREAD or str(found) in _CONTAINERS:
        return True
    if found.module == "torch" and found.name in _TORCH_NAMES:
        return True
    stored = found.name in STORAGE_TYPES or found.name in UNTYPED or found.name in _TENSOR_TYPES
    return found.module.startswith("__torch__.") or (stored and found.module in _TENSOR_MODULES)


_TENSOR_TYPES = {name.replace("Storage", "Tensor") for name in STORAGE_TYPES} | {"Tensor"}
_TENSOR_MODULES = {"torch", "torch.storage", "torch.cuda", "torch.sparse", "torch.cuda.sparse"}
"""Where torch keeps classes of storages and tensors: of any other module, naming one would import it."""
_TORCH_NAMES = {*TORCH_DTYPES, "Size", "device", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2", "complex32",
                "chalf", "qint8", "qint32", "quint8", "quint4x2", "quint2x4", "per_tensor_affine",
                "per_channel_affine", "QInt8Storage", "QInt32Storage", "QUInt8Storage", "QUInt4x2Storage",
                "QUInt2x4Storage", "per_tensor_symmetric", "per_channel_symmetric",
                "per_channel_affine_float_qparams",
                *(f"{sign}int{n}" for sign in ("", "u") for n in range(1, 8))}  # fmt: skip
_CONTAINERS = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in ("dict", "list", "tuple", "set", "frozenset", "bytes", "bytearray", "complex", "int", "long")
    ),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("float", "str", "bool", "slice")),
    "_codecs.encode",
    "torch.serialization._get_layout",
    "torch._utils._rebuild_qtensor",
    "torch.storage.TypedStorage",
    "torch.jit._pickle.restore_type_tag",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_tensorlist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_boollist",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
}

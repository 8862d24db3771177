"""The dtypes of weight files: one table, with true bit widths. Importing this loads no NumPy."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from weighttools.errors import SpecError

if TYPE_CHECKING:
    import numpy as np


class DType(NamedTuple):
    """A logical element type; equal to its name as a text, ``tensor.dtype == "float32"``, and hashed as that is.

    Parameters
    ----------
    name
        The NumPy or ml_dtypes name, e.g. ``"float32"`` or ``"bfloat16"``.
    bits
        The true width of one element in bits; 4 and 6 for the packed types.
    kind
        ``"float"``, ``"int"``, ``"uint"``, ``"bool"`` or ``"complex"``.
    """

    name: str
    bits: int
    kind: str

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DType):
            return self is other or tuple.__eq__(self, other)
        return isinstance(other, str) and self.name == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def is_float(self) -> bool:
        """Whether this is a real floating-point type."""
        return self.kind == "float"

    @property
    def pack(self) -> int:
        """The smallest number of elements that fills whole bytes: 1, but 2 at 4 bits and 4 at 6 bits."""
        return {4: 2, 6: 4}.get(self.bits, 1)

    def nbytes(self, n_elements: int) -> int:
        """Return the packed size of `n_elements` in bytes, rounded up to a whole byte."""
        return -(-n_elements * self.bits // 8)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype; 4- and 6-bit elements take one byte each there."""
        return _numpy(self.name)


@functools.cache
def _numpy(name: str) -> np.dtype[Any]:
    import ml_dtypes
    import numpy as np

    return np.dtype(getattr(ml_dtypes, name, name))


_TABLE = {
    "float": [
        ("float64", 64),
        ("float32", 32),
        ("float16", 16),
        ("bfloat16", 16),
        ("float8_e5m2", 8),
        ("float8_e4m3fn", 8),
        ("float8_e8m0fnu", 8),
        ("float8_e4m3fnuz", 8),
        ("float8_e5m2fnuz", 8),
        ("float8_e4m3", 8),
        ("float8_e3m4", 8),
        ("float8_e4m3b11fnuz", 8),
        ("float6_e2m3fn", 6),
        ("float6_e3m2fn", 6),
        ("float4_e2m1fn", 4),
    ],
    "int": [("int64", 64), ("int32", 32), ("int16", 16), ("int8", 8)],
    "uint": [("uint64", 64), ("uint32", 32), ("uint16", 16), ("uint8", 8)],
    "bool": [("bool", 8)],
    "complex": [("complex128", 128), ("complex64", 64)],
}

DTYPES: dict[str, DType] = {name: DType(name, bits, kind) for kind, rows in _TABLE.items() for name, bits in rows}

ALIASES: dict[str, str] = {
    "f64": "float64",
    "fp64": "float64",
    "double": "float64",
    "f32": "float32",
    "fp32": "float32",
    "float": "float32",
    "f16": "float16",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "f8_e4m3": "float8_e4m3fn",
    "fp8": "float8_e4m3fn",
    "e4m3": "float8_e4m3fn",
    "f8_e5m2": "float8_e5m2",
    "e5m2": "float8_e5m2",
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "i8": "int8",
    "u8": "uint8",
}


def dtype(name: str | DType | Any) -> DType:
    """Return the dtype called `name`: a NumPy or ml_dtypes name, or a common short form such as ``bf16``.

    A dtype of our own, of NumPy or ml_dtypes (``np.float32``, ``ml_dtypes.bfloat16``, ``array.dtype``) and of torch
    is taken too.

    Raises
    ------
    SpecError
        No dtype has that name; near names are given.

    Examples
    --------
    >>> dtype("bf16")
    DType(name='bfloat16', bits=16, kind='float')
    >>> import numpy as np
    >>> dtype(np.float32) == "float32"
    True
    """
    if isinstance(name, DType):
        return name
    if not isinstance(name, str):
        return _of_object(name)
    found = DTYPES.get(ALIASES.get(name.lower(), name.lower()))
    if found is None:
        raise SpecError(f"unknown dtype {name!r}", expected=_near(name), code="unknown-dtype")
    return found


def _of_object(given: Any) -> DType:
    """Return the dtype that an object of NumPy, ml_dtypes or torch stands for."""
    if type(given).__module__ == "torch":
        return dtype(str(given).removeprefix("torch."))
    import numpy as np

    try:
        if given is not None:  # which is float64 to NumPy
            return from_numpy(np.dtype(given))
    except TypeError:
        pass
    raise SpecError(
        f"{given!r} is no dtype", expected="a dtype such as float32, float16, bfloat16", code="unknown-dtype"
    )


def _near(name: str) -> str:
    from weighttools.core.near import near

    close = near(name.lower(), [*DTYPES, *ALIASES])
    return f"a dtype such as {', '.join(close or ['float32', 'float16', 'bfloat16'])}"


def from_numpy(numpy_dtype: np.dtype[Any]) -> DType:
    """Return the table's dtype for a NumPy dtype, whatever its byte order.

    Raises
    ------
    SpecError
        The dtype holds no numbers (object, string, structured, datetime).
    """
    found = DTYPES.get(numpy_dtype.name)
    if found is None:
        raise SpecError(
            f"dtype {numpy_dtype} holds no plain numbers", expected="a numeric dtype", code="unsupported-dtype"
        )
    return found

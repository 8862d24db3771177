"""NumPy arrays inside a pickle, read as data. Source: ``numpy.ndarray.__reduce__`` and ``numpy.dtype.__reduce__``."""

from __future__ import annotations

import math
from typing import Any

from weighttools.core.spec import Span
from weighttools.core.tensor import Tensor
from weighttools.errors import CorruptFileError, UnsupportedError
from weighttools.formats.pickles.objects import Global, Made, plain
from weighttools.io.source import Bytes

_MAKERS = {Global(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
_FROM_BUFFER = {Global(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
"""Protocol 5: buffer, dtype, shape, order."""
_DTYPE = Global("numpy", "dtype")


def array_of(value: Any, subject: str) -> Tensor | list[Any] | None:
    """Return the array that a pickle holds: a tensor, or the list of an object array's elements; None if it is none.

    Raises
    ------
    CorruptFileError
        Its state is not an array's.
    UnsupportedError
        Its elements are no plain numbers.
    """
    if type(value) is not Made or type(value.callee) is not Global:
        return None
    if value.callee in _FROM_BUFFER and len(value.args) == 4 and type(shape := plain(value.args[2])) is tuple:
        return _numbers(shape, value.args[1], value.args[3] == "F", plain(value.args[0]), subject)
    if value.callee not in _MAKERS:
        return None
    state = value.state
    if type(state) is not tuple or len(state) != 5 or type(state[1]) is not tuple:
        raise CorruptFileError("a NumPy array in the pickle has no array's state", subject=subject)
    _, shape, dtype, fortran, data = state
    if type(data) is list:
        return data
    return _numbers(shape, dtype, fortran is True or fortran == 1, plain(data), subject)


def _numbers(shape: tuple[Any, ...], dtype: Any, fortran: bool, data: Any, subject: str) -> Tensor:
    from weighttools.core.readers import Raw
    from weighttools.formats import npy_elements, npy_header

    if type(data) is not bytes or len(shape) > 64 or not all(type(n) is int and 0 <= n < 1 << 62 for n in shape):
        raise CorruptFileError("a NumPy array in the pickle has no plain shape and bytes", subject=subject)
    header = npy_header.NpyHeader(type_string(dtype), fortran, shape, None, 0)
    spec, order, length = npy_header.layout(header, subject, len(data), None)
    if length != len(data) or length != math.prod(shape) * spec.dtype.bits // 8:
        raise CorruptFileError(
            f"a NumPy array in the pickle has {len(data):,} bytes", subject=subject, expected=f"{length:,}"
        )
    span = Span(Bytes(data, subject), 0, length)
    if spec.encoding == "raw":
        return Tensor(spec, None, span)
    return npy_elements.tensor_of(spec, Raw(span, spec.dtype, order), span)


def type_string(dtype: Any) -> str:
    """Return NumPy's type string of ``numpy.dtype(code, …)`` with the state ``(version, byte order, …)``.

    Raises
    ------
    UnsupportedError
        It is no such type.
    """
    if type(dtype) is not Made or dtype.callee != _DTYPE or not dtype.args or type(dtype.args[0]) is not str:
        raise UnsupportedError("a NumPy array of elements that are no plain numbers")
    state = dtype.state
    order = state[1] if type(state) is tuple and len(state) > 1 and state[1] in ("<", ">", "|", "=") else "|"
    return f"{order}{dtype.args[0]}"

"""What stands beside the tensors of a pickle: its keys as names, and small values such as an epoch or a rate.

Source: ``numpy.generic.__reduce__`` (a scalar is ``scalar(dtype, bytes)``).
"""

from __future__ import annotations

import struct
from typing import Any

from weighttools.core.budgets import MOST_KEY_PARTS, MOST_VALUE_TEXT
from weighttools.errors import UnsupportedError
from weighttools.formats.pickles.arrays import type_string
from weighttools.formats.pickles.objects import Global, Made, plain

_SCALARS = {Global(f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")}
_CODES = {
    "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d", "b1": "?",
}  # fmt: skip
"""NumPy's type codes to those of `struct`."""
_INTEGERS = range(-(1 << 63), 1 << 64)

Value = bool | int | float | str | None


def is_numpy_scalar(value: Any) -> bool:
    """Whether unpickling would have made a NumPy scalar: a value, not a container of any."""
    return type(value) is Made and type(value.callee) is Global and value.callee in _SCALARS


def small_value(value: Any) -> tuple[Value] | None:
    """Return a small value that people ask for, in a tuple, since it may be None; None for anything else.

    >>> small_value(3), small_value("x" * 10_000)
    ((3,), None)
    """
    if is_numpy_scalar(value):
        return _unpacked(value.args)
    if type(value) is int:
        return (value,) if value in _INTEGERS else None
    if type(value) is str:
        return (value,) if len(value) <= MOST_VALUE_TEXT else None
    return (value,) if type(value) in (bool, float, type(None)) else None


def _unpacked(args: tuple[Any, ...]) -> tuple[Value] | None:
    """Decode ``scalar(dtype, bytes)``; None for elements that are no plain number."""
    try:
        named, data = type_string(args[0]), plain(args[1])
        order, code = named[0], _CODES[named[1:]]
        found: tuple[Value] = struct.unpack(f"{'>' if order == '>' else '<'}{code}", data)
    except (UnsupportedError, IndexError, KeyError, TypeError, struct.error):
        return None
    return found


def key_text(key: Any) -> str:
    """Return a dictionary's key as a part of a name: a tuple's parts with dots between them, as ``layer.3``.

    >>> key_text(("layer", 3)), key_text(b"w"), key_text(Global("torch", "float32"))
    ('layer.3', 'w', 'torch.float32')
    """
    parts = _parts(key)
    return ".".join(map(_part_text, parts))


def _parts(key: Any) -> list[Any]:
    """Take a tuple apart, and those in it; one that would unfold without measure keeps its rest as it is."""
    open_parts, done = [key], list[Any]()
    while open_parts and len(done) + len(open_parts) <= MOST_KEY_PARTS:
        first = plain(open_parts.pop(0))
        if type(first) in (tuple, list) and 0 < len(first) <= MOST_KEY_PARTS:
            open_parts[:0] = first
        else:
            done.append(first)
    return done + open_parts


def _part_text(key: Any) -> str:
    if type(key) is str:
        return key
    if type(key) is bytes:
        return key.decode("utf-8", "backslashreplace")
    if type(key) is int and key not in _INTEGERS:
        return hex(key)  # Python refuses to write thousands of decimal digits
    if type(key) in (int, float, bool, type(None), Global):
        return str(key)
    if (found := small_value(key)) is not None:
        return str(found[0])
    return f"<{key.callee}>" if type(key) is Made and type(key.callee) is Global else f"<{type(key).__name__}>"

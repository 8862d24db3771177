"""What operations take, and what pullbacks must give back: one line each where that is not so."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from weighttools.errors import SpecError

_CAST = "read or cast as float32: array.astype(np.float32)"
_ARRAYS = (np.ndarray, np.generic)
_NUMBERS = (int, float, complex)


def check(name: str, values: Sequence[Any]) -> None:
    """Raise SpecError unless operation `name` can take `values`: arrays, numbers or none, no floats below 32 bits."""
    for value in values:
        if isinstance(value, _ARRAYS):
            if value.dtype.itemsize < 4 and is_floating(value.dtype):
                raise _refusal(value.dtype, name)
        elif value is not None and not isinstance(value, _NUMBERS):
            raise _no_array(value, name)


def floats(subject: str, *arrays: Any) -> None:
    """Raise SpecError unless each array is float32 or wider: integers would be rounded on the way."""
    for array in arrays:
        if not isinstance(array, _ARRAYS):
            raise _no_array(array, subject)
        if array.dtype.kind != "f" or array.dtype.itemsize < 4:
            raise _refusal(array.dtype, subject)


def is_floating(dtype: Any) -> bool:
    """Return whether numbers of `dtype` are floating, bfloat16 and its like, which NumPy calls void, included."""
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def _no_array(value: Any, subject: str) -> SpecError:
    fact, remedy = f"a {type(value).__name__} is no array", "np.asarray, or f(*arrays)"
    return SpecError(fact, subject=subject, expected="arrays", remedy=remedy)


def _refusal(dtype: Any, subject: str) -> SpecError:
    return SpecError(f"an array of {dtype.name}", subject=subject, expected="float32 or float64", remedy=_CAST)


def gradients(name: str, grads: Any, n: int) -> None:
    """Raise SpecError unless the pullback of operation `name` gave `n` gradients."""
    if not isinstance(grads, (tuple, list)) or len(grads) != n:
        found = f"{len(grads)} gradients" if isinstance(grads, (tuple, list)) else f"a {type(grads).__name__}"
        expected = "one gradient for each array, as a tuple"
        raise SpecError(f"the pullback gives {found} for {n} arrays", subject=name, expected=expected)


def gradient(name: str, grad: Any, shape: tuple[int, ...]) -> None:
    """Raise SpecError unless a gradient that operation `name` gave has its array's `shape`."""
    if getattr(grad, "shape", None) != shape and np.shape(grad) != shape:  # the latter alone takes twice as long
        raise SpecError(
            f"the pullback gives a gradient of shape {np.shape(grad)} for an array of {shape}", subject=name
        )


def misfit(name: str, values: Sequence[Any], error: Exception) -> SpecError:
    """Return NumPy's complaint in one line, with the shapes."""
    shapes = ", ".join("none" if v is None else str(np.shape(v)) for v in values)
    return SpecError(f"shapes {shapes} do not fit: {str(error).splitlines()[0]}", subject=name)


def signature(f: Callable[..., Any]) -> inspect.Signature:
    """Return what callers of the operation made of `f` give and get: variables too, no ``keep``, and a result alone."""
    taken = inspect.signature(f)
    kept = [p.replace(annotation=_widened(p)) for p in taken.parameters.values() if p.name != "keep"]
    return taken.replace(parameters=kept, return_annotation="Array | Variable")


def _widened(parameter: inspect.Parameter) -> Any:
    is_option = parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD)
    told = parameter.annotation
    return told.replace("Array", "Array | Variable") if isinstance(told, str) and not is_option else told

"""Anyone's arrays as NumPy's, without losing a bit."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from weighttools.core import dtypes
from weighttools.errors import SpecError

if TYPE_CHECKING:
    from weighttools.core.spec import Array


def array_of(value: Any) -> Array:
    """Return what a user gives for an array as one, in the machine's byte order; it is not copied without need.

    Parameters
    ----------
    value
        An array of NumPy's or ml_dtypes' dtypes, a torch tensor on the CPU (bfloat16 and 8-bit floats too), or
        whatever else `numpy.asarray` makes numbers of.

    Raises
    ------
    SpecError
        It holds no plain numbers, cannot be an array, or has masked elements.
    """
    array = _array(value)
    dtype = dtypes.from_numpy(array.dtype)
    return array if array.dtype == dtype.numpy else array.astype(dtype.numpy)


def _array(value: Any) -> Array:
    """Return the array that a value is, or stands for."""
    import numpy as np

    masked = sys.modules.get("numpy.ma")  # there if an array of its is
    if masked is not None and isinstance(value, masked.MaskedArray) and masked.is_masked(value):
        raise _no_array("has masked elements", "fill them in with .filled(...)")
    if value is None:
        raise _no_array("is None")
    if isinstance(value, Mapping):
        raise _no_array("is a mapping", "give each tensor a name of its own, with dots between the parts")
    if type(value).__module__.partition(".")[0] == "torch":
        return _of_torch(value)
    try:
        is_foreign = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
        return np.from_dlpack(value) if is_foreign else np.asarray(value)
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        raise _no_array(f"cannot be made an array: {error}") from None


def _of_torch(value: Any) -> Array:
    """Return a torch tensor's values; of dtypes that NumPy does not know, by their bits.

    Torch is there already if a tensor of its is; it is never imported here.
    """
    import numpy as np

    torch = sys.modules["torch"]
    try:
        plain = value.detach().resolve_conj().resolve_neg()
        if str(plain.dtype).startswith(("torch.bfloat16", "torch.float8")):
            bits = torch.int16 if plain.element_size() == 2 else torch.uint8
            return np.asarray(plain.view(bits)).view(dtypes.dtype(plain.dtype).numpy)
        return np.asarray(plain)
    except (AttributeError, ValueError, TypeError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _no_array(
            f"cannot be made an array: {first}", "dense tensors on the CPU can: .cpu(), .to_dense()"
        ) from None


def _no_array(fact: str, remedy: str | None = None) -> SpecError:
    return SpecError(fact, expected="an array of numbers", remedy=remedy, code="unsupported-dtype")

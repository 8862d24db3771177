"""Which kernel to use: compiled code is quicker, once it is loaded."""

from __future__ import annotations

from importlib.util import find_spec

from weighttools.core.registry import need
from weighttools.errors import SpecError

KERNELS = ("auto", "numpy", "numba")

WORTH_BYTES = 10**9
"""From this size on, what compiled code saves is more than the time that loading it takes."""


def choose_kernel(kernel: str, n_bytes: int) -> str:
    """Return ``"numpy"`` or ``"numba"`` for an input of `n_bytes`.

    Raises
    ------
    SpecError
        There is no such kernel.
    MissingDependencyError
        ``"numba"`` is asked for, and not installed.
    """
    if kernel not in KERNELS:
        raise SpecError(
            f"unknown kernel {kernel!r}", expected="one of " + ", ".join(KERNELS), code="unknown-option-value"
        )
    if kernel == "numba" and find_spec("numba") is None:
        need("numba", "the compiled kernel", "fast")
    if kernel == "auto":
        return "numba" if n_bytes >= WORTH_BYTES and find_spec("numba") else "numpy"
    return kernel

"""Adam in one compiled sweep (extra ``[fast]``): what the NumPy chain does in eleven, to the same bits.

No fast-math: each multiplication, sum, root and division is rounded on its own, in the chain's order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def adam(p: Any, g: Any, m: Any, v: Any, factor: Any, beta1: Any, beta2: Any, eps: Any, rate: Any, shrink: Any) -> None:
    """Update flat arrays of one dtype in place, all but `g`; the numbers are scalars of that dtype.

    Parameters
    ----------
    factor
        What the gradient is multiplied by first.
    eps, rate
        As `transforms.Adam.begin` has them; `rate` has the learning rate in it.
    shrink
        What the parameter is multiplied by before the update is taken off.
    """
    for i in range(p.size):
        u = g[i] * factor
        first = m[i] * beta1 + u
        second = v[i] * beta2 + u * u
        m[i], v[i] = first, second
        p[i] = p[i] * shrink - first / (np.sqrt(second) + eps) * rate

"""Turned reads what NumPy's own strided views show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from weighttools.core import turned as module
from weighttools.core.dtypes import DTYPES
from weighttools.core.readers import aligned_read
from weighttools.core.tensor import Span
from weighttools.io.source import Bytes


@given(data=st.data())
def test_pieces_equal_numpys_view(data: Any) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    base = np.arange(int(np.prod(shape)), dtype=data.draw(st.sampled_from(["<i4", ">i4", "<i2"]))).reshape(shape)
    view = base.transpose(data.draw(st.permutations(range(len(shape)))))
    axis = data.draw(st.integers(0, len(shape) - 1))
    stop = data.draw(st.integers(1, view.shape[axis]))
    view = view[(*[slice(None)] * axis, slice(0, stop))]
    strides = tuple(stride // view.itemsize for stride in view.strides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SHORT_BYTES", 0)
        patch.setattr(module, "PIECE_BYTES", data.draw(st.integers(600, 2000)))
        span, order = Span(Bytes(base.tobytes()), 0, base.nbytes), base.dtype.str[0]
        found = module.turned(span, DTYPES[base.dtype.name], order, view.shape, strides)
    assert found is not None
    flat = view.astype(base.dtype.newbyteorder("=")).reshape(-1)
    np.testing.assert_array_equal(found(0, flat.size), flat)
    start = data.draw(st.integers(0, flat.size))
    stop = data.draw(st.integers(start, flat.size))
    np.testing.assert_array_equal(aligned_read(found, start, stop, flat.size), flat[start:stop])


@pytest.mark.parametrize("shape, strides", [((4, 3), (0, 1)), ((3, 3), (1, 1)), ((2, 0), (1, 1)), ((), ())])
def test_shared_places_and_nothing_are_left_to_others(shape: Any, strides: Any) -> None:
    base = np.arange(12.0)
    assert as_strided(base, shape, [8 * s for s in strides]).shape == shape
    assert module.turned(Span(Bytes(base.tobytes()), 0, 96), DTYPES["float64"], "<", shape, strides) is None

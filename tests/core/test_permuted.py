"""Permuted axes read in bands of their base, against NumPy's transpose; and what of the base is read for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.sources import CountingSource
from tests.strategies import bits_of, random_array, shapes
from weighttools.core import plan
from weighttools.core.dtypes import DTYPES
from weighttools.core.readers import BAND_ELEMENTS, Elementwise, Held, Raw, Strided, Whole
from weighttools.core.spec import Span, Spec
from weighttools.core.tensor import BLOCK_ELEMENTS, Tensor
from weighttools.io.source import LocalFile


def strided(base: Any, array: np.ndarray[Any, Any], view: np.ndarray[Any, Any]) -> Strided:
    """The reader of a view of `array`, which `base` reads."""
    address = [a.__array_interface__["data"][0] for a in (view, array)]
    item = array.itemsize
    offset = (address[0] - address[1]) // item if view.size else 0
    return Strided(base, array.size, view.shape, tuple(s // item for s in view.strides), offset)


@given(st.data())
def test_any_permuted_and_stepped_view_is_numpys(data: st.DataObject) -> None:
    dtype = DTYPES[data.draw(st.sampled_from(["float32", "bfloat16", "int8", "complex128"]))]
    array = random_array(dtype, data.draw(shapes(max_dims=4, max_side=6)), 1)
    view = array.transpose(data.draw(st.permutations(range(array.ndim))))
    step = st.sampled_from([1, 1, 2, -1, -2])
    view = view[(..., *(slice(None, None, data.draw(step)) for _ in view.shape))]
    reader = strided(Held(array.reshape(-1)), array, view)
    start = data.draw(st.integers(0, view.size))
    stop = data.draw(st.integers(start, view.size))
    found = reader(start, stop)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(bits_of(found), bits_of(view.reshape(-1)[start:stop]))


@given(shapes(min_dims=0, max_dims=4, zero=False), st.data())
def test_boxes_cover_a_run_once_and_in_order(shape: tuple[int, ...], data: st.DataObject) -> None:
    flat = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    start = data.draw(st.integers(0, flat.size))
    stop = data.draw(st.integers(start, flat.size))
    parts = [
        flat[tuple(slice(a, a + n) for a, n in zip(at, lengths, strict=True))].reshape(-1)
        for at, lengths in plan.boxes(start, stop, shape)
    ]
    np.testing.assert_array_equal(np.concatenate([*parts, np.empty(0, int)]), np.arange(start, stop))


@pytest.mark.parametrize("shape", [(700, 900), (3000, 200), (200, 3000), (64, 48, 3, 3)])
@pytest.mark.parametrize("block", [1000, 1 << 16, BAND_ELEMENTS])
def test_blocks_of_a_transpose_from_a_file(tmp_path: Path, shape: tuple[int, ...], block: int) -> None:
    array = np.random.default_rng(0).random(shape, dtype=np.float32)
    path = tmp_path / "base"
    array.tofile(path)
    raw = Raw(Span(LocalFile(path), 0, array.nbytes), DTYPES["float32"])
    reader = strided(raw, array, array.T)
    tensor = Tensor(Spec(DTYPES["float32"], array.T.shape), reader)
    np.testing.assert_array_equal(np.concatenate(list(tensor.blocks(block))), array.T.reshape(-1))


def test_a_transpose_read_in_bands_passes_over_its_base_a_few_times_only() -> None:
    array = np.arange(3000 * 4000, dtype=np.int16).reshape(3000, 4000)
    source = CountingSource(array.tobytes())
    reader = strided(Raw(Span(source, 0, array.nbytes), DTYPES["int16"]), array, array.T)
    tensor = Tensor(Spec(DTYPES["int16"], array.T.shape), reader)
    assert tensor.run_elements % 3000 == 0 and BLOCK_ELEMENTS < tensor.run_elements <= BAND_ELEMENTS
    n_bands = -(-array.size // tensor.run_elements)
    found = np.concatenate(list(tensor.blocks(tensor.run_elements)))
    np.testing.assert_array_equal(found, array.T.reshape(-1))
    assert sum(length for _, length in source.reads) <= n_bands * array.nbytes
    assert max(length for _, length in source.reads) <= plan.PIECE_ELEMENTS * 2


def test_a_fold_reads_a_transpose_in_bands() -> None:
    array = np.arange(3000 * 2000, dtype=np.int16).reshape(3000, 2000)
    source = CountingSource(array.tobytes())
    reader = strided(Raw(Span(source, 0, array.nbytes), DTYPES["int16"]), array, array.T)
    row = wt.stats(wt.TensorMap({"x": Tensor(Spec(DTYPES["int16"], array.T.shape), reader)}))["tensors"][0]
    assert (row["count"], row["min"], row["max"]) == (array.size, array.min(), array.max())
    assert len(source.reads) < 100  # block by block it would be thousands, each of a part of a row
    assert sum(length for _, length in source.reads) <= 3 * array.nbytes


def test_bands_are_for_permuted_axes_and_pass_through_casts() -> None:
    base = Held(np.zeros(1 << 20, np.float32))
    turned = Strided(base, 1 << 20, (1024, 1024), (1, 1024), 0)
    assert Elementwise(turned, np.negative).band == turned.band == 1 << 20
    assert Strided(base, 1 << 20, (512, 1024), (2048, 1), 0).band == 1
    huge = Strided(base, 1 << 40, (4, 1 << 38), (1, 4), 0)
    assert huge.band == BAND_ELEMENTS


def test_a_base_that_comes_whole_is_loaded_once() -> None:
    array = np.arange(1500 * 1000, dtype=np.int64).reshape(1500, 1000)
    loads = []

    def load() -> Any:
        loads.append(1)
        return array.reshape(-1)

    tensor = Tensor(Spec(DTYPES["int64"], (1000, 1500)), strided(Whole(load, array.size), array, array.T))
    np.testing.assert_array_equal(np.concatenate(list(tensor.blocks())), array.T.reshape(-1))
    assert len(loads) == 1

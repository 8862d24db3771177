"""Slices of tensors that are not read against NumPy's basic indexing, and what is read for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.formats.packed import pack_bits
from tests.refused import refused
from tests.sources import CountingSource
from tests.strategies import arrays, same_bits, shapes
from weighttools.core.dtypes import DTYPES
from weighttools.core.readers import NEAR_ELEMENTS, Held, Joined, Strided, Whole, aligned_read
from weighttools.core.slicing import parse_slice
from weighttools.core.spec import Span, Spec
from weighttools.core.strides import c_strides, is_contiguous
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError

WIDE = tuple(name for name in DTYPES if DTYPES[name].bits >= 8)


def stored(array: np.ndarray[Any, Any]) -> tuple[Tensor, CountingSource]:
    """The array as a tensor in a source that counts."""
    dtype = DTYPES[array.dtype.name]
    data = pack_bits(array, dtype.bits) if dtype.bits < 8 else array.tobytes()
    source = CountingSource(b"head" + data + b"tail")
    return Tensor(Spec(dtype, array.shape), None, Span(source, 4, len(data))), source


@given(st.data())
def test_slices_are_numpys(data: st.DataObject) -> None:
    array = data.draw(arrays(shape=shapes(max_side=6), whole_bytes=True))
    key = data.draw(hnp.basic_indices(array.shape, allow_newaxis=False, allow_ellipsis=True))
    for tensor in (stored(array)[0], TensorMap.from_arrays({"a": array})["a"]):
        assert tensor.sliced(key).shape == array[key].shape
        assert same_bits(tensor[key], np.asarray(array[key]))


@given(st.data())
def test_slices_of_slices_and_their_blocks(data: st.DataObject) -> None:
    array = data.draw(arrays(shape=shapes(1, 3, 6), whole_bytes=True))
    first = data.draw(hnp.basic_indices(array.shape, allow_newaxis=False))
    once, expected = stored(array)[0].sliced(first), np.asarray(array[first])
    second = data.draw(hnp.basic_indices(expected.shape, allow_newaxis=False))
    assert same_bits(once[second], np.asarray(expected[second]))
    whole = np.concatenate([*once.blocks(3), np.empty(0, array.dtype)])
    assert same_bits(whole, np.ascontiguousarray(expected).reshape(-1))


@given(st.data())
def test_only_bytes_near_the_slice_are_read(data: st.DataObject) -> None:
    array = data.draw(arrays(WIDE, shapes(1, 3, 9)))
    key = data.draw(hnp.basic_indices(array.shape, allow_newaxis=False))
    tensor, source = stored(array)
    tensor[key]
    item = array.itemsize
    where = np.arange(array.size).reshape(array.shape)[key]
    wanted = np.sort(np.asarray(where).reshape(-1))
    runs = [((offset - 4) // item, (offset - 4 + length) // item) for offset, length in source.reads]
    read = sorted(i for start, stop in runs for i in range(start, stop))
    assert len(read) == len(set(read))  # nothing twice
    assert set(wanted.tolist()) <= set(read)
    gaps = np.diff(wanted)
    assert len(read) == len(wanted) + int((gaps[gaps <= NEAR_ELEMENTS] - 1).sum())
    assert all((offset - 4) % item == 0 and length % item == 0 for offset, length in source.reads)


@pytest.mark.parametrize(
    "key",
    [5, -6, (0, 4), (0, 0, 0), (..., ...), 1.0, "a", None, [0], True, np.array([0, 1]), np.float32(1), slice(1.5),
     slice("a"), slice(None, None, 0), slice(0, True), (slice(None), object())],
)  # fmt: skip
def test_what_is_no_basic_index_is_refused(key: Any) -> None:
    tensor = stored(np.zeros((5, 4), np.float32))[0]
    with pytest.raises(SpecError) as caught:
        tensor.sliced(key)
    assert "\n" not in str(caught.value)


def test_integers_of_any_kind_index() -> None:
    array = np.arange(20).reshape(5, 4)
    tensor = stored(array)[0]
    assert tensor[np.int8(-1), np.uint64(2)] == array[-1, 2]
    assert same_bits(tensor[np.int16(1) : np.int32(3)], array[1:3])
    assert same_bits(tensor[()], array)


def test_an_empty_axis_has_no_index() -> None:
    with refused(SpecError, "slice", "an axis that is not empty"):
        stored(np.zeros((0, 3)))[0].sliced(0)


@given(st.lists(st.one_of(st.integers(-99, 99), st.just(...), st.slices(9)), max_size=4).filter(
    lambda parts: parts.count(...) < 2
))  # fmt: skip
def test_text_of_a_slice_is_parsed_as_python_reads_it(parts: list[Any]) -> None:
    def spelled(part: Any) -> str:
        if isinstance(part, slice):
            ends = ("" if end is None else str(end) for end in (part.start, part.stop, part.step))
            return ":".join(ends)
        return "..." if part is ... else str(part)

    if parts:
        assert list(parse_slice(" , ".join(map(spelled, parts)))) == parts
        assert list(parse_slice(",".join(map(spelled, parts)) + ",")) == parts


NO_SLICES = ["", "a", "1.0", "0x1", "1:2:3:4", "[0]", "None", "__import__('os')", "9" * 5000, "1 2", "--1"]


@pytest.mark.parametrize("text", NO_SLICES)
def test_text_that_is_no_slice(text: str) -> None:
    with refused(SpecError, "slice", "cannot read slice"):
        parse_slice(text)


@given(shapes())
def test_strides_are_numpys(shape: tuple[int, ...]) -> None:
    strides = c_strides(shape)
    array = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), shape, strides)
    assert is_contiguous(shape, strides) and array.flags.c_contiguous
    assert tuple(np.zeros(shape, np.uint8).strides) == strides or 0 in shape


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.data())
def test_joined_readers_are_one(lengths: list[int], data: st.DataObject) -> None:
    parts = [np.arange(n) + 100 * i for i, n in enumerate(lengths)]
    whole = np.concatenate(parts)
    readers = tuple(Held(part) if i % 2 else Whole(part.copy, part.size) for i, part in enumerate(parts))
    joined = Joined(readers, tuple(np.cumsum(lengths).tolist()))
    start = data.draw(st.integers(0, whole.size))
    stop = data.draw(st.integers(start, whole.size))
    assert joined(start, stop).tolist() == whole[start:stop].tolist()
    assert joined.granularity >= 1


@given(st.integers(1, 40), st.integers(1, 7), st.data())
def test_aligned_read_keeps_to_boundaries(n: int, unit: int, data: st.DataObject) -> None:
    seen: list[tuple[int, int]] = []

    class Coarse:
        granularity = unit

        def __call__(self, start: int, stop: int) -> np.ndarray[Any, Any]:
            seen.append((start, stop))
            return np.arange(start, stop)

    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    assert aligned_read(Coarse(), start, stop, n).tolist() == list(range(start, stop))
    assert all(a % unit == 0 and (b % unit == 0 or b == n) for a, b in seen)


def test_slice_of_a_tensor_that_can_only_be_had_whole_is_read_once() -> None:
    calls: list[int] = []

    def load() -> np.ndarray[Any, Any]:
        calls.append(1)
        return np.arange(100)

    tensor = Tensor(Spec(DTYPES["int64"], (10, 10)), Whole(load, 100))
    part = tensor.sliced((slice(None, None, 3), 2))
    assert isinstance(part.reader, Strided)
    joined = np.concatenate(list(part.blocks(1)))
    assert joined.tolist() == [2, 32, 62, 92] and calls == [1]

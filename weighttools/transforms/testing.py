"""What every transform with a name must do. A transform's own test subclasses `TransformConformance`.

The oracle is another implementation, by the hook `expected`; never our own output. A minimal subclass::

    class TestThing(TransformConformance):
        name, arguments = "thing", (0.5,)

        def expected(self, name, array): return otherlibrary.thing(array, 0.5)

A transform of another package is found by its entry point, so that package must be installed.
"""

from __future__ import annotations

import pickle
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np

from weighttools.core import testing as strategies
from weighttools.core.dtypes import DTYPES, DType, from_numpy
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap, Transform
from weighttools.core.testing import assert_same, at_most, bits_of
from weighttools.errors import MissingDependencyError, SpecError
from weighttools.transforms.naming import transform

try:
    from hypothesis import given
    from hypothesis import strategies as st
except ImportError:
    raise MissingDependencyError(
        "the conformance suite needs Hypothesis", remedy="pip install pytest hypothesis"
    ) from None

Array = np.ndarray[Any, Any]

SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (7,), (3, 0, 2), (48, 64), (2, 3, 5))


class Unread:
    """A reader that must not be asked."""

    granularity = 1

    def __call__(self, start: int, stop: int) -> Array:
        """Fail."""
        raise AssertionError("values are read before they are asked for")


class TransformConformance:
    """The suite. Attributes say what the transform leaves as it is.

    Attributes
    ----------
    name, arguments, options
        By which `weighttools.transform` makes it.
    dtypes
        Dtypes that are tried.
    exact
        Whether values are the oracle's to the bit; else to `relative`.
    keeps_names, keeps_metadata, keeps_aliases
        What stays; names in their order.
    takes_any_bits
        Whether it takes any values; else only ordinary numbers are tried, and any bits are read or refused.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any]
    dtypes: tuple[str, ...] = tuple(DTYPES)
    exact = True
    relative = 1e-6
    keeps_names = keeps_metadata = keeps_aliases = True
    takes_any_bits = True

    # -- hooks ----------------------------------------------------------------------------------------------------

    def expected(self, name: str, array: Array) -> Array:
        """Return what becomes of an array, by another implementation."""
        raise NotImplementedError

    def maps(self) -> st.SearchStrategy[TensorMap]:
        """Maps of any bits (NaN, Inf, subnormals), shapes, names, with metadata and ties."""
        return strategies.tensor_maps(strategies.arrays(self.dtypes, whole_bytes=True), min_size=1)

    # -- helpers --------------------------------------------------------------------------------------------------

    def made(self) -> Transform:
        """Return the transform, as ``convert --apply`` finds it."""
        return transform(self.name, *self.arguments, **getattr(self, "options", {}))

    def examples(self) -> TensorMap:
        """Return a map of every dtype and shape."""
        named = [(dtype, shape) for dtype in self.dtypes for shape in SHAPES if whole(dtype, shape)]
        arrays = {
            f"t.{dtype}.{i}.weight": self.array(DTYPES[dtype], shape, i) for i, (dtype, shape) in enumerate(named)
        }
        return TensorMap.from_arrays(arrays, {"format": "pt"}, {"tied.weight": next(iter(arrays))})

    def array(self, dtype: DType, shape: tuple[int, ...], seed: int) -> Array:
        """Return an array that the transform takes."""
        if self.takes_any_bits:
            return strategies.random_array(dtype, shape, seed)
        return (100 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype.numpy)

    def same(self, name: str, found: Array, expected: Array) -> None:
        """Fail unless two arrays agree."""
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
        if self.exact:
            np.testing.assert_array_equal(bits_of(found), bits_of(expected), err_msg=repr(name))
        else:
            wide = np.complex128 if found.dtype.kind == "c" else np.float64
            with np.errstate(all="ignore"):
                a, b = found.astype(wide), expected.astype(wide)
            np.testing.assert_allclose(a, b, self.relative, err_msg=repr(name))

    # -- values -----------------------------------------------------------------------------------------------------

    def test_the_other_implementation_gives_the_same(self) -> None:
        before = self.examples()
        after = self.made()(before)
        for name, tensor in before.items():
            with np.errstate(all="ignore"):
                expected = self.expected(name, tensor.read())
            self.same(name, after[name].read(), expected)

    def test_any_values_and_nothing_at_all(self) -> None:
        @given(self.maps())
        @at_most(100)
        def check(tensor_map: TensorMap) -> None:
            after = self.made()(tensor_map)
            for name, tensor in after.items():
                with suppress(SpecError) if not self.takes_any_bits else nullcontext():
                    values = tensor.read()
                    assert (from_numpy(values.dtype), values.shape) == (tensor.dtype, tensor.shape), name

        check()
        assert len(self.made()(TensorMap({}))) == 0

    def test_the_map_before_stays_as_it_was(self) -> None:
        before = self.examples()
        names, arrays = list(before), {name: array.copy() for name, array in before.read().items()}
        self.made()(before).read()
        assert list(before) == names and dict(before.metadata) == {"format": "pt"}
        assert_same(before.read(), arrays)

    # -- specs first --------------------------------------------------------------------------------------------------

    def test_specs_change_before_a_value_is_read(self) -> None:
        before = self.examples()
        unread = before.map(lambda name, tensor: Tensor(tensor.spec, Unread()))
        planned, done = self.made()(unread), self.made()(before)
        assert list(planned) == list(done) and planned.specs() == done.specs()
        for name, tensor in done.items():
            values = tensor.read()
            assert (from_numpy(values.dtype), values.shape) == (tensor.dtype, tensor.shape), name

    def test_metadata_ties_and_order_stay(self) -> None:
        @given(self.maps())
        @at_most(100)
        def check(before: TensorMap) -> None:
            after = self.made()(before)
            assert not self.keeps_names or list(after) == list(before)
            assert not self.keeps_metadata or dict(after.metadata) == dict(before.metadata)
            assert not self.keeps_aliases or dict(after.aliases) == dict(before.aliases)
            assert after.origin.path == before.origin.path and after.origin.format == before.origin.format

        check()

    # -- parts ------------------------------------------------------------------------------------------------------

    def test_blocks_of_any_size_are_the_whole(self) -> None:
        for name, tensor in self.made()(self.examples()).items():
            whole_bits = bits_of(tensor.read())
            assert tensor.reader.granularity >= 1
            for size in (1, 8, 100, 1 << 20):
                blocks = list(tensor.blocks(size))
                assert all(block.ndim == 1 for block in blocks), name
                joined = np.concatenate([*blocks, np.empty(0, tensor.dtype.numpy)])
                np.testing.assert_array_equal(bits_of(joined), whole_bits, err_msg=repr(name))

    def test_tensors_pickle(self) -> None:
        after = self.made()(self.examples())
        again = pickle.loads(pickle.dumps(after))
        assert list(again) == list(after) and dict(again.metadata) == dict(after.metadata)
        assert_same(again.read(), after.read())


def whole(dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether elements of a shape fill whole bytes."""
    return Spec(DTYPES[dtype], shape).n_elements % DTYPES[dtype].pack == 0

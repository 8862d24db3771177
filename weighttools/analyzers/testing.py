"""What every analyzer must do. An analyzer's own test subclasses `AnalyzerConformance`.

The oracle is another implementation, by the hook `expected`; never our own output. A minimal subclass::

    class TestThing(AnalyzerConformance):
        name = "thing"

        def expected(self, array): return {"thing": otherlibrary.thing(array)}

An analyzer of another package is found by its entry point, so that package must be installed.
"""

from __future__ import annotations

import itertools
import json
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from weighttools.analyzers.base import Analyzer
from weighttools.analyzers.choosing import chosen
from weighttools.analyzers.describe import usual_figures
from weighttools.analyzers.run import Block, FoldOptions, fold
from weighttools.core import testing as strategies
from weighttools.core.dtypes import DTYPES, from_numpy
from weighttools.core.readers import Held
from weighttools.core.scratch import Scratch
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.testing import at_most
from weighttools.errors import MissingDependencyError

try:
    import pytest
    from hypothesis import given
    from hypothesis import strategies as st
except ImportError:
    raise MissingDependencyError(
        "the conformance suite needs pytest and Hypothesis", remedy="pip install pytest hypothesis"
    ) from None

Array = np.ndarray[Any, Any]
Figures = dict[str, Any]


class AnalyzerConformance:
    """The suite.

    Attributes
    ----------
    name
        By which ``stats --analyzers`` knows it.
    dtypes
        Dtypes that are tried: all, for ``stats`` asks it of all.
    relative, absolute
        How far figures may be from the oracle's, and from those of the same values cut otherwise. Counts and other
        integers are the same.
    unit
        Where blocks may be cut: at multiples of this. Those of ``stats`` begin at multiples of 8.
    """

    name: str
    dtypes: tuple[str, ...] = tuple(DTYPES)
    relative, absolute = 1e-9, 0.0
    unit = 1

    # -- hooks ----------------------------------------------------------------------------------------------------

    def expected(self, array: Array) -> Figures:
        """Return the figures of an array, or some of them, by another implementation; none that it cannot tell."""
        raise NotImplementedError

    def arrays(self) -> st.SearchStrategy[Array]:
        """Arrays of any shape and any bits: NaN, Inf, extremes and subnormals among them."""
        return strategies.arrays(self.dtypes, strategies.shapes(max_side=12, max_dims=3))

    # -- helpers --------------------------------------------------------------------------------------------------

    @property
    def analyzer(self) -> Analyzer:
        """The analyzer, as ``stats`` finds it."""
        return chosen([self.name])[self.name]

    def of(self, array: Array, start: int = 0, stop: int | None = None) -> Any:
        """Return the state of a run of elements, as one block."""
        values = array.reshape(-1)[start : array.size if stop is None else stop]
        with np.errstate(all="ignore"):
            return self.analyzer.of(Block(values, start, spec_of(array), FoldOptions(), Scratch()))

    def alike(self, found: Figures, expected: Figures) -> None:
        """Fail unless the expected figures are found, to the tolerance."""
        assert expected.keys() <= found.keys()
        for key, value in expected.items():
            near = isinstance(value, float) and math.isfinite(value)
            wanted = pytest.approx(value, rel=self.relative, abs=self.absolute) if near else value
            assert found[key] == wanted, key

    # -- figures ----------------------------------------------------------------------------------------------------

    def test_columns_are_figures_of_its_own(self) -> None:
        found = self.of(np.zeros(3, np.float32)).finish(Spec(DTYPES["float32"], (3,)))
        assert isinstance(self.analyzer.columns, tuple) and set(self.analyzer.columns) <= found.keys()
        assert not found.keys() & usual_figures()

    def test_the_other_implementation_gives_the_same(self) -> None:
        @given(self.arrays())
        @at_most(100)
        def check(array: Array) -> None:
            before = array.tobytes()
            with np.errstate(all="ignore"):
                expected = self.expected(array)
            self.alike(self.of(array).finish(spec_of(array)), expected)
            assert array.tobytes() == before, "values are not to be changed"

        check()

    @pytest.mark.parametrize("shape", [(0,), (3, 0), (), (1,), (64,), (4, 8)])
    @pytest.mark.parametrize("value", [0.0, -1.5, math.nan, math.inf])
    def test_figures_have_the_same_names_whatever_the_values(self, shape: tuple[int, ...], value: float) -> None:
        names = list(self.of(np.ones(3, np.float32)).finish(Spec(DTYPES["float32"], (3,))))
        for dtype in self.dtypes:
            with np.errstate(all="ignore"):
                array = np.full(shape, value).astype(DTYPES[dtype].numpy)
            found = self.of(array).finish(spec_of(array))
            assert list(found) == names
            json.loads(json.dumps({key: plain(figure) for key, figure in found.items()}))

    # -- parts ------------------------------------------------------------------------------------------------------

    def test_parts_merged_in_any_grouping_are_the_whole(self) -> None:
        @given(self.arrays(), st.lists(st.floats(0, 1), max_size=4), st.randoms(use_true_random=False))
        @at_most(100)
        def check(array: Array, cuts: list[float], random: Any) -> None:
            ends = sorted({0, array.size, *(int(c * array.size) // self.unit * self.unit for c in cuts)})
            parts = [self.of(array, a, b) for a, b in itertools.pairwise(ends)] or [self.of(array)]
            while len(parts) > 1:  # any neighbours first
                at = random.randrange(len(parts) - 1)
                left, right = (pickle.loads(pickle.dumps(part)) for part in parts[at : at + 2])
                parts[at : at + 2] = [left.merge(right)]
            spec = spec_of(array)
            self.alike(parts[0].finish(spec), self.of(array).finish(spec))

        check()

    def test_nothing_merged_changes_nothing(self) -> None:
        @given(self.arrays())
        @at_most(100)
        def check(array: Array) -> None:
            spec, whole = spec_of(array), self.of(array)
            self.alike(self.of(array).merge(self.of(array, array.size)).finish(spec), whole.finish(spec))
            self.alike(self.of(array, 0, 0).merge(whole).finish(spec), whole.finish(spec))

        if self.unit == 1:
            check()

    def test_threads_and_blocks_of_any_size_give_the_same(self) -> None:
        arrays = [strategies.random_array(DTYPES[name], (40, 33), i) for i, name in enumerate(self.dtypes)]
        tensors = [Tensor(spec_of(array), Held(array)) for array in arrays]
        whole = [state for [state] in fold(tensors, [self.analyzer.of])]
        with ThreadPoolExecutor(3) as pool:
            for size in (64, 1000):
                recipe = FoldOptions(block_elements=size, piece_elements=3 * size)
                cut = [state for [state] in fold(tensors, [self.analyzer.of], recipe, pool)]
                here = [state for [state] in fold(tensors, [self.analyzer.of], recipe)]
                for tensor, one, other, third in zip(tensors, whole, cut, here, strict=True):
                    figures = other.finish(tensor.spec)
                    self.alike(figures, one.finish(tensor.spec))
                    assert figures == third.finish(tensor.spec) or has_nan(figures), "threads change the last bits"

    def test_several_tensors_together_have_the_same_figures_or_fewer(self) -> None:
        array = strategies.random_array(DTYPES["float32"], (8, 8), 0)
        states = [self.of(array), self.of(array[:3])]
        left, right = (state.apart() if hasattr(state, "apart") else state for state in states)
        found = left.merge(right).finish()
        assert list(found) == list(states[0].finish(spec_of(array)))


def spec_of(array: Array) -> Spec:
    """Return the spec of an array."""
    return Spec(from_numpy(array.dtype), array.shape)


def plain(figure: Any) -> Any:
    """Return a figure as a record has it."""
    figure = figure.item() if isinstance(figure, np.generic) else figure
    return None if isinstance(figure, float) and not math.isfinite(figure) else figure


def has_nan(figures: Figures) -> bool:
    """Whether a figure is NaN, which does not equal itself."""
    return any(figure != figure for figure in figures.values())

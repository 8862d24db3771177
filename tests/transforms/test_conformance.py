"""The suite that ships with weighttools, run on every transform that has a name."""

from __future__ import annotations

from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
import torch

import tests.strategies  # noqa: F401  # loads the profile
import weighttools as wt
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.transforms import TRANSFORMS
from weighttools.transforms.naming import parsed
from weighttools.transforms.testing import TransformConformance

Array = np.ndarray[Any, Any]


class TestCast(TransformConformance):
    name, arguments = "cast", ("bfloat16",)
    dtypes = ("float32", "float16", "bfloat16", "int64", "bool", "complex64")

    def expected(self, name: str, array: Array) -> Array:
        if array.dtype.name not in ("float32", "float16"):
            return array
        found = torch.tensor(array).bfloat16().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        sign = np.signbit(array)  # of NaN every implementation has its own bits
        return np.where(np.isnan(array), np.where(sign, -np.array(np.nan), np.nan).astype(found.dtype), found)


class TestDequantize(TransformConformance):
    name = "dequantize"

    def expected(self, name: str, array: Array) -> Array:
        return array


class TestQuantize(TransformConformance):
    name, arguments = "quantize", ("q8_0",)
    dtypes = ("float32", "int8", "int64")
    takes_any_bits = False

    def expected(self, name: str, array: Array) -> Array:
        if array.dtype != np.float32 or array.ndim < 2 or array.shape[-1] % 32:
            return array
        kind = gguf.GGMLQuantizationType.Q8_0
        return gguf.quants.dequantize(gguf.quants.quantize(array, kind), kind)

    def test_weights_become_blocks(self) -> None:
        after = self.made()(self.examples())
        assert "q8_0" in {tensor.spec.encoding for tensor in after.values()}


def test_every_transform_of_the_table_is_tested() -> None:
    tested = {kind.name for kind in TransformConformance.__subclasses__() if kind.__module__ == __name__}
    assert tested == set(TRANSFORMS)


def test_arguments_of_the_command_line() -> None:
    tensor_map = TensorMap.from_arrays({"a": np.array([1e30, 1.0], np.float32), "n": np.array([1])})
    found = tensor_map.pipe(parsed("cast:float8_e4m3fn,saturate=true"))
    assert found["a"].read().astype(float).tolist() == [448.0, 1.0]
    for text, fact in {
        "cast": r"the transform 'cast' has missing a required argument: 'target'; expected cast\(target, keep=\(\), ",
        "cast:bfloat16,how=1": "got an unexpected keyword argument 'how'",
        "cast:saturate=true,bfloat16": "has 'bfloat16' after a KEY=VALUE; expected NAME:ARGUMENT,KEY=VALUE",
        "cast:int8": "cannot cast to int8",
        "nope:1": "unknown transform 'nope'; expected one of cast, dequantize, quantize",
    }.items():
        with pytest.raises(SpecError, match=fact):
            parsed(text)


def test_python_takes_functions_and_names(tmp_path: Any) -> None:
    tensor_map = TensorMap.from_arrays({"a": np.arange(4, dtype=np.float32)})
    halved = tensor_map.pipe(wt.transform("cast", "float16"))
    assert halved["a"].dtype.name == "float16"

    def last(tensor_map: TensorMap) -> TensorMap:
        return tensor_map.rename({"a": "b"})

    wt.convert(tensor_map, tmp_path / "x.npz", apply=[last, "cast:float16"])
    with np.load(tmp_path / "x.npz") as found:
        assert found["b"].dtype == np.float16
    wt.convert(tensor_map, tmp_path / "y.npz", apply="cast:float16")
    with np.load(tmp_path / "y.npz") as found:
        assert found["a"].dtype == np.float16


def read_early(tensor_map: TensorMap) -> TensorMap:
    tensor_map.read()
    return tensor_map


def without_metadata(tensor_map: TensorMap) -> TensorMap:
    return tensor_map.replace(metadata={})


def without_ties(tensor_map: TensorMap) -> TensorMap:
    return tensor_map.replace(aliases={})


def reordered(tensor_map: TensorMap) -> TensorMap:
    return tensor_map.replace(tensors=dict(reversed(list(tensor_map.items()))))


def of_another_shape(tensor_map: TensorMap) -> TensorMap:
    return tensor_map.map(lambda name, tensor: Tensor(tensor.spec._replace(shape=(tensor.n_elements,)), tensor.reader))


def unpickled(tensor_map: TensorMap) -> TensorMap:
    class Local:
        granularity = 1

        def __init__(self, reader: Any) -> None:
            self.reader = reader

        def __call__(self, start: int, stop: int) -> Array:
            return self.reader(start, stop)

    return tensor_map.map(lambda name, tensor: Tensor(tensor.spec, Local(tensor.reader)))


class Shifted:
    granularity = 1

    def __init__(self, reader: Any) -> None:
        self.reader = reader

    def __call__(self, start: int, stop: int) -> Array:
        return np.sort(self.reader(start, stop).astype(np.float64)).astype(np.float32)


def by_blocks(tensor_map: TensorMap) -> TensorMap:
    return tensor_map.map(lambda name, t: Tensor(t.spec, Shifted(t.reader)) if t.dtype.name == "float32" else t)


WRONG = {
    read_early: "test_specs_change_before_a_value_is_read",
    without_metadata: "test_metadata_ties_and_order_stay",
    without_ties: "test_metadata_ties_and_order_stay",
    reordered: "test_metadata_ties_and_order_stay",
    of_another_shape: "test_the_other_implementation_gives_the_same",
    unpickled: "test_tensors_pickle",
    by_blocks: "test_blocks_of_any_size_are_the_whole",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_the_suite_finds_what_is_wrong(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite that every transform passes would be worth nothing."""

    class Wrong(TransformConformance):
        name = "wrong"

        def made(self) -> Any:
            return wrong

        def expected(self, name: str, array: Array) -> Array:
            return array

    with pytest.raises((AssertionError, AttributeError)):
        getattr(Wrong(), WRONG[wrong])()

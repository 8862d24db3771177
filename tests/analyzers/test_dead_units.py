"""Dead units of kernels are found whichever way a framework lays them out: the same counts as torch's layout gives."""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

import weighttools as wt
from weighttools.errors import SpecError

RNG = np.random.default_rng(0)
LAYOUTS = {
    "conv2d/kernel": ((3, 3, 10, 12), (3, 2, 0, 1)),
    "layers/conv2d_1/vars/0": ((3, 3, 10, 12), (3, 2, 0, 1)),
    "params/Conv_0/kernel": ((5, 10, 12), (2, 1, 0)),
    "conv2d_transpose/kernel": ((3, 3, 12, 10), (2, 3, 0, 1)),
    "dense/kernel:0": ((10, 12), (1, 0)),
    "layers/dense/vars/0": ((10, 12), (1, 0)),
    "conv.weight": ((12, 10, 3, 3), (0, 1, 2, 3)),
}
"""Names and shapes, and the transpose that makes them torch's: 12 outputs, 10 inputs, space."""
DEAD_OUT, DEAD_IN = [2, 7, 11], [0, 4]


def with_dead_units(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A kernel with dead outputs and inputs, and the same in torch's layout."""
    shape, axes = LAYOUTS[name]
    array = RNG.standard_normal(shape).astype(np.float32)
    torch_s = array.transpose(axes)
    torch_s[DEAD_OUT] = 0
    torch_s[:, DEAD_IN] = -0.0
    return array, np.ascontiguousarray(torch_s)


@pytest.mark.parametrize("name", LAYOUTS)
def test_statistics_count_what_is_empty_as_in_torch(name: str) -> None:
    array, torch_s = with_dead_units(name)
    row, same = (
        wt.stats(wt.TensorMap.from_arrays({n: a}), sparsity=True, outliers=True)["tensors"][0]
        for n, a in ((name, array), ("conv.weight", torch_s))
    )
    keys = (
        "n_empty_rows",
        "n_empty_channels",
        "outlier_rows",
        "n_outlier_rows",
        "outlier_channels",
        "n_outlier_channels",
    )
    assert {key: row[key] for key in keys} == {key: same[key] for key in keys}
    assert (row["n_empty_rows"], row["n_empty_channels"]) == (3, 2)
    if "transpose" not in name:
        assert row["n_empty_columns"] == same["n_empty_columns"] == 2 * torch_s[0, 0].size


@pytest.mark.parametrize("name", LAYOUTS)
def test_check_names_dead_outputs_and_inputs(name: str, tmp_path: Path) -> None:
    array, _ = with_dead_units(name)
    wt.save(tmp_path / "a.npz", wt.TensorMap.from_arrays({name: array}))
    found = {f["code"]: f for f in wt.check(tmp_path / "a.npz")["findings"] if f["code"].startswith("dead")}
    assert {code: f["severity"] for code, f in found.items()} == {"dead-rows": "warning", "dead-columns": "note"}
    assert found["dead-rows"]["message"].startswith("3 of 12 ") and found["dead-rows"]["message"].endswith(" 2")
    assert found["dead-columns"]["message"].startswith("2 of 10 ") and found["dead-columns"]["message"].endswith(" 0")


def test_a_kernel_in_many_blocks(tmp_path: Path) -> None:
    """Blocks hold parts of rows and of columns; nothing that is filled elsewhere is dead."""
    kernel = RNG.standard_normal((700, 1500)).astype(np.float32)
    kernel[:, 1499], kernel[3], kernel[0, 1499] = 0, 0, 0
    sparse = np.zeros((900, 1100), np.float32)
    sparse[np.arange(900), np.arange(900)] = 1
    wt.save(tmp_path / "a.npz", wt.TensorMap.from_arrays({"dense/kernel": kernel, "eye.weight": sparse}))
    found = [f["message"] for f in wt.check(tmp_path / "a.npz")["findings"] if f["code"].startswith("dead")]
    assert found == [
        "1 of 1,500 outputs (axis 1) of 'dense/kernel' are zero, first output 1,499",
        "1 of 700 inputs (axis 0) of 'dense/kernel' are zero, first input 3",
        "200 of 1,100 columns of 'eye.weight' are zero, first column 900",
    ]


def test_keras_own_files(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential(
        [keras.layers.Conv2D(6, 3, name="conv2d"), keras.layers.DepthwiseConv2D(3, name="depthwise_conv2d")]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's deprecations
        model.build((None, 9, 9, 4))
        conv, bias = model.layers[0].get_weights()
        conv[..., [1, 5]], conv[:, :, 3] = 0, 0
        model.layers[0].set_weights([conv, bias])
        depthwise, other = model.layers[1].get_weights()
        depthwise[:, :, 2] = 0
        model.layers[1].set_weights([depthwise, other])
        model.save_weights(tmp_path / "a.weights.h5")
    found = {
        (f["code"], f["tensor"].split("/")[1]): f["message"]
        for f in wt.check(tmp_path / "a.weights.h5")["findings"]
        if f["code"].startswith("dead")
    }
    assert sorted(found) == [("dead-columns", "conv2d"), ("dead-rows", "conv2d"), ("dead-rows", "depthwise_conv2d")]
    assert "2 of 6 outputs (axis 3)" in found["dead-rows", "conv2d"]
    assert "1 of 4 inputs (axis 2)" in found["dead-columns", "conv2d"]
    assert "1 of 6 outputs (axes 2, 3)" in found["dead-rows", "depthwise_conv2d"]


def test_more_axes_than_numpy_has(tmp_path: Path) -> None:
    """Units are counted without an array of a tensor's own shape; it is as a matrix that has the same units."""
    array = RNG.standard_normal((4, 3)).astype(np.float32)
    array[1], array[:, 2] = 0, 0
    found = {}
    for n in (1, 70, 100_000):
        shape = [4, 3] + [1] * n
        header = {"layer.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 48]}}
        text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        path = tmp_path / "m.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + array.tobytes())
        row = wt.stats(path, sparsity=True, outliers=True)["tensors"][0]
        codes = [finding["message"] for finding in wt.check(path)["findings"] if "dead" in finding["code"]]
        found[n] = codes, {key: value for key, value in row.items() if key != "shape"}
        assert len(codes) == 2 and "1 of 4 rows" in codes[0] and "1 of 3 columns" in codes[1]
    assert found[70] == found[1] == found[100_000]
    with pytest.raises(SpecError, match="100,002 axes") as error:
        wt.open(path)["layer.weight"].read()
    assert len(str(error.value)) < 200

"""Rows, columns, channels and heads mean what the layout says: against torch, Keras and transformers."""

from __future__ import annotations

import copy
import json
import pickle
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file
from torch.nn.utils import prune as theirs

import weighttools as wt
from tests.train.models.test_models import CONFIGS, IDS
from tests.transforms.edits import normal
from weighttools.core.readers import Positioned
from weighttools.core.tensor import Tensor

WEAK = 1
"""The head whose columns of the output projection are the smallest by far."""
OUTPUT = re.compile(r"attention\.output\.dense$|o_proj$|out_lin$|attention\.dense$|attn\.c_proj$")
"""The modules of transformers that take all heads side by side."""


def strengthened(kind: str) -> Any:
    """A model of random weights whose other heads weigh a hundred times more."""
    config = copy.deepcopy(CONFIGS[kind])
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    module = transformers.AutoModel.from_config(config).eval().double()
    with torch.no_grad():
        for tensor in module.parameters():
            tensor += 0.1 * torch.randn_like(tensor)  # no zero biases: a head whose values are 0 still gives its bias
        for name, layer in module.named_modules():
            if OUTPUT.search(name):
                columns = layer.weight.T if type(layer).__name__ != "Conv1D" else layer.weight
                heads = columns.reshape(config.num_attention_heads, -1, columns.shape[1])
                heads[torch.arange(len(heads)) != WEAK] *= 100
                heads[WEAK] *= 10
    return module


def hidden(module: Any) -> torch.Tensor:
    with torch.no_grad():
        return module(torch.from_numpy(IDS)).last_hidden_state


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_pruned_head_gives_nothing_as_in_transformers(kind: str) -> None:
    module = strengthened(kind)
    n_heads = module.config.num_attention_heads
    before = hidden(module)
    arrays = {name: p.detach().numpy().copy() for name, p in module.state_dict().items()}
    pruned = wt.prune(wt.TensorMap.from_arrays(arrays), structure="heads", n_heads=n_heads, sparsity=1 / n_heads)
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: (without_head(args[0], n_heads), *args[1:]))
        for name, layer in module.named_modules()
        if OUTPUT.search(name)
    ]
    assert hooks
    masked = hidden(module)
    for hook in hooks:
        hook.remove()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in pruned.read().items()})
    scale = float(masked.abs().max())
    assert float((hidden(module) - masked).abs().max()) < 1e-12 * scale
    assert float((before - masked).abs().max()) > 1e-6 * scale
    units = {(row["n_units"], row["n_units_pruned"]) for row in pruned.report["scopes"]}
    assert units == {(n_heads, 1)} and len(pruned.report["scopes"]) == len(hooks)


def without_head(side_by_side: torch.Tensor, n_heads: int) -> torch.Tensor:
    heads = side_by_side.clone().reshape(*side_by_side.shape[:-1], n_heads, -1)
    heads[..., WEAK, :] = 0
    return heads.reshape(side_by_side.shape)


def test_keras_attention_loses_its_head(tmp_path) -> None:
    keras = pytest.importorskip("keras")
    inputs = keras.Input((5, 8))
    layer = keras.layers.MultiHeadAttention(num_heads=4, key_dim=3, name="attention")
    model = keras.Model(inputs, layer(inputs, inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's deprecations
        *others, kernel, bias = layer.get_weights()
        assert kernel.shape == (4, 3, 8)
        kernel[[i for i in range(4) if i != WEAK]] *= 100
        layer.set_weights([*others, kernel, bias])
        model.save_weights(tmp_path / "a.weights.h5")
    found = wt.prune(tmp_path / "a.weights.h5", structure="heads", n_heads=4, sparsity=0.25)
    gone = np.zeros_like(kernel)
    gone[[i for i in range(4) if i != WEAK]] = 1
    (name,) = [name for name in found.report["names"] if found[name].shape == (4, 3, 8)]
    np.testing.assert_array_equal(found[name].read(), kernel * gone)
    for name in found.report["names"]:
        if found[name].shape == (8, 4, 3):
            assert not found[name].read()[:, WEAK].any() and found[name].read()[:, 0].all()


def test_an_attention_without_a_known_output_is_refused() -> None:
    arrays = {f"l.0.{n}_proj.weight": normal((8, 8), "float32", i) for i, n in enumerate("qkv")}
    with pytest.raises(wt.WeighttoolsError, match="no output projection of a known name"):
        wt.prune(wt.TensorMap.from_arrays(arrays), structure="heads", n_heads=4, sparsity=0.5)


def by_torch(array: np.ndarray, axes: tuple[int, ...], dim: int, amount: float) -> np.ndarray:
    """Torch's own pruning of the array in torch's layout, and back."""
    turned = np.ascontiguousarray(array.transpose(axes))
    module = torch.nn.Module()
    module.register_parameter("weight", torch.nn.Parameter(torch.from_numpy(turned.copy())))
    theirs.ln_structured(module, "weight", amount=amount, n=2, dim=dim)
    return module.weight.detach().numpy().transpose(np.argsort(axes))


KERNELS = {
    "conv2d/kernel": ((3, 3, 8, 12), (3, 2, 0, 1)),
    "layers/conv1d/vars/0": ((3, 8, 12), (2, 1, 0)),
    "params/Conv_0/kernel": ((3, 3, 8, 12), (3, 2, 0, 1)),
    "conv2d_transpose/kernel": ((3, 3, 12, 8), (2, 3, 0, 1)),
    "dense/kernel:0": ((8, 12), (1, 0)),
    "layers/dense/vars/0": ((8, 12), (1, 0)),
}
"""Kernels of Keras and Flax, and the transpose that makes them torch's: out, in, space."""


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("structure", "dim"), [("rows", 0), ("columns", 1), ("channels", 1)])
def test_structures_of_kernels_are_those_of_torch(name: str, structure: str, dim: int) -> None:
    shape, axes = KERNELS[name]
    array = normal(shape, "float64", 3)
    tensor_map = wt.TensorMap.from_arrays({name: array})
    if structure == "channels" and len(shape) == 2:
        with pytest.raises(wt.WeighttoolsError, match="no tensor has channels"):
            wt.prune(tensor_map, structure=structure, sparsity=0.25)
        return
    found = wt.prune(tensor_map, structure=structure, sparsity=0.25)[name].read()
    np.testing.assert_array_equal(found, by_torch(array, axes, dim, 0.25))


def test_a_keras_convolution_loses_input_channels_not_space() -> None:
    array = normal((3, 3, 128, 128), "float32", 0)
    found = wt.prune(wt.TensorMap.from_arrays({"conv2d/kernel": array}), structure="channels", sparsity=0.25)
    kept = found["conv2d/kernel"].read() != 0
    assert kept.any(axis=(0, 1, 3)).sum() == 96 and (kept.reshape(9, -1).any(axis=1)).all()


def test_depthwise_kernels_lose_outputs() -> None:
    array = normal((3, 3, 4, 2), "float64", 1)
    found = wt.prune(wt.TensorMap.from_arrays({"d/depthwise_kernel": array}), structure="rows", sparsity=0.5)
    norms = np.square(array.reshape(9, 8)).sum(0)
    gone = np.isin(np.arange(8), np.argsort(norms)[:4])
    np.testing.assert_array_equal(
        found["d/depthwise_kernel"].read().reshape(9, 8), np.where(gone, 0, array.reshape(9, 8))
    )


@pytest.mark.parametrize("is_in_out", [True, False])
def test_rows_of_gpt2_are_outputs_whichever_way_it_lies(is_in_out: bool) -> None:
    """transformers' Conv1D is (in, out); the biases of what is not square tell."""
    shapes = {"h.0.attn.c_attn": (8, 24), "h.0.attn.c_proj": (8, 8), "h.0.mlp.c_fc": (8, 32)}
    arrays, expected = {}, {}
    for seed, (name, shape) in enumerate(shapes.items()):
        kernel = normal(shape, "float64", seed)
        pruned = by_torch(kernel, (1, 0), 0, 0.5)
        arrays[f"{name}.weight"], expected[f"{name}.weight"] = (kernel, pruned) if is_in_out else (kernel.T, pruned.T)
        arrays[f"{name}.bias"] = np.ones(shape[1])
    found = wt.prune(wt.TensorMap.from_arrays(arrays), structure="rows", sparsity=0.5)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].read(), array)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_n_of_m_counts_what_was_written(dtype: str, tmp_path) -> None:
    array = np.ones((4, 8), dtype)
    array[0, :3], array[1, :5], array[2] = [np.nan, np.inf, -np.inf], np.nan, 0
    pruned = wt.prune(wt.TensorMap.from_arrays({"a.weight": array}), nm="2:4")
    assert wt.convert(pruned, tmp_path / "a.safetensors", dry_run=True)["transforms"][-1]["n_pruned"] is None
    assert pruned.report["most_pruned"] == 16
    record = wt.save(tmp_path / "a.safetensors", pruned)
    assert pruned.report["n_pruned"] == record["transforms"][-1]["n_pruned"]
    mask = wt.masks(pruned)["a.weight"].read()
    found = load_file(tmp_path / "a.safetensors")["a.weight"]
    done = record["transforms"][-1]
    assert done["n_pruned"] == int((~mask).sum()) < 16
    assert done["n_zero"] == int((found == 0).sum())
    assert (done["n_nan"], done["n_inf"]) == (6, 2)


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:8"])
@pytest.mark.parametrize("place", [slice(0, 3), slice(1, 2), slice(2, 24)])
def test_the_report_of_n_of_m_agrees_with_the_zeros(pattern: str, place: slice) -> None:
    """NaN and Inf are never dropped, so the pattern alone does not tell how many weights are."""
    arrays = {name: 1 + np.abs(normal((6, 16), "float32", seed)) for seed, name in enumerate(("a.weight", "b.weight"))}
    arrays["a.weight"].reshape(-1)[place] = np.resize([np.nan, np.inf, -np.inf], place.stop - place.start)
    pruned = wt.prune(wt.TensorMap.from_arrays(arrays), nm=pattern)
    n_zero = sum(int((array == 0).sum()) for array in pruned.read().values())
    assert pruned.origin.reports[-1]["n_pruned"] == n_zero
    assert json.loads(json.dumps(dict(pruned.report)))["n_pruned"] == n_zero
    scaled = wt.scale(pickle.loads(pickle.dumps(pruned)), by=2.0)
    assert scaled.origin.reports[0].get("n_pruned") == n_zero


@pytest.mark.parametrize("how", [{"nm": "2:4"}, {"threshold": 0.5}])
def test_a_report_reads_values_once_and_only_for_its_count(how: dict[str, Any]) -> None:
    n_read = 0

    def counted(start: int, block: Any) -> Any:
        nonlocal n_read
        n_read += block.size
        return block

    held = wt.TensorMap.from_arrays({"a.weight": normal((64, 64), "float32", 0)})
    watched = held.map(lambda name, tensor: Tensor(tensor.spec, Positioned(tensor.reader, counted)))
    report = wt.prune(watched, **how).report
    assert {key: report[key] for key in report if key != "n_pruned"}["transform"] == "prune" and "a.weight" in str(
        report
    )
    assert n_read == 0
    assert report["n_pruned"] == report["n_pruned"] == int((wt.prune(held, **how)["a.weight"].read() == 0).sum())
    assert n_read == 64 * 64


@pytest.mark.parametrize("structure", ["rows", "columns", "channels"])
def test_the_report_of_a_structure_agrees_with_the_zeros(structure: str) -> None:
    arrays = {"conv.weight": 1 + np.abs(normal((6, 8, 3, 3), "float32", 0))}
    arrays["conv.weight"][:5, :7] = np.nan
    for sparsity in (0, 0.3, 1):
        pruned = wt.prune(wt.TensorMap.from_arrays(arrays), structure=structure, sparsity=sparsity)
        assert pruned.report["n_pruned"] == int((pruned["conv.weight"].read() == 0).sum())


@pytest.mark.parametrize(
    "how",
    [{"threshold": 0.5}, {"structure": "rows", "sparsity": 0.5}, {"sparsity": 0.3}, {"random": True, "sparsity": 0.3}],
)
def test_every_pruning_counts_and_gives_the_ends(how: dict[str, Any], tmp_path) -> None:
    arrays = {"a.weight": normal((20, 30), "float32", 0), "b.weight": 3 * normal((16, 10), "float32", 1)}
    pruned = wt.prune(wt.TensorMap.from_arrays(arrays), **how)
    done = wt.save(tmp_path / "p.safetensors", pruned)["transforms"][-1]
    assert pruned.report["n_pruned"] == done["n_pruned"]
    found = load_file(tmp_path / "p.safetensors")
    shares = {name: float((found[name] == 0).mean()) for name in found}
    assert done["n_pruned"] == sum(int((found[name] == 0).sum()) for name in found)
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    assert done["least_zeros"] == {"name": least, "share": shares[least]}
    assert done["most_zeros"] == {"name": most, "share": shares[most]}


def test_a_tensor_left_almost_empty_is_named(tmp_path, inside) -> None:
    """A pooler whose weights are a thousandth of the others' is gone at half of all."""
    arrays = {"pooler.dense.weight": 1e-3 * normal((64, 64), "float32", 0), "a.weight": normal((64, 128), "float32", 1)}
    wt.save(tmp_path / "a.safetensors", wt.TensorMap.from_arrays(arrays))
    ran = inside("prune", tmp_path / "a.safetensors", "--sparsity", "0.5", "-o", tmp_path / "b.safetensors")
    zeros = {
        name: np.count_nonzero(array == 0) / array.size for name, array in load_file(tmp_path / "b.safetensors").items()
    }
    assert ran.code == 0 and zeros["pooler.dense.weight"] > 0.99
    assert f"'pooler.dense.weight' ({zeros['pooler.dense.weight']:.2%})" in ran.err and "--scope tensor" in ran.err
    assert f"zeros by tensor: {zeros['a.weight']:.2%} (a.weight) to" in ran.out
    ran = inside(
        "prune",
        tmp_path / "a.safetensors",
        "--sparsity",
        "0.5",
        "-o",
        tmp_path / "c.safetensors",
        "--scope",
        "tensor",
        "--json",
    )
    record = json.loads(ran.out)
    assert record["notes"] == [] and record["transforms"][-1]["most_zeros"]["share"] == 0.5

"""Layouts, against the frameworks: the same layers with carried weights give the same outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.real import real_file
from tests.strategies import assert_same, bits_of, random_array
from weighttools.cli.convert import convert as convert_command
from weighttools.core.dtypes import DTYPES, dtype
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, SpecError, TensorNotFoundError
from weighttools.transforms.cast import cast
from weighttools.transforms.layout import layout
from weighttools.transforms.layout_tables import FRAMEWORKS, RULES
from weighttools.transforms.layout_verify import verify

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"  # Keras under NumPy 2
)

Arrays = dict[str, np.ndarray[Any, Any]]


def carried(arrays: Arrays, target: str, *rules: str, source: str | None = None) -> Arrays:
    tensor_map = TensorMap.from_arrays(arrays)
    return layout(tensor_map, target, source, rules).apply(tensor_map).read()


def of_torch(module: torch.nn.Module) -> Arrays:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def of_keras(model: Any) -> Arrays:
    return {
        f"{layer.name}/{v.name}": np.array(v) for layer in model.layers for v in layer.variables if "seed" not in v.path
    }


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Give every parameter and statistic a value that no two of a layer share."""
    generator = torch.Generator().manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return module.eval()


def keras_with(model: Any, arrays: Arrays) -> Any:
    for name, value in of_keras(model).items():
        assert name in arrays, (name, list(arrays))
        assert arrays[name].shape == value.shape, name
    for layer in model.layers:
        for variable in layer.variables:
            variable.assign(arrays[f"{layer.name}/{variable.name}"])
    return model


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-4, atol=2e-5)


# Name of both layers, torch's, Keras's, and the input's shape without its batch axis, channels first.
L = keras.layers
PAIRS = {
    "dense": (lambda: torch.nn.Linear(4, 3), lambda: L.Dense(3, name="dense"), (4,)),
    "dense_without_bias": (
        lambda: torch.nn.Linear(4, 3, bias=False), lambda: L.Dense(3, use_bias=False, name="dense_without_bias"), (4,)
    ),
    "conv1d": (lambda: torch.nn.Conv1d(3, 5, 2), lambda: L.Conv1D(5, 2, name="conv1d"), (3, 7)),
    "conv2d": (lambda: torch.nn.Conv2d(3, 5, (2, 3)), lambda: L.Conv2D(5, (2, 3), name="conv2d"), (3, 6, 7)),
    "conv3d": (lambda: torch.nn.Conv3d(2, 3, (1, 2, 3)), lambda: L.Conv3D(3, (1, 2, 3), name="conv3d"), (2, 4, 5, 6)),
    "conv_transpose": (
        lambda: torch.nn.ConvTranspose2d(3, 5, (2, 3)),
        lambda: L.Conv2DTranspose(5, (2, 3), name="conv_transpose"), (3, 6, 7)
    ),
    "grouped_conv": (
        lambda: torch.nn.Conv2d(4, 6, 3, groups=2), lambda: L.Conv2D(6, 3, groups=2, name="grouped_conv"), (4, 6, 7)
    ),
    "depthwise": (
        lambda: torch.nn.Conv2d(3, 3, (2, 3), groups=3), lambda: L.DepthwiseConv2D((2, 3), name="depthwise"), (3, 6, 7)
    ),
    "batch_norm": (
        lambda: torch.nn.BatchNorm2d(3), lambda: L.BatchNormalization(epsilon=1e-5, name="batch_norm"), (3, 4, 5)
    ),
    "layer_norm": (lambda: torch.nn.LayerNorm(6), lambda: L.LayerNormalization(epsilon=1e-5, name="layer_norm"), (6,)),
}  # fmt: skip


def pair(name: str) -> tuple[torch.nn.Module, Any, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return both layers as models, and one input as each wants it."""
    make_torch, make_keras, shape = PAIRS[name]
    module = randomised(torch.nn.ModuleDict({name: make_torch()}))
    first = np.random.default_rng(1).random((2, *shape), dtype=np.float32)
    last = np.moveaxis(first, 1, -1) if len(shape) > 1 else first
    model = keras.Sequential([keras.Input(last.shape[1:]), make_keras()])
    return module, model, first, last


def renamed(arrays: Arrays) -> Arrays:
    """Keras 3 calls a depthwise kernel `kernel`, as Keras 2 called it `depthwise_kernel`."""
    return {name.replace("depthwise_kernel", "kernel"): array for name, array in arrays.items()}


@pytest.mark.parametrize("name", PAIRS)
def test_torch_layers_give_the_same_in_keras(name: str) -> None:
    module, model, first, last = pair(name)
    arrays = renamed(carried(of_torch(module), "keras", source="torch"))
    keras_with(model, arrays)
    with torch.no_grad():
        expected = module[name](torch.from_numpy(first)).numpy()  # type: ignore[index]
    found = np.asarray(model(last).detach())
    close(np.moveaxis(found, -1, 1) if expected.ndim > 2 else found, expected)


@pytest.mark.parametrize("name", PAIRS)
def test_keras_layers_give_the_same_in_torch(name: str) -> None:
    module, model, first, last = pair(name)
    for variable in model.variables:
        variable.assign(np.random.default_rng(2).random(variable.shape, dtype=np.float32) + 0.1)
    arrays = carried(of_keras(model), "torch", source="keras")
    missing = module.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in arrays.items()}, strict=False)
    assert not missing.unexpected_keys and all("num_batches" in key for key in missing.missing_keys)
    with torch.no_grad():
        found = module[name](torch.from_numpy(first)).numpy()  # type: ignore[index]
    expected = np.asarray(model(last).detach())
    close(np.moveaxis(found, 1, -1) if found.ndim > 2 else found, expected)


def test_embedding_gives_the_same() -> None:
    module = randomised(torch.nn.ModuleDict({"embed": torch.nn.Embedding(7, 4)}))
    model = keras.Sequential([keras.Input((3,), dtype="int32"), L.Embedding(7, 4, name="embed")])
    keras_with(model, carried(of_torch(module), "keras"))
    ids = np.array([[0, 3, 6]])
    close(model(ids).detach(), module["embed"](torch.from_numpy(ids)).detach())  # type: ignore[index]
    assert_same(carried(of_keras(model), "torch"), of_torch(module))


@pytest.mark.parametrize("multiplier", [2, 3])
def test_depth_multiplier(multiplier: int) -> None:
    model = keras.Sequential(
        [keras.Input((6, 7, 4)), L.DepthwiseConv2D((2, 3), depth_multiplier=multiplier, name="depthwise")]
    )
    arrays = of_keras(model)
    for variable in model.variables:
        variable.assign(np.random.default_rng(2).random(variable.shape, dtype=np.float32))
    arrays = of_keras(model)
    found = carried(arrays, "torch", source="keras")
    module = torch.nn.Conv2d(4, 4 * multiplier, (2, 3), groups=4)
    module.load_state_dict({n.split(".")[1]: torch.from_numpy(a.copy()) for n, a in found.items()})
    x = np.random.default_rng(1).random((2, 6, 7, 4), dtype=np.float32)
    close(np.moveaxis(module(torch.from_numpy(x).permute(0, 3, 1, 2)).detach().numpy(), 1, -1), model(x).detach())
    back = renamed(carried(found, "keras", f"*.weight=depthwise2d:{multiplier}", source="torch"))
    assert_same(back, arrays)


def test_flax_layout_is_the_documented_one() -> None:
    """flax.linen: Dense (in, out), Conv (*window, in, out), BatchNorm scale/bias and batch_stats mean/var."""
    arrays = {
        "fc.weight": np.arange(6.0).reshape(2, 3), "fc.bias": np.zeros(2),
        "conv.weight": np.arange(120.0).reshape(5, 4, 2, 3), "conv.bias": np.zeros(5),
        "bn.weight": np.ones(5), "bn.bias": np.full(5, 2.0), "bn.running_mean": np.full(5, 3.0),
        "bn.running_var": np.full(5, 4.0), "bn.num_batches_tracked": np.int64(9),
        "embed.weight": np.arange(8.0).reshape(4, 2),
    }  # fmt: skip
    found = carried(arrays, "flax")
    assert_same(
        found,
        {
            "params/fc/kernel": arrays["fc.weight"].T, "params/fc/bias": arrays["fc.bias"],
            "params/conv/kernel": arrays["conv.weight"].transpose(2, 3, 1, 0), "params/conv/bias": arrays["conv.bias"],
            "params/bn/scale": arrays["bn.weight"], "params/bn/bias": arrays["bn.bias"],
            "batch_stats/bn/mean": arrays["bn.running_mean"], "batch_stats/bn/var": arrays["bn.running_var"],
            "params/embed/embedding": arrays["embed.weight"],
        },
    )  # fmt: skip
    back = carried(found, "torch")
    assert_same(back, {name: array for name, array in arrays.items() if not name.endswith("tracked")})


def test_mlx_layout_is_the_documented_one() -> None:
    """mlx.nn: Linear as torch's, Conv2d (out, *window, in)."""
    arrays = {"conv.weight": np.arange(120.0).reshape(5, 4, 2, 3), "fc.weight": np.arange(6.0).reshape(2, 3)}
    found = carried(arrays, "mlx", source="torch")
    assert_same(found, {"conv.weight": arrays["conv.weight"].transpose(0, 2, 3, 1), "fc.weight": arrays["fc.weight"]})
    assert_same(carried(found, "torch", source="mlx"), arrays)


side = st.integers(1, 5)


@given(st.sampled_from(["torch", "mlx"]), st.sampled_from(FRAMEWORKS), st.data())
def test_every_rule_is_undone_by_its_inverse(source: str, target: str, data: st.DataObject) -> None:
    rule = data.draw(st.sampled_from([name for name, rule in RULES.items() if rule.axes and name != "linear_in_out"]))
    orders = RULES[rule].axes
    if source not in orders or target not in orders:
        return
    sides = {axis: data.draw(side) for axis in orders[source]}
    if rule.startswith("depthwise"):
        sides["i"] = 1
    shape = tuple(sides[axis] for axis in orders[source])
    name = data.draw(st.sampled_from([n for n in DTYPES if DTYPES[n].bits >= 8]))
    arrays = {"m.weight": random_array(DTYPES[name], shape, data.draw(st.integers(0, 99)))}
    tensor_map = TensorMap.from_arrays(arrays)
    there = layout(tensor_map, target, source, [f"m.weight={rule}"])
    laid_out = there.apply(tensor_map)
    (only,) = laid_out.values()
    einsum = np.einsum(f"{orders[source]}->{orders[target]}", np.arange(only.n_elements).reshape(shape))
    expected = arrays["m.weight"].reshape(-1)[einsum.reshape(-1)]
    np.testing.assert_array_equal(bits_of(only.read()), bits_of(expected))
    n_compared = verify(tensor_map, laid_out, there)
    assert n_compared == 1
    if source != target:
        again = layout(laid_out, source, target, [f"*={rule}"]).apply(laid_out)
        assert_same(again.read(), arrays)


# -- what is told apart, and what is refused ---------------------------------------------------------------------------


def z(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float32)


def rules_of(arrays: Arrays, target: str, source: str) -> dict[str, str]:
    tensor_map = TensorMap.from_arrays(arrays)
    return {row["src"]: row["rule"] for row in layout(tensor_map, target, source).log()}


def test_evidence_from_biases_and_names() -> None:
    found = rules_of(
        {
            "a.weight": z(3, 4), "a.bias": z(3),
            "word_embeddings.weight": z(9, 4), "q_proj.weight": z(4, 4),
            "h.0.attn.c_attn.weight": z(4, 12), "h.0.attn.c_attn.bias": z(12),
            "h.0.attn.c_proj.weight": z(4, 4), "h.0.attn.c_proj.bias": z(4),
            "x.weight": z(5, 2, 3, 3), "x.bias": z(5), "up.weight": z(5, 2, 3, 3), "up.bias": z(2),
            "norm.weight": z(4), "prelude.weight": z(4), "prelude.bias": z(4),
            "bn.weight": z(4), "bn.bias": z(4), "bn.running_mean": z(4), "bn.num_batches_tracked": np.int64(0),
            "scale": z(4), "position_ids": np.zeros((1, 9), np.int64),
        },
        "keras", "torch",
    )  # fmt: skip
    assert found == {
        "a.weight": "linear", "a.bias": "bias", "word_embeddings.weight": "embedding", "q_proj.weight": "linear",
        "h.0.attn.c_attn.weight": "linear_in_out", "h.0.attn.c_attn.bias": "bias",
        "h.0.attn.c_proj.weight": "linear_in_out", "h.0.attn.c_proj.bias": "bias",
        "x.weight": "conv2d", "x.bias": "bias", "up.weight": "conv_transpose2d", "up.bias": "bias",
        "norm.weight": "norm", "prelude.weight": "norm", "prelude.bias": "norm_bias",
        "bn.weight": "norm", "bn.bias": "norm_bias", "bn.running_mean": "mean", "bn.num_batches_tracked": "count",
        "scale": "keep", "position_ids": "keep",
    }  # fmt: skip


REFUSED = {
    "Linear or Embedding": ("torch", "keras", {"net.0.weight": z(3, 4)}),
    "both in the name": ("torch", "keras", {"embed_out.weight": z(3, 4)}),
    "bias that fits neither": ("torch", "keras", {"a.weight": z(3, 4), "a.bias": z(7)}),
    "square GPT-2 layer": ("torch", "flax", {"c_proj.weight": z(4, 4), "c_proj.bias": z(4)}),
    "lone vector": ("torch", "keras", {"act.weight": z(4)}),
    "LSTM": ("torch", "keras", {"lstm.weight_ih_l0": z(8, 4)}),
    "Keras LSTM": ("keras", "torch", {"l/kernel": z(4, 8), "l/recurrent_kernel": z(2, 8), "l/bias": z(8)}),
    "Flax LSTM": ("flax", "torch", {"params/OptimizedLSTMCell_0/ii/kernel": z(4, 8)}),
    "fused attention": ("torch", "keras", {"attn.in_proj_weight": z(12, 4)}),
    "attention kernel": ("keras", "torch", {"mha/query/kernel": z(4, 2, 3)}),
    "attention kernel by bias": ("flax", "torch", {"params/x/kernel": z(4, 2, 3), "params/x/bias": z(2, 3)}),
    "depthwise or one channel": ("torch", "keras", {"conv.weight": z(8, 1, 3, 3)}),
    "depthwise or one channel from Flax": ("flax", "keras", {"params/conv/kernel": z(3, 3, 1, 8)}),
    "depthwise or one filter": ("keras", "torch", {"conv/kernel": z(3, 3, 8, 1)}),
    "separable": ("keras", "torch", {"s/depthwise_kernel": z(3, 3, 4, 1), "s/pointwise_kernel": z(1, 1, 4, 5)}),
    "unknown matrix": ("torch", "keras", {"cls_token": z(1, 1, 4)}),
    "Flax transposed": ("torch", "flax", {"deconv.weight": z(3, 4, 2, 2)}),
    "separator in a name": ("torch", "keras", {"a/b.bias": z(3)}),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_known_is_refused(case: str) -> None:
    source, target, arrays = REFUSED[case]
    with pytest.raises(SpecError):
        layout(TensorMap.from_arrays(arrays), target, source)


def test_a_refusal_names_the_tensor_and_a_rule_settles_it() -> None:
    arrays = {"net.0.weight": np.arange(12.0).reshape(3, 4), "net.1.weight": z(3, 4)}
    with pytest.raises(
        SpecError, match=r"'net.0.weight' is: .*Linear or Embedding\? \(and 1 more: net.1.weight\)"
    ) as caught:
        carried(arrays, "flax", source="torch")
    assert "layout_rule 'net.0.weight=RULE'" in str(caught.value)
    found = carried(arrays, "flax", "net.*=embedding", "net.0.*=linear", source="torch")
    assert_same(
        found, {"params/net/0/kernel": arrays["net.0.weight"].T, "params/net/1/embedding": arrays["net.1.weight"]}
    )


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ("linear", SpecError), ("*=nonsense", SpecError), ("=linear", SpecError), ("*=conv2d", SpecError),
        ("*=transpose(0,0)", SpecError), ("*=transpose(0)", SpecError), ("*=norm", SpecError),
        ("*=depthwise2d:x", SpecError), ("nothing*=linear", TensorNotFoundError),
    ],
)  # fmt: skip
def test_bad_rules(rule: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        carried({"a.weight": z(3, 4)}, "keras", rule, source="torch")
    with pytest.raises(SpecError):
        carried({"a.weight": z(6, 1, 2, 2)}, "keras", "*=depthwise2d:4", source="torch")


def test_an_explicit_transpose_as_facenet_needs() -> None:
    weight = np.arange(10 * 3 * 4 * 5.0).reshape(10, 3, 4, 5)
    found = carried({"conv1.weight": weight}, "keras", "conv1.weight=transpose(3,2,1,0)", source="torch")
    assert_same(found, {"conv1/kernel": weight.transpose(3, 2, 1, 0)})


DETECTED: dict[str, tuple[str, Arrays, dict[str, str], str]] = {
    "num_batches_tracked": ("torch", {"c.weight": z(3, 3, 3, 3), "b.num_batches_tracked": z()}, {}, "tracked"),
    "no convolution": ("torch", {"c.weight": z(3, 3)}, {}, "no convolution"),
    "torch windows": ("torch", {"c.weight": z(8, 4, 3, 3)}, {}, "channels second"),
    "mlx windows": ("mlx", {"c.weight": z(8, 3, 3, 4)}, {}, "channels last"),
    "mlx metadata": ("mlx", {"c.weight": z(8, 3)}, {"format": "mlx"}, "format mlx"),
    "keras": ("keras", {"c/kernel:0": z(8, 3), "b/gamma:0": z(3)}, {}, "Keras"),
    "flax": ("flax", {"params/c/kernel": z(8, 3)}, {}, "Flax"),
    "flax by leaf": ("flax", {"c/kernel": z(8, 3), "n/scale": z(8)}, {}, "Flax"),
}


@pytest.mark.parametrize("case", DETECTED)
def test_the_source_is_found_out_with_evidence(case: str) -> None:
    framework, arrays, metadata, evidence = DETECTED[case]
    found = layout(TensorMap.from_arrays(arrays, metadata), framework)
    assert found.source == framework and any(evidence in text for text in found.evidence)
    assert "already" in found.notes[0]


@pytest.mark.parametrize("arrays", [{"c.weight": z(3, 3, 3, 3)}, {"c/kernel": z(3, 3)}, {"a": z(2)}, {}])
def test_a_source_that_cannot_be_told_is_asked_for(arrays: Arrays) -> None:
    with pytest.raises(SpecError, match="say it: layout_from"):
        layout(TensorMap.from_arrays(arrays), "keras" if "c.weight" in arrays else "torch")


def test_ties_stay_where_the_layout_lets_them() -> None:
    embed = np.arange(12, dtype=np.float32).reshape(4, 3)
    tensor_map = TensorMap.from_arrays(
        {"embed.weight": embed, "fc.weight": z(2, 3)}, {}, {"lm_head.weight": "embed.weight", "fc2.weight": "fc.weight"}
    )
    change = layout(tensor_map, "flax", "torch")
    found = change.apply(tensor_map)
    assert dict(found.aliases) == {"params/fc2/kernel": "params/fc/kernel"}
    np.testing.assert_array_equal(found["params/lm_head/kernel"].read(), embed.T)
    assert any("copies: lm_head.weight" in note for note in found.origin.notes)
    same = layout(tensor_map, "mlx", "torch").apply(tensor_map)
    assert dict(same.aliases) == dict(tensor_map.aliases)


def test_warnings() -> None:
    tensor_map = TensorMap.from_arrays(
        {
            "conv.weight": z(8, 3, 3, 3), "conv.bias": z(8), "bn.weight": z(8), "bn.running_var": z(8),
            "bn.num_batches_tracked": np.int64(1), "fc.weight": z(5, 8 * 49), "fc.bias": z(5),
            "fc2.weight": z(5, 5), "fc2.bias": z(5),
        }
    )  # fmt: skip
    notes = layout(tensor_map, "keras", "torch").apply(tensor_map).origin.notes
    assert any("epsilon" in note for note in notes)
    assert any("left out: bn.num_batches_tracked" in note for note in notes)
    assert any(note.endswith("not undone here: fc.weight") for note in notes)
    assert not any("flattened" in note for note in layout(tensor_map, "torch", "torch").notes)


def test_two_tensors_of_one_name_are_refused() -> None:
    tensor_map = TensorMap.from_arrays({"a.weight": z(3, 4), "a.bias": z(3), "a.kernel": z(2)})
    with pytest.raises(SpecError, match="two tensors"):
        layout(tensor_map, "keras", "torch").apply(tensor_map)


def test_keras_3_numbers_variables_of_a_layer() -> None:
    arrays = {
        "layers/dense/vars/0": z(4, 3), "layers/dense/vars/1": z(3), "layers/dense_1/vars/0": z(3, 2),
        "layers/conv2d_12/vars/0": z(3, 3, 4, 8), "layers/embedding/vars/0": z(9, 4),
        "layers/batch_normalization/vars/0": z(8), "layers/batch_normalization/vars/1": z(8),
        "layers/batch_normalization/vars/2": z(8), "layers/batch_normalization/vars/3": z(8),
        "layers/dropout/seed_generator/vars/0": np.zeros(2, np.uint32),
    }  # fmt: skip
    found = carried(arrays, "torch")
    assert {name: array.shape for name, array in found.items()} == {
        "layers.dense.weight": (3, 4), "layers.dense.bias": (3,), "layers.dense_1.weight": (2, 3),
        "layers.conv2d_12.weight": (8, 4, 3, 3), "layers.embedding.weight": (9, 4),
        "layers.batch_normalization.weight": (8,), "layers.batch_normalization.bias": (8,),
        "layers.batch_normalization.running_mean": (8,), "layers.batch_normalization.running_var": (8,),
        "layers.dropout.seed_generator.vars.0": (2,),
    }  # fmt: skip
    assert carried({**arrays, "optimizer/vars/0": z(8)}, "torch", source="keras").keys() == found.keys()
    for name in ("layers/batch_normalization_1/vars/0", "layers/mine/vars/0"):
        with pytest.raises(SpecError, match="numbered variable"):
            carried({**arrays, name: z(8)}, "torch", source="keras")


def test_lists_of_old_names_do_not_outlive_them() -> None:
    metadata = {"keras_version": "3", "layer_names": ["a"], "weight_names": {"a": ["a/kernel:0"]}}
    tensor_map = TensorMap.from_arrays({"a/kernel:0": z(2, 3)}, metadata)
    change = layout(tensor_map, "torch")
    assert change.source == "keras" and dict(change.apply(tensor_map).metadata) == {
        "keras_version": "3",
        "format": "pt",
    }


# -- through convert ---------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[tuple[Path, Arrays]]:
    module = randomised(torch.nn.Sequential())
    for name, layer in {
        "conv": torch.nn.Conv2d(3, 8, 3),
        "bn": torch.nn.BatchNorm2d(8),
        "fc": torch.nn.Linear(8, 5),
    }.items():
        module.add_module(name, layer)
    arrays = of_torch(randomised(module))
    path = tmp_path / "m.safetensors"
    wt.save(path, TensorMap.from_arrays(arrays, {"format": "pt"}))
    yield path, arrays


@pytest.mark.parametrize("target", ["keras", "flax", "mlx"])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_convert_there_verified_and_back(
    checkpoint: tuple[Path, Arrays], tmp_path: Path, target: str, suffix: str
) -> None:
    path, arrays = checkpoint
    there, back = tmp_path / f"there{suffix}", tmp_path / f"back{suffix}"
    record = wt.convert(path, there, layout=target, verify=True)
    assert record["layout"]["source"] == "torch" and record["n_verified"] == len(arrays) - 1
    row = next(row for row in record["layout_log"] if row["src"] == "conv.weight")
    assert (row["rule"], row["shape_src"]) == ("conv2d", [8, 3, 3, 3]) and row["shape_dst"] == list(
        wt.open(there)[row["dst"]].shape
    )
    wt.convert(there, back, layout="torch", layout_from=target, verify=True)
    assert_same(wt.open(back).read(), {name: array for name, array in arrays.items() if "tracked" not in name})
    assert wt.open(back).metadata["format"] == "pt"


def test_convert_with_a_cast(checkpoint: tuple[Path, Arrays], tmp_path: Path) -> None:
    path, arrays = checkpoint
    record = wt.convert(path, tmp_path / "k.npz", layout="keras", dtype="bfloat16", keep_dtype=["bn.*"], verify=True)
    found = wt.open(tmp_path / "k.npz").read()
    expected = cast(dtype("bfloat16"))(TensorMap.from_arrays(arrays))["conv.weight"].read()
    np.testing.assert_array_equal(bits_of(found["conv/kernel"]), bits_of(expected.transpose(2, 3, 1, 0)))
    assert found["bn/moving_mean"].dtype == np.float32
    assert record["n_cast"] == 4 and record["n_verified"] == 8


def test_verification_notices_a_changed_bit(checkpoint: tuple[Path, Arrays], tmp_path: Path) -> None:
    path, arrays = checkpoint
    before = wt.open(path)
    change = layout(before, "flax")
    after = change.apply(before).read()
    assert verify(before, TensorMap.from_arrays(after), change) == len(arrays) - 1
    after["params/conv/kernel"].view(np.uint8).reshape(-1)[17] ^= 1
    with pytest.raises(CorruptFileError, match="'params/conv/kernel' taken back differs"):
        verify(before, TensorMap.from_arrays(after), change)
    del after["params/conv/kernel"]
    with pytest.raises(CorruptFileError, match="was not written"):
        verify(before, TensorMap.from_arrays(after), change)


def test_command(checkpoint: tuple[Path, Arrays], tmp_path: Path) -> None:
    path, _ = checkpoint
    done = CliRunner().invoke(convert_command, [str(path), str(tmp_path / "k.npz"), "--layout", "keras", "--verify"])
    assert done.exit_code == 0, done.output
    assert "conv.weight -> conv/kernel  8 × 3 × 3 × 3 -> 3 × 3 × 3 × 8  [conv2d: " in done.output
    assert "layout torch -> keras (" in done.output and "verified: 8 tensors" in done.output
    dry = CliRunner().invoke(
        convert_command, [str(path), str(tmp_path / "d.npz"), "--layout", "flax", "--dry-run", "--json"]
    )
    assert '"layout_log"' in dry.output and not (tmp_path / "d.npz").exists()


@pytest.mark.parametrize("options", [{"layout_from": "torch"}, {"layout_rule": ["*=keep"]}])
def test_options_need_layout(checkpoint: tuple[Path, Arrays], tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="layout_from and layout_rule need layout"):
        wt.convert(checkpoint[0], tmp_path / "x.npz", **options)


@pytest.mark.real
@pytest.mark.parametrize("net", ["pnet", "rnet", "onet"])
def test_facenet_is_mtcnn_by_an_explicit_rule(net: str) -> None:
    """The real exception: its convolutions are mtcnn's with all axes turned round, not by the usual (2, 3, 1, 0)."""
    state = torch.load(real_file("facenet-pytorch", f"{net}.pt"), weights_only=True)
    arrays = {name: tensor.contiguous().numpy() for name, tensor in state.items()}
    other = np.load(real_file("mtcnn", "mtcnn_weights.npy"), allow_pickle=True).item()[net]
    rules = ["*conv*.weight=transpose(3,2,1,0)", "prelu*=keep"]
    found = carried(arrays, "keras", *rules, source="torch")
    assert len(found) == len(other)
    for (name, array), expected in zip(found.items(), other, strict=True):
        np.testing.assert_array_equal(array, expected.reshape(array.shape), err_msg=name)
    usual = carried(arrays, "keras", "prelu*=keep", source="torch")
    assert not np.array_equal(usual["conv1/kernel"], other[0])


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantised_kernels_of_keras_are_not_transposed_without_their_scales(
    mode: str, suffix: str, tmp_path: Path
) -> None:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.layers[0].quantize(mode)
    path = tmp_path / f"m{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    with pytest.raises(SpecError, match=r"weights are packed as .*leave layout out"):
        wt.convert(path, tmp_path / "m.safetensors", layout="torch")
    assert not (tmp_path / "m.safetensors").exists()


def test_a_float8_model_of_keras_becomes_torch_layers_without_scales(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="d")])
    model.layers[0].quantize("float8")
    model.save(tmp_path / "m.h5")
    record = wt.convert(tmp_path / "m.h5", tmp_path / "m.safetensors", layout="torch")
    found = wt.open(tmp_path / "m.safetensors").read()
    assert sorted(name.rpartition(".")[2] for name in found) == ["bias", "weight"]
    weight = next(array for name, array in found.items() if name.endswith("weight"))
    np.testing.assert_array_equal(weight, np.array(model.layers[0].kernel).T)
    assert any("6 tensors have no place in torch and are left out" in note for note in record["notes"])

"""Roles: one table of names for every verb, and torch's and Keras's own counts of parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import weighttools as wt
from weighttools.analyzers.alike import families
from weighttools.core.dtypes import DTYPES
from weighttools.core.spec import Spec
from weighttools.families.of_maps import roles
from weighttools.families.parameters import decays
from weighttools.families.role_types import Role
from weighttools.families.roles import tell_role
from weighttools.train.optim import groups
from weighttools.transforms.selection import select

TABLE = {
    Role.WEIGHT: (
        "fc.weight layers.0.mlp.down_proj.weight patch_embed.proj.weight embeddings.patch_embedding.weight "
        "dense/kernel:0 layers/dense/vars/0 time_embed.0.weight shared_expert.up_proj.weight norm1.linear.weight "
        "wte.lora_A.weight lora_te_text_model_embeddings.lora_up.weight blk.0.attn_output.weight class_embed.weight "
        "conv.weight_v conv.parametrizations.weight.original1 f2.parametrizations.weight.original 0.weight_orig "
        "attn.out_proj.weight bert.pooler.dense.weight"
    ),
    Role.NORM: (
        "ln_f.weight encoder.layer_norm.weight bn1.weight LayerNorm.gamma blk.0.attn_norm.weight BatchNorm_0/scale "
        "layernorm_embedding.weight logit_scale attn.logit_scale ls1.gamma layers/layer_normalization_3/vars/0 "
        "conv.weight_g conv.parametrizations.weight.original0 q.lora_magnitude_vector.weight q.dora_scale"
    ),
    Role.BIAS: (
        "fc.bias LayerNorm.beta dense/bias:0 experts.gate_up_proj_bias linear/b mha.in_proj_bias layer_norm.bias "
        "lstm.bias_ih_l0 0.bias_orig h.0.attn.bias"
    ),
    Role.EMBEDDING: (
        "wte.weight embeddings.word_embeddings.weight model.embed_tokens.weight token_embd.weight cls_token pos_embed "
        "vit.embeddings.cls_token embeddings.mask_token embeddings/embedding shared.weight token_types.weight "
        "relative_position_bias_table blocks.0.attn.rel_pos_h visual.positional_embedding register_tokens "
        "layers/embedding/vars/0"
    ),
    Role.HEAD: (
        "lm_head.weight classifier.weight score.weight heads.head.weight output.weight embed_out.weight qa_outputs.weight "
        "classifier.out_proj.weight cls.predictions.decoder.weight"
    ),
    Role.BUFFER: (
        "rotary.inv_freq swin.relative_position_index rope_freqs.weight unet_mid.alpha alphas_cumprod betas pixel_mean"
    ),
    Role.STATISTIC: (
        "bn.running_mean bn.running_var bn.num_batches_tracked batch_norm/moving_variance:0 batch_stats/BatchNorm_0/mean "
        "layers/batch_normalization/vars/3 layers/normalization_1/vars/0 normalization/mean normalization/variance "
        "normalization/count layers/batch_normalization_1/vars/1"
    ),
    Role.VECTOR: "0.weight_u 0.weight_v f2.parametrizations.weight.0._u f2.parametrizations.weight.0._v sn/vector_u",
    Role.MASK: "0.weight_mask 0.bias_mask decoder.causal_mask",
    Role.SCALE: (
        "q.weight_scale_inv q.weight_scale q.input_scale q.scales q.weight.absmax q.weight.quant_map q.SCB dense/kernel_scale "
        "ao.scale self_attn.k_scale"
    ),
    Role.STATE: (
        "optimizer.state.0.exp_avg optimizer_states/0/state/0/exp_avg_sq opt_state/0/mu/Dense_0/kernel momentum_buffer "
        "callbacks.ModelCheckpoint.best_model_score lr_schedulers.0.best optimizer/vars/2"
    ),
}
NEIGHBOURS = (
    "unet_mid.lora_down.weight unet_mid.lora_up.weight conv.bias 0.weight_mask layers/batch_normalization/vars/2 "
    "layers/batch_normalization/vars/0 layers/batch_normalization/vars/1 layers/batch_normalization_1/vars/0 "
    "ao.zero_point 0.bias_mask"
)
VECTORS = [
    "0.weight_u",
    "0.weight_v",
    "f2.parametrizations.weight.0._u",
    "f2.parametrizations.weight.0._v",
    "sn/vector_u",
]
ROWS = [(name, role) for role, text in TABLE.items() for name in text.split()]


def shape_of(name: str) -> tuple[int, ...]:
    """Weight norm's magnitudes and spectral norm's vectors have a shape of their own; all else is a matrix here."""
    return (4, 1) if name.endswith("original0") else (4,) if name in VECTORS else (4, 4)


def everything() -> wt.TensorMap:
    names = [*(name for name, _ in ROWS), *NEIGHBOURS.split()]
    return wt.TensorMap.from_arrays({name: np.ones(shape_of(name), np.float32) for name in names})


def test_each_name_of_the_table_has_its_role_and_evidence() -> None:
    tensor_map = everything()
    for name, role in ROWS:
        found = tell_role(name, tensor_map[name].spec, tensor_map)
        assert (name, found.role) == (name, role), found.why
        assert found.why and found.is_parameter == (role in list(Role)[:5])
    groups = {group["group"]: group for group in wt.params(tensor_map, by="role")["groups"]}
    assert list(groups) == [role.value for role in Role]
    assert all(sum(g["because"].values()) == g["n_tensors"] >= len(TABLE[Role(r)].split()) for r, g in groups.items())


def test_every_verb_and_training_leave_the_same_alone() -> None:
    tensor_map = everything()
    because = wt.scale(tensor_map, by=2.0).report["because"]
    assert because["cls_token"] == "embedding: it is called cls_token"
    changed, all_of = set(select(tensor_map).names), set(select(tensor_map, include_all=True).names)
    for name, role in ROWS:
        array = tensor_map[name].read()
        assert (name, name in all_of) == (name, role.is_parameter)
        if role.is_parameter:
            is_shrunk = role in (Role.WEIGHT, Role.HEAD)
            assert (name, name in changed) == (name, is_shrunk)
            assert (name, groups.decays(name, array)) == (name, is_shrunk)
            assert groups.is_hidden_matrix(name, array) == (role is Role.WEIGHT)
    n_parameters = sum(tensor_map[name].n_elements for name, role in ROWS if role.is_parameter)
    extra = sum(
        t.n_elements
        for n, t in tensor_map.items()
        if n not in dict(ROWS) and tell_role(n, t.spec, tensor_map).is_parameter
    )
    assert wt.params(tensor_map)["n_parameters"] == n_parameters + extra


def test_integers_and_shapes_decide_where_names_do_not() -> None:
    def role(name: str, dtype: str, shape: tuple[int, ...]) -> Role:
        return tell_role(name, Spec(DTYPES[dtype], shape)).role

    assert role("h.0.attn.bias", "float32", (1, 1, 8, 8)) is Role.MASK
    assert role("fc.weight", "int8", (4, 4)) is Role.BUFFER
    assert role("scaler.scale", "float32", ()) is Role.STATE
    assert role("fc.weight", "float8_e8m0fnu", (4, 4)) is Role.SCALE


class Buffers(nn.Module):
    """Modules that register buffers by usual names."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.rot = nn.BatchNorm2d(4), nn.Linear(2, 2)
        self.norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.mha = nn.MultiheadAttention(4, 2)
        for name, shape in {"inv_freq": 3, "attn_mask": (2, 4), "pixel_mean": 3, "anchor_grid": 3}.items():
            self.register_buffer(name, torch.zeros(shape))
        for name in ("betas", "alphas_cumprod", "posterior_mean_coef1"):
            self.register_buffer(name, torch.zeros(10))


def _mixed() -> nn.Module:
    """Names that are alike but for digits, and mean different things."""
    return nn.ModuleDict(
        {
            "fc1": spectral_norm(nn.Linear(6, 4)),
            "fc2": weight_norm(nn.Linear(6, 4)),
            "fc3": spectral_norm(nn.Linear(4, 6)),
            "fc4": weight_norm(nn.Linear(1, 4)),
            "bn1": nn.BatchNorm1d(4),
            "fc5": parametrizations.weight_norm(nn.Linear(6, 4)),
            "fc6": parametrizations.spectral_norm(nn.Linear(6, 4)),
        }
    )


def _pruned() -> nn.Module:
    module = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 4))
    for part in module:
        prune.l1_unstructured(part, "weight", amount=0.5)
        prune.random_unstructured(part, "bias", amount=0.5)
    return module


class WithAlpha(nn.Module):
    """A factor pair of kohya's scripts, whose alpha is a buffer, and an activation whose alpha is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.lora_unet_mid = nn.ModuleDict({"lora_down": nn.Linear(8, 2), "lora_up": nn.Linear(2, 8)})
        self.lora_unet_mid.register_buffer("alpha", torch.tensor(1.0))
        self.snake = nn.Module()
        self.snake.alpha = nn.Parameter(torch.ones(7))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: nn.ModuleDict({"c": weight_norm(nn.Conv1d(6, 6, 4)), "f": weight_norm(nn.Linear(6, 4))}),
    "weight norm, parametrised": lambda: parametrizations.weight_norm(nn.Conv1d(6, 6, 4), dim=2),
    "spectral norm": lambda: nn.Sequential(spectral_norm(nn.Linear(6, 4)), spectral_norm(nn.Conv2d(3, 5, 3))),
    "spectral norm, parametrised": lambda: nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(6, 4)), nn.Linear(4, 2)
    ),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(4, 4)),
    "pruned": _pruned,
    "buffers": Buffers,
    "alpha": WithAlpha,
    "mixed": _mixed,
    "recurrent": lambda: weight_norm(nn.LSTM(4, 4), "weight_hh_l0"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", MODULES)
def test_the_count_is_torchs(kind: str, tmp_path: Path) -> None:
    module = MODULES[kind]()
    torch.save(module.state_dict(), tmp_path / "model.pt")
    n_parameters, n_buffers = (sum(t.numel() for t in ts) for ts in (module.parameters(), module.buffers()))
    for by in ("dtype", "module", "depth"):
        record = wt.params(tmp_path / "model.pt", by=by)
        assert (record["n_parameters"], record["n_buffers"], record["n_state"]) == (n_parameters, n_buffers, 0)
    tensor_map = wt.open(tmp_path / "model.pt")
    known = {name for name, _ in module.named_parameters()}
    assert {name for name, role in zip(tensor_map, roles(tensor_map), strict=True) if role.is_parameter} == known


def _groups(keras: Any) -> dict[str, Any]:
    layers = keras.layers
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(size=(10, 3)))
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.BatchNormalization()], name="enc")
    plain = [layers.BatchNormalization(scale=s, center=c) for s in (True, False) for c in (True, False)]
    return {
        "normalization": [keras.Input((3,)), norm, layers.Dense(2)],
        "nested": [keras.Input((3,)), inner, layers.Dense(2)],
        "batch normalization": [keras.Input((4,)), *plain, layers.LayerNormalization(), layers.Dense(2)],
        "spectral": [keras.Input((4,)), layers.SpectralNormalization(layers.Dense(5))],
        "several": [
            keras.Input((8, 8, 3)), layers.SeparableConv2D(4, 3, depth_multiplier=2), layers.DepthwiseConv2D(3),
            layers.BatchNormalization(), layers.PReLU(), layers.GroupNormalization(1), layers.Flatten(), layers.Dense(2),
        ],
    }  # fmt: skip


def _n(variables: Iterable[Any]) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


keras_copies = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@keras_copies
@pytest.mark.parametrize("kind", ["normalization", "nested", "batch normalization", "spectral", "several"])
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_the_count_is_kerass(kind: str, suffix: str, tmp_path: Path) -> None:
    import keras

    model = keras.Sequential(_groups(keras)[kind])
    path = tmp_path / f"model{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    record = wt.params(path)
    again = 20 if kind == "spectral" and suffix != ".h5" else 0  # Keras writes that kernel twice: once as the wrapper's
    assert record["n_elements"] == model.count_params() + again
    assert record["n_parameters"] == _n(model.trainable_weights)
    assert record["n_buffers"] == _n(model.non_trainable_weights) + again


def _quantized(keras: Any, mode: str) -> tuple[Any, int]:
    """A model whose layers Keras has quantised: those that hold kernels, with biases and without, and a table."""
    layers = keras.layers
    inputs = keras.Input((6,), dtype="int32")
    x = inputs
    x = (layers.Embedding(9, 8) if mode != "float8" else layers.Dense(8, name="dense_of_ids"))(x)
    x = x if mode != "float8" else layers.Reshape((1, 8))(x)
    x = layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de")(x)
    x = layers.EinsumDense("abde,dec->abc", (None, 8))(x)
    x = layers.LayerNormalization()(x)
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(layers.Dense(16, name="d")(x)))
    dense = model.count_params()
    model.quantize(mode)
    return model, dense


@keras_copies
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_scales_of_a_quantised_model_are_no_parameters(mode: str, suffix: str, tmp_path: Path) -> None:
    """Integers and their scales are weights that Keras does not train."""
    import keras

    model, n_dense = _quantized(keras, mode)
    path = tmp_path / f"model{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    record = wt.params(path)
    n_trained = n_dense if mode == "float8" else _n(model.trainable_weights)  # float8's scales are moved by gradients
    assert record["n_elements"] == model.count_params()
    assert (record["n_parameters"], record["n_buffers"]) == (n_trained, model.count_params() - n_trained)
    by_role = {row["group"]: row["n_buffers"] for row in wt.params(path, by="role")["groups"]}
    assert by_role["quantisation scale"] + by_role.get("buffer", 0) == record["n_buffers"]
    assert by_role["quantisation scale"] >= _n(w for w in model.weights if w.name.endswith(("_scale", "_history")))
    assert all("nothing tells" not in note for note in record["notes"])


@pytest.mark.parametrize(
    ("dtypes", "shapes"),
    [
        (["int8", "float32", "float32"], [(4, 6), (5,), (5,)]),  # neither bias nor scales of this kernel
        (["int8", "float32", "float32", "float32"], [(4, 6), (6,), (6,), (6,)]),  # no layer of Keras's has these
        (["int8", "float32"], [(7,), (7,)]),
    ],
)
def test_numbered_floats_beside_integers_are_not_guessed(dtypes: list[str], shapes: list[Any]) -> None:
    names = [f"layers/custom/vars/{i}" for i in range(len(dtypes))]
    arrays = {n: np.ones(s, d) for n, s, d in zip(names, shapes, dtypes, strict=True)}
    record = wt.params(wt.TensorMap.from_arrays(arrays))
    assert record["n_parameters"] == sum(a.size for a in arrays.values() if a.dtype == np.float32)
    if len(shapes[0]) > 1:
        assert "nothing tells which of their floats are scales" in record["notes"][-1]
        assert "layers/custom/vars" in record["notes"][-1]


@pytest.mark.parametrize("says", ["int8", None])
def test_the_configuration_tells_of_a_layer_whose_shapes_do_not(says: str | None) -> None:
    policy = {"class_name": "QuantizedDTypePolicy", "config": {"mode": says}} if says else "float32"
    config = json.dumps(
        {"config": {"layers": [{"class_name": "EinsumDense", "config": {"name": "e", "dtype": policy}}]}}
    )
    shapes = {"0": (4, 6, 2), "1": (3,), "2": (5,)}
    arrays = {f"layers/einsum_dense/vars/{i}": np.ones(s, "float32" if i != "0" else "int8") for i, s in shapes.items()}
    metadata = {"config.json": config, "keras_names": {"layers/einsum_dense": "e"}}
    record = wt.params(wt.TensorMap.from_arrays(arrays, metadata))
    assert record["n_parameters"] == (3 if says else 8)


@keras_copies
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_an_optimizers_state_is_counted_apart(suffix: str, tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.BatchNormalization()])
    model.compile("adam", "mse")
    model.fit(np.zeros((4, 8)), np.zeros((4, 4)), verbose=0)
    path = tmp_path / f"model{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    record = wt.params(path)
    assert (record["n_parameters"], record["n_buffers"]) == (
        _n(model.trainable_weights),
        _n(model.non_trainable_weights),
    )
    slots = _n(model.optimizer.variables)
    assert 0 < record["n_state"] <= slots and record["n_elements"] == model.count_params() + record["n_state"]


def test_a_family_of_two_roles_is_two_families() -> None:
    arrays = {"fc1.weight_mask": 4, "fc1.weight_orig": 4, "fc2.weight_mask": 4, "fc3.weight": 4}
    tensor_map = wt.TensorMap.from_arrays({name: np.ones((n, n), np.float32) for name, n in arrays.items()})
    found = families(tensor_map)
    assert [(f.words, f.n_tensors, f.is_parameter) for f in found if f.words == "fc.weight_mask"] == [
        ("fc.weight_mask", 1, False),
        ("fc.weight_mask", 1, True),
    ]


def test_lightnings_callbacks_are_state(tmp_path: Path) -> None:
    from torch.nn.utils import parameters_to_vector

    net = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 1,
        "state_dict": net.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": {"EarlyStopping{'monitor': 'val'}": {"best_score": torch.tensor(0.5)}},
    }
    torch.save(checkpoint, tmp_path / "last.ckpt")
    record = wt.params(tmp_path / "last.ckpt")
    slots = sum(t.numel() for state in optimizer.state.values() for t in state.values())
    assert record["n_parameters"] == parameters_to_vector(net.parameters()).numel()
    assert (record["n_buffers"], record["n_state"]) == (0, slots + 1)


@pytest.mark.parametrize("name", ["experts.0.w1.weight", "a.b.c.weight", "vars", "", ".", "/", "x:0", "é/vars/0"])
def test_any_name_has_a_role(name: str) -> None:
    spec = Spec(DTYPES["float32"], (2, 2))
    assert tell_role(name, spec).role in Role and tell_role(name, spec, frozenset()).why
    decays(name, (2, 2))


def test_figures_beside_the_weights_are_no_parameters(tmp_path: Path) -> None:
    """PyTorch's tutorials keep a loss as a tensor, its ImageNet example the best accuracy; generators' states too."""
    model = torch.nn.Linear(4, 5)
    torch.save(
        {
            "epoch": 3, "model_state_dict": model.state_dict(), "loss": torch.tensor(0.5), "best_acc1": torch.tensor(71.3),
            "rng_state": torch.get_rng_state(),
        },
        tmp_path / "a.pt",
    )  # fmt: skip
    record = wt.params(tmp_path / "a.pt")
    assert record["n_parameters"] == sum(p.numel() for p in model.parameters())
    assert record["n_state"] == 2
    assert {"weight", "bias"} <= set(wt.open(tmp_path / "a.pt"))
    spec = Spec(DTYPES["float32"], ())
    assert tell_role("logit_scale", spec).is_parameter and tell_role("temperature", spec).is_parameter


def test_a_float_mask_is_no_parameter() -> None:
    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))
            self.register_buffer("mask", torch.ones(3))

    record = wt.params(wt.TensorMap.from_arrays({n: t.numpy() for n, t in Masked().state_dict().items()}))
    assert record["n_parameters"] == 3

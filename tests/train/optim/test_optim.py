"""Optimisers, 200 steps with one sequence of gradients, against torch.optim."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.models import test_models
from tests.train.models.test_models import CONFIGS, DECODER, ENCODER, T
from weighttools.errors import SpecError, WeighttoolsError
from weighttools.train.optim import averages, groups, matrices, schedules, transforms
from weighttools.train.optim import chains as optim

UNIT = 2.0**-23
SHAPES = {"fc.weight": (7, 5), "conv.weight": (4, 3, 2), "out.weight": (250, 140)}
Pair = tuple[Callable[[], optim.Optimizer], Callable[[list[torch.Tensor]], torch.optim.Optimizer]]
PAIRS: dict[str, Pair] = {
    "sgd": (lambda: optim.sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (lambda: optim.sgd(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "nesterov": (
        lambda: optim.sgd(0.1, momentum=0.9, nesterov=True, l2=0.001),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.001),
    ),
    "adam": (lambda: optim.adam(1e-2, l2=0.001), lambda p: torch.optim.Adam(p, 1e-2, weight_decay=0.001)),
    "adamw": (lambda: optim.adamw(1e-2), lambda p: torch.optim.AdamW(p, 1e-2)),
    "adamw_betas": (
        lambda: optim.adamw(1e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 1e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
    ),
    "adagrad": (lambda: optim.adagrad(0.05), lambda p: torch.optim.Adagrad(p, 0.05)),
    "rmsprop": (lambda: optim.rmsprop(1e-2), lambda p: torch.optim.RMSprop(p, 1e-2)),
    "rmsprop_momentum": (
        lambda: optim.rmsprop(1e-3, momentum=0.9, l2=0.001),
        lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9, weight_decay=0.001),
    ),
    "adafactor": (lambda: optim.adafactor(1e-2), lambda p: torch.optim.Adafactor(p, 1e-2)),
}


@functools.cache
def gradients() -> list[dict[str, np.ndarray]]:
    """200 sets in float32, none near zero: there, dividing by a root of squares amplifies every rounding."""
    rng = np.random.default_rng(7)
    draw = lambda shape: (rng.choice((-1, 1.5), shape) * rng.uniform(0.05, 0.3, shape)).astype(np.float32)  # noqa: E731
    return [{name: draw(shape) for name, shape in SHAPES.items()} for _ in range(200)]


def start(dtype: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32).astype(dtype) for name, shape in SHAPES.items()}


def ours(optimizer: optim.Optimizer, dtype: Any) -> dict[str, np.ndarray]:
    params = start(dtype)
    state = optimizer.init(params)
    for grads in gradients():
        optimizer.step(params, {name: g.astype(dtype) for name, g in grads.items()}, state)
    return params


@functools.cache
def theirs(make: Callable[[list[torch.Tensor]], torch.optim.Optimizer], dtype: Any) -> dict[str, np.ndarray]:
    tensors = {name: torch.tensor(p, requires_grad=True) for name, p in start(dtype).items()}
    optimizer = make(list(tensors.values()))
    for grads in gradients():
        for name, g in grads.items():
            tensors[name].grad = torch.tensor(g.astype(dtype))
        optimizer.step()
    return {name: p.detach().numpy() for name, p in tensors.items()}


def distance(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """The largest difference, relative to the largest parameter of its tensor."""
    return max(float(np.abs(a[n].astype(float) - b[n]).max() / np.abs(b[n]).max()) for n in a)


@pytest.mark.parametrize("name", PAIRS)
def test_float64_is_torch_to_1e_14(name: str) -> None:
    make, reference = PAIRS[name]
    assert distance(ours(make(), np.float64), theirs(reference, np.float64)) <= 1e-14


@pytest.mark.parametrize("name", PAIRS)
def test_float32_is_within_units_in_the_last_place_of_torch(name: str) -> None:
    """A unit is that of the tensor's largest parameter. Where torch multiplies and adds with one rounding, as in SGD,
    NumPy rounds twice, and 200 steps round 200 times; so torch's own error is granted too.
    """
    make, reference = PAIRS[name]
    found, torch32, torch64 = ours(make(), np.float32), theirs(reference, np.float32), theirs(reference, np.float64)
    assert all(p.dtype == np.float32 for p in found.values())
    assert distance(found, torch32) <= 3 * UNIT
    assert distance(found, torch64) <= distance(torch32, torch64) + 2 * UNIT


def run(optimizer: optim.Optimizer, params: dict[str, np.ndarray], n: int = 5, first: int = 0) -> optim.State:
    state = optimizer.init(params)
    for grads in gradients()[first : first + n]:
        optimizer.step(params, grads, state)
    return state


def test_lion_is_the_algorithm_of_its_paper() -> None:
    params, lr, (b1, b2), decay = start(np.float64), 1e-3, (0.9, 0.99), 0.1
    expected = {name: torch.tensor(p) for name, p in params.items()}
    moments = {name: torch.zeros_like(p) for name, p in expected.items()}
    optimizer = optim.lion(lr, betas=(b1, b2), weight_decay=decay)
    state = optimizer.init(params)
    for grads in gradients():
        optimizer.step(params, {n: g.astype(np.float64) for n, g in grads.items()}, state)
        for name, g in grads.items():
            g64, m = torch.tensor(g).double(), moments[name]
            expected[name] -= lr * (torch.sign(b1 * m + (1 - b1) * g64) + decay * expected[name])
            moments[name] = b2 * m + (1 - b2) * g64
    assert distance(params, {n: p.numpy() for n, p in expected.items()}) <= 1e-13


@pytest.mark.parametrize("match_adam", [False, True])
def test_muon_is_that_of_torch_but_for_its_bfloat16(match_adam: bool) -> None:
    """torch iterates in bfloat16, whose unit is 2**-8; the mean difference of 5 steps of size lr stays within it."""
    params = {name: p for name, p in start(np.float32).items() if p.ndim == 2 and not name.startswith("out")}
    tensors = {name: torch.tensor(p, requires_grad=True) for name, p in params.items()}
    adjust = "match_rms_adamw" if match_adam else "original"
    theirs = torch.optim.Muon(list(tensors.values()), 0.1, adjust_lr_fn=adjust)
    optimizer = optim.muon(0.1, match_adam=match_adam)
    state = optimizer.init(params)
    for grads in gradients()[:5]:
        optimizer.step(params, {name: grads[name] for name in params}, state)
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(grads[name])
        theirs.step()
    moved = {name: np.abs(start(np.float32)[name] - p).mean() for name, p in params.items()}
    for name, p in params.items():
        assert np.abs(p - tensors[name].detach().numpy()).mean() < 2e-2 * moved[name]


def test_muon_leaves_vectors_and_embeddings_to_adam() -> None:
    params = {"h.0.fc.weight": np.ones((3, 4)), "wte.weight": np.ones((3, 4)), "fc.bias": np.ones(3)}
    state = optim.muon().init(params)
    assert set(state.slots["momentum"]) == {"h.0.fc.weight"}
    assert set(state.slots["first_moment_sum"]) == {"wte.weight", "fc.bias"}
    values = np.linalg.svd(
        matrices.near_orthogonal(np.random.default_rng(0).standard_normal((20, 30))), compute_uv=False
    )
    assert values.min() > 0.6 and values.max() < 1.3


def test_clipping_by_norm_is_that_of_torch() -> None:
    params = start(np.float64)
    grads = {n: g.astype(np.float64) for n, g in gradients()[0].items()}
    tensors = [torch.tensor(p, requires_grad=True) for p in params.values()]
    for tensor, g in zip(tensors, grads.values(), strict=True):
        tensor.grad = torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_(tensors, 0.5)
    torch.optim.SGD(tensors, 0.1).step()
    optimizer = optim.sgd(0.1).after(transforms.ClipNorm(0.5))
    before = {n: g.copy() for n, g in grads.items()}
    notes = optimizer.step(params, grads, optimizer.init(params))
    assert notes["grad_norm"] == pytest.approx(norm.item(), rel=1e-12)
    assert distance(params, {n: t.detach().numpy() for n, t in zip(params, tensors, strict=True)}) < 1e-14
    assert all((grads[n] == before[n]).all() for n in grads), "gradients are read only"


def test_clipping_by_value_penalties_and_the_proximal_step() -> None:
    p = {"w.weight": np.array([[1.0, -1.0, 0.001]]), "w.bias": np.array([1.0])}
    g = {"w.weight": np.array([[5.0, -0.1, 0.0]]), "w.bias": np.array([0.0])}
    optimizer = optim.sgd(0.1).after(transforms.ClipValue(0.5), transforms.Penalty(l2=0.1, l1=0.01))
    optimizer.step(p, g, optimizer.init(p))
    assert np.allclose(p["w.weight"], [[1 - 0.1 * 0.61, -1 + 0.1 * 0.21, 0.001 - 0.1 * 0.0101]], rtol=1e-12)
    assert p["w.bias"] == 1
    p = {"w.weight": np.array([[1.0, -1.0, 0.001]])}
    optimizer = optim.sgd(0.1, proximal_l1=0.1)
    optimizer.step(p, {"w.weight": np.zeros((1, 3))}, optimizer.init(p))
    assert p["w.weight"].tolist() == [[0.99, -0.99, 0.0]]


def test_a_restored_state_continues_to_the_bit() -> None:
    optimizer = optim.adamw(schedules.warmup_cosine(1e-2, warmup=3, n_steps=20)).after(transforms.ClipNorm(1.0))
    whole, parted = start(np.float32), start(np.float32)
    run(optimizer, whole, 12)
    state = run(optimizer, parted, 7)
    restored = optim.State(
        state.step, {s: {n: a.copy() for n, a in arrays.items()} for s, arrays in state.slots.items()}
    )
    for grads in gradients()[7:12]:
        optimizer.step(parted, grads, restored)
    assert all(whole[n].tobytes() == parted[n].tobytes() for n in whole)


def test_only_parameters_with_gradients_move_and_rates_are_shares() -> None:
    params = {"layer.0.w": np.ones((2, 2)), "layer.1.w": np.ones((2, 2)), "layer.2.frozen": np.ones((2, 2))}
    optimizer = optim.sgd(1.0, rates=groups.layerwise(params, 0.5))
    optimizer.step(params, {n: np.full((2, 2), 0.25) for n in ("layer.0.w", "layer.1.w")}, optimizer.init(params))
    assert [p[0, 0] for p in params.values()] == [1 - 0.25 * 0.125, 1 - 0.25 * 0.25, 1.0]


def test_decay_groups_are_told_apart_and_printed() -> None:
    names = {
        "encoder.layer.0.attention.self.query.weight": True,
        "encoder.layer.0.attention.output.LayerNorm.weight": False,
        "embeddings.word_embeddings.weight": False,
        "h.0.ln_1.weight": False,
        "blk.0.attn_norm.weight": False,
        "token_embd.weight": False,
        "model.embed_tokens.weight": False,
        "model.layers.0.mlp.down_proj.weight": True,
        "experts.gate_up_proj_bias": False,
        "dense/kernel:0": True,
        "batch_norm/gamma:0": False,
        "fc.weight": True,
    }
    assert {n: groups.decays(n, np.zeros((2, 2))) for n in names} == names
    assert not groups.decays("fc.weight", np.zeros(2))
    text = optim.adamw(weight_decay=0.1).describe({n: np.zeros((2, 2)) for n in names})
    assert "decay 0.1, rate x 1: 4 tensors, 16 parameters" in text and "decay 0, rate x 1: 8 tensors" in text
    two = {"fc.weight": np.zeros((2, 2)), "fc.bias": np.zeros(2)}
    told = {
        "L2 0.1, rate x 1": optim.sgd(l2=0.1),
        "decay 0.01, proximal L1 0.5, rate x 1": optim.adamw(proximal_l1=0.5),
        "L2 0.1, L1 0.2, rate x 0.5": optim.sgd(rates={"fc.weight": 0.5}).after(transforms.Penalty(0.1, 0.2)),
        "decay 0, rate x 1": optim.sgd(),
    }
    for words, optimizer in told.items():
        assert optimizer.describe(two).startswith(f"{words}: ") and "decay 0, rate x 1: " in optimizer.describe(two)


MATRICES = (
    "b.weight net.b1.weight lnet.weight normal_head.weight norm1.linear.weight patch_embed.proj.weight "
    "embeddings.patch_embedding.weight encoder.embedding_hidden_mapping_in.weight embeddings_project.weight "
    "embed_out.weight unembed.weight time_embed.0.weight shared_expert.up_proj.weight layers/dense/vars/0 "
    "base.wte.lora_A.weight"
)
HELD = (
    "dense/bias:0 dense/bias linear/b experts.down_proj_bias LayerNorm.weight layer_norm.weight ln_f.weight "
    "norm1.weight input_layernorm.weight sa_layer_norm.weight bn1.weight q_norm.weight norms.0.weight "
    "BatchNorm_0/scale layer_normalization_3/gamma:0 layers/attention_norm/scale layernorm_embedding.weight "
    "word_embeddings_layernorm.weight wpe.weight position_embeddings.weight embeddings/embedding shared.weight "
    "embedding/embeddings:0 layers/embedding/vars/0 embed_tokens.0.weight embed_in.weight pos_embed cls_token "
    "token_types.weight relative_position_bias_table relative_attention_bias.weight"
)
BELOW = (
    "embeddings.LayerNorm.weight embeddings_project.weight encoder.embedding_hidden_mapping_in.weight "
    "patch_embed.proj.weight wte.weight shared.weight token_embd_norm.weight pos_embed cls_token Embedding_0/embedding"
)
ABOVE = "embed_out.weight unembed.weight lm_head.weight norm.weight lnet.weight b.weight member.weight"


@pytest.mark.parametrize("name", MATRICES.split())
def test_a_matrix_decays_whatever_its_name_contains(name: str) -> None:
    assert groups.decays(name, np.zeros((2, 2)))


@pytest.mark.parametrize("name", HELD.split())
def test_stacked_norms_and_biases_and_tables_do_not_decay(name: str) -> None:
    assert not groups.decays(name, np.zeros((2, 2)))


MORE: dict[str, Any] = {
    "t5": lambda: T.T5Model(T.T5Config(vocab_size=50, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=4)),
    "gpt_neox": lambda: T.GPTNeoXForCausalLM(T.GPTNeoXConfig(**ENCODER)),
    "bloom": lambda: T.BloomModel(T.BloomConfig(vocab_size=50, hidden_size=24, n_layer=2, n_head=4)),
    "resnet": lambda: T.ResNetModel(T.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1])),
    "gpt_oss": lambda: T.GptOssModel(T.GptOssConfig(**DECODER, num_local_experts=2, head_dim=8)),
}


@pytest.mark.parametrize("kind", [*CONFIGS, *MORE])
def test_what_decays_is_what_torch_modules_say(kind: str) -> None:
    """Not what has one axis, and not what a norm or an embedding owns, nor a bias: here by type, there by name."""
    module = MORE[kind]() if kind in MORE else test_models.reference(kind)
    expected = {
        f"{path}.{own}".lstrip("."): p.ndim > 1
        and not isinstance(part, torch.nn.Embedding)
        and "Norm" not in type(part).__name__
        and not own.endswith("bias")
        for path, part in module.named_modules()
        for own, p in part.named_parameters(recurse=False)
    }
    assert {n: groups.decays(n, p) for n, p in module.named_parameters()} == {
        n: expected[n] for n, _ in module.named_parameters()
    }


def test_what_lies_below_the_first_layer() -> None:
    below, above = BELOW.split(), ABOVE.split()
    shares = groups.layerwise([*below, "layers.0.fc.weight", *above], 0.5)
    assert {shares[n] for n in below} == {0.25} and {shares[n] for n in above} == {1.0}
    assert not any(groups.is_hidden_matrix(n, np.zeros((2, 2))) for n in above[:3])


ODD = ((), (1,), (1, 1), (1, 7), (7, 1), (3, 1, 2), (1, 1, 1))
EMPTY = ((0,), (0, 5), (5, 0), (3, 0, 2))


def odd(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("name", PAIRS)
def test_odd_shapes_are_as_in_torch(name: str, shape: tuple[int, ...]) -> None:
    make, reference = PAIRS[name]
    p = odd(shape, 0)
    tensor = torch.tensor(p, requires_grad=True)
    theirs, optimizer = reference([tensor]), make()
    optimizer = replace(optimizer, rule=lambda name, array: True)  # torch decays everything
    state = optimizer.init({"w": p})
    for i in range(1, 6):
        optimizer.step({"w": p}, {"w": odd(shape, i)}, state)
        tensor.grad = torch.tensor(odd(shape, i))
        theirs.step()
    np.testing.assert_allclose(p, tensor.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 3)])
def test_muon_of_one_row_is_that_of_torch(shape: tuple[int, ...]) -> None:
    p = odd(shape, 0)
    tensor = torch.tensor(p, requires_grad=True)
    theirs, optimizer = torch.optim.Muon([tensor], 0.1), optim.muon(0.1)
    state = optimizer.init({"fc.weight": p})
    for i in range(1, 6):
        optimizer.step({"fc.weight": p}, {"fc.weight": odd(shape, i)}, state)
        tensor.grad = torch.tensor(odd(shape, i))
        theirs.step()
    np.testing.assert_allclose(p, tensor.detach().numpy(), atol=5 * 0.1 * 2**-6 * math.sqrt(max(shape)))


@pytest.mark.parametrize("make", [*(make for make, _ in PAIRS.values()), optim.lion, optim.muon])
def test_empty_arrays_are_left_alone(make: Callable[[], optim.Optimizer]) -> None:
    params = {f"{i}.weight": np.zeros(shape) for i, shape in enumerate(EMPTY)}
    optimizer = make().after(transforms.ClipNorm(1.0))
    state = optimizer.init(params)
    assert optimizer.step(params, params, state)["grad_norm"] == 0 and state.step == 1
    assert optimizer.step(params, {}, state)["grad_norm"] == 0


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "clip norm": (lambda: transforms.ClipNorm(-1.0), "clipping by norm: limit -1; expected a number above 0"),
    "clip norm 0": (lambda: transforms.ClipNorm(0), "limit 0"),
    "clip value": (lambda: transforms.ClipValue(-1.0), "clipping by value: limit -1"),
    "clip nan": (lambda: transforms.ClipValue(math.nan), "limit nan"),
    "rate": (lambda: optim.adam(-0.1), "learning rate -0.1"),
    "no number": (lambda: optim.adam("0.1"), "learning rate '0.1'"),  # type: ignore[arg-type]
    "nesterov": (lambda: optim.sgd(0.1, nesterov=True), "Nesterov's look-ahead without momentum"),
    "momentum": (lambda: optim.sgd(momentum=1.0), "momentum 1"),
    "betas": (lambda: optim.adamw(betas=(0.9, 1.0)), "beta2 1"),
    "one beta": (lambda: optim.adamw(betas=(0.9,)), r"Adam: betas \(0\.9,\); expected two numbers"),  # type: ignore[arg-type]
    "a beta": (lambda: optim.lion(betas=0.9), "Lion: betas 0.9; expected two numbers"),  # type: ignore[arg-type]
    "rates": (lambda: optim.adamw(rates=0.1), "the optimizer: rates 0.1; expected shares"),
    "state": (lambda: optim.adamw(state=[]), r"state \[\]"),  # type: ignore[arg-type]
    "8bit": (lambda: optim.adamw(betas=(-0.1, 0.9), state="8bit"), "beta1 -0.1"),
    "eps": (lambda: optim.adam(eps=-1e-8), "eps -1e-08"),
    "adagrad": (lambda: optim.adagrad(eps=-1.0), "Adagrad: eps -1"),
    "rmsprop": (lambda: optim.rmsprop(alpha=1.0), "RMSprop: alpha 1"),
    "lion": (lambda: optim.lion(betas=(0.9, 2.0)), "Lion: beta2 2"),
    "adafactor": (lambda: optim.adafactor(clip=0.0), "Adafactor: clip 0"),
    "adafactor eps": (lambda: matrices.Adafactor(eps=-1.0), "eps -1"),
    "adafactor decay": (lambda: matrices.Adafactor(0.5), "beta2 decay 0.5"),
    "muon": (lambda: optim.muon(others_rate=-1.0), "others rate -1"),
    "iterations": (lambda: matrices.Muon(n_iterations=-1), "n iterations -1"),
    "share": (lambda: optim.adamw(rates={"fc.weight": -1.0}), "fc.weight: share of the learning rate -1"),
    "no matrix": (
        lambda: optim.muon(is_main=lambda name, p: True).init({"w": np.zeros(3)}),
        r"Muon: a parameter of shape \(3,\); expected a matrix",
    ),
    "no such name": (
        lambda: optim.adamw(rates={"fc.weigth": 0.1}).init({"fc.weight": np.zeros((2, 2)), "a": np.zeros(2)}),
        "the optimizer's rates: no tensor is called 'fc.weigth'; near names: fc.weight",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_numbers_out_of_range_are_refused(case: str) -> None:
    make, said = BAD[case]
    with pytest.raises(WeighttoolsError, match=said):
        make()


def test_numbers_of_numpy_are_numbers_and_do_not_promote() -> None:
    """The same bits as with Python's numbers, which never promote float32."""
    numbers: dict[str, Any] = {"eps": 2.0**-20, "weight_decay": 0.125}
    lr, betas = 0.0625, (0.5, 0.75)
    plain = optim.adamw(lr, betas=betas, **numbers)
    for kind in (np.float32, np.float64):
        ours = optim.adamw(kind(lr), betas=tuple(map(kind, betas)), **{n: kind(v) for n, v in numbers.items()})
        assert ours == plain and {type(b) for b in ours.chain[0].betas} == {float}
        found, expected = start(np.float32), start(np.float32)
        run(ours, found)
        run(plain, expected)
        assert all(found[n].tobytes() == expected[n].tobytes() for n in found)
    assert optim.adam(np.int64(1)).lr == 1 and optim.sgd(momentum=np.float32(0.5)).chain[0] == transforms.Momentum(0.5)


@pytest.mark.parametrize(
    ("grads", "said"),
    [
        ({"a": np.ones((2, 2)), "b": np.ones(3)}, "b: a gradient"),
        ({"a": np.ones((2, 2)), "bb": np.ones(2)}, "the gradients: no tensor is called 'bb'; near names: b"),
        ({"a": np.ones((2, 2)), "new": np.ones(2)}, "the optimizer's state '.*': no tensor is called 'new'"),
    ],
)
def test_a_step_that_is_refused_changes_nothing(grads: dict[str, np.ndarray], said: str) -> None:
    optimizer, params = optim.adamw(0.1).after(transforms.ClipNorm(1.0)), {"a": np.ones((2, 2)), "b": np.ones(2)}
    state = optimizer.init(params)
    with pytest.raises(WeighttoolsError, match=said):
        optimizer.step(params | {"new": np.ones(2)}, grads, state)
    assert state.step == 0 and not any(a.any() for slot in state.slots.values() for a in slot.values())
    assert all((p == 1).all() for p in params.values())
    falling = optim.sgd(lambda step: 1.0 - step)
    state = falling.init(params)
    falling.step(params, {"b": np.zeros(2)}, state)
    falling.step(params, {"b": np.zeros(2)}, state)
    with pytest.raises(SpecError, match="the schedule: learning rate -1"):
        falling.step(params, {"b": np.zeros(2)}, state)
    assert state.step == 2


def test_what_does_not_fit_is_one_clear_line() -> None:
    optimizer, p = optim.adamw(), {"w": np.ones((2, 3), np.float32)}
    state = optimizer.init(p)
    with pytest.raises(SpecError, match="float64"):
        optimizer.step(p, {"w": np.ones((2, 3))}, state)
    with pytest.raises(SpecError, match="contiguous"):
        optimizer.step({"w": p["w"].T}, {"w": np.ones((3, 2), np.float32)}, state)
    twice = optim.Optimizer((transforms.Momentum(), transforms.Lion()))
    with pytest.raises(SpecError, match="momentum"):
        twice.init(p)


def test_betas_may_be_a_list() -> None:
    p, twin = ({"w": np.ones((2, 3), np.float32)} for _ in range(2))
    for params, betas in ((p, [0.8, 0.9]), (twin, (0.8, 0.9))):
        optimizer = optim.adamw(betas=betas)  # type: ignore[arg-type]
        optimizer.step(params, {"w": np.full((2, 3), 0.5, np.float32)}, optimizer.init(params))
    assert (p["w"] == twin["w"]).all()


def test_accumulated_gradients_are_those_of_one_batch() -> None:
    rng, total = np.random.default_rng(0), averages.Accumulation()
    parts = [(rng.standard_normal((5, 4)), w) for w in (1.0, 3.0, 2.0)]
    for g, w in parts:
        total.add({"w": g}, w)
    assert np.allclose(total.take()["w"], np.average([g for g, _ in parts], axis=0, weights=[w for _, w in parts]))
    assert total.take() == {}


def test_weight_averages_are_those_of_torch() -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    module = torch.nn.Linear(4, 3, bias=False)
    references = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9)), AveragedModel(module)
    ours = averages.ema(0.9), averages.swa()
    rng = np.random.default_rng(0)
    for _ in range(20):
        w = rng.standard_normal((3, 4)).astype(np.float32)
        module.weight.data = torch.tensor(w)
        for reference, average in zip(references, ours, strict=True):
            reference.update_parameters(module)
            average.update({"w": w})
    for reference, average in zip(references, ours, strict=True):
        assert np.allclose(average.arrays["w"], reference.module.weight.detach().numpy(), rtol=1e-5, atol=1e-6)

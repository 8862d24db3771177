"""Initialisers against torch.nn.init and by distribution; draws do not depend on blocks; the signal report."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import weighttools as wt
from tests.strategies import same_bits
from weighttools.errors import SpecError
from weighttools.train import losses, ops
from weighttools.train.autograd.variable import operation
from weighttools.train.signal import signal_report
from weighttools.transforms import initializers as init

SHAPES = [(300, 200), (40, 30, 3, 5), (200, 301)]
RANDOM: dict[str, tuple[init.Initializer, Callable[[torch.Tensor], Any]]] = {
    "xavier_normal": (init.xavier_normal(1.5), lambda w: torch.nn.init.xavier_normal_(w, 1.5)),
    "xavier_uniform": (init.xavier_uniform(1.5), lambda w: torch.nn.init.xavier_uniform_(w, 1.5)),
    "he_normal": (init.he_normal(), lambda w: torch.nn.init.kaiming_normal_(w, nonlinearity="relu")),
    "he_uniform": (init.he_uniform(fan="fan_out"), lambda w: torch.nn.init.kaiming_uniform_(w, 0, "fan_out", "relu")),
    "lecun_normal": (init.lecun_normal(), lambda w: torch.nn.init.kaiming_normal_(w, nonlinearity="linear")),
    "lecun_uniform": (init.lecun_uniform(), lambda w: torch.nn.init.kaiming_uniform_(w, nonlinearity="linear")),
    "normal": (init.normal(0.02), lambda w: torch.nn.init.normal_(w, std=0.02)),
    "uniform": (init.uniform(0.3), lambda w: torch.nn.init.uniform_(w, -0.3, 0.3)),
    "truncated_normal": (
        init.truncated_normal(0.02, 2),
        lambda w: torch.nn.init.trunc_normal_(w, std=0.02, a=-0.04, b=0.04),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", RANDOM)
def test_the_distribution_is_that_of_torch(name: str, shape: tuple[int, ...]) -> None:
    """Two samples, one of torch: their deviations agree within 6 standard errors, and Kolmogorov-Smirnov is content."""
    rule, reference = RANDOM[name]
    torch.manual_seed(5)
    theirs = reference(torch.empty(shape)).numpy().reshape(-1)
    found = rule.draw(shape, seed=5, name="w").reshape(-1)
    assert found.dtype == np.float32
    assert abs(found.std() / theirs.std() - 1) < 6 / math.sqrt(found.size)
    assert abs(found.mean()) < 6 * theirs.std() / math.sqrt(found.size)
    assert stats.ks_2samp(found, theirs).pvalue > 1e-4
    assert abs(stats.pearsonr(found[1:], found[:-1]).statistic) < 6 / math.sqrt(found.size)
    if "normal" not in name or name.startswith("trunc"):
        assert np.abs(found).max() == pytest.approx(np.abs(theirs).max(), rel=1e-2)


@pytest.mark.parametrize("activation", ["linear", "sigmoid", "tanh", "relu", "selu"])
def test_gains_are_those_of_torch(activation: str) -> None:
    assert init.gain(activation) == torch.nn.init.calculate_gain(activation)
    assert init.gain("leaky_relu", 0.2) == torch.nn.init.calculate_gain("leaky_relu", 0.2)


@pytest.mark.parametrize(("activation", "f"), [("gelu", ops.gelu), ("silu", ops.silu)])
def test_a_gain_keeps_the_mean_square(activation: str, f: Any) -> None:
    z = np.linspace(-12, 12, 200_001)
    mean_square = np.trapezoid(f(z) ** 2 * stats.norm.pdf(z), z)
    assert init.gain(activation) ** 2 * mean_square == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(("shape", "layout"), [((40, 70), "torch"), ((70, 4, 10), "torch"), ((3, 5, 7, 20), "keras")])
def test_orthogonal_matrices_are_orthogonal(shape: tuple[int, ...], layout: str) -> None:
    w = init.orthogonal(2.0, layout).draw(shape, seed=1, name="w", dtype=np.float64)
    m = w.reshape(shape[0], -1) if layout == "torch" else w.reshape(-1, shape[-1])
    gram = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
    assert np.allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


def test_orthogonal_signs_are_uniform() -> None:
    """Without the correction of signs, QR by Householder gives diagonals of one sign."""
    traces = [np.trace(init.orthogonal().draw((3, 3), seed=s, name="w")) for s in range(400)]
    assert abs(np.mean(traces)) < 0.25 and np.mean(np.square(traces)) == pytest.approx(1, abs=0.3)


def test_fans_follow_the_layout_of_the_file() -> None:
    w = torch.empty(64, 3, 5, 7)
    fan_in, fan_out = torch.nn.init._calculate_fan_in_and_fan_out(w)
    assert init.fans((64, 3, 5, 7)) == init.fans((5, 7, 3, 64), "keras") == (fan_in, fan_out)
    assert init.he_normal(layout="keras").std((7, 64)) == init.he_normal().std((64, 7))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: init.he_normal(fan="in"), "fan 'in'; expected one of fan_in, fan_out, fan_avg"),
        (lambda: init.he_uniform(fan=""), "fan ''"),
        (lambda: init.lecun_normal("jax"), "layout 'jax'; expected 'torch' or 'keras'"),
        (lambda: init.Initializer("gaussian"), "distribution 'gaussian'; expected one of normal, uniform, "),
        (lambda: init.he_normal().draw((3,), seed=0, name="b"), r"has no fan; .*; use zeros\(\) or normal\(\)"),
        (lambda: init.depth_scaled(init.normal(), 0), "n layers 0; expected a whole number, 1 or more"),
    ],
)
def test_what_an_initialiser_cannot_be_is_one_clear_line(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()


def test_depth_scaling() -> None:
    assert init.depth_scaled(init.normal(0.02), 12).std((1, 1)) == pytest.approx(0.02 / math.sqrt(24))


@given(data=st.data())
def test_any_run_of_elements_can_be_drawn_alone(data: st.DataObject) -> None:
    rule = RANDOM[data.draw(st.sampled_from(sorted(RANDOM)))][0]
    shape, whole = (300, 700), rule.draw((300, 700), seed=3, name="a.b").reshape(-1)
    start = data.draw(st.integers(0, whole.size))
    stop = data.draw(st.integers(start, whole.size))
    assert same_bits(rule.run(shape, start, stop, seed=3, name="a.b", dtype=np.float32), whole[start:stop])


def test_seed_and_name_determine_a_tensor() -> None:
    draws = {(s, n): init.normal(1).draw((4,), seed=s, name=n).tobytes() for s in (0, 1, 10) for n in ("a", "b", "0a")}
    assert len(set(draws.values())) == len(draws)
    assert draws[0, "a"] == init.normal(1).draw((4,), seed=0, name="a").tobytes()


def test_a_file_is_initialised_in_blocks(tmp_path: Any) -> None:
    import ml_dtypes

    arrays = {
        "fc.weight": np.ones((500, 300), ml_dtypes.bfloat16),
        "fc.bias": np.ones(500, np.float32),
        "o.weight": np.ones((20, 30), np.float32),
        "ids": np.arange(5),
    }
    rules = {"fc.weight": init.he_normal(), "fc.bias": init.zeros(), "o.weight": init.orthogonal()}
    lazy = init.initialized(wt.TensorMap.from_arrays(arrays, {"k": "v"}), lambda name, spec: rules.get(name), seed=9)
    lazy = pickle.loads(pickle.dumps(lazy))
    wt.save(str(tmp_path / "m.safetensors"), lazy)
    saved = wt.open(str(tmp_path / "m.safetensors"))
    for name, rule in rules.items():
        expected = rule.draw(arrays[name].shape, seed=9, name=name, dtype=arrays[name].dtype)
        assert same_bits(saved[name].read(), expected), name
        for size in (4_999, 65_537, 1 << 20):
            assert same_bits(np.concatenate(list(lazy[name].blocks(size))), expected.reshape(-1))
    assert same_bits(saved["ids"].read(), arrays["ids"]) and saved.metadata == {"k": "v"}
    with pytest.raises(SpecError, match="two axes"):
        init.initialized(lazy, lambda name, spec: init.he_normal() if name == "fc.bias" else None)
    with pytest.raises(SpecError, match="int64"):
        init.initialized(lazy, lambda name, spec: init.normal() if name == "ids" else None)


def stack(rule: init.Initializer, activation: Any, depth: int = 50, n: int = 256) -> Any:
    p = {f"{i}.weight": rule.draw((n, n), seed=0, name=str(i)) for i in range(depth)}
    x = np.random.default_rng(0).standard_normal((128, n)).astype(np.float32)

    def loss(p: dict[str, Any], x: Any) -> Any:
        for w in p.values():
            x = activation(ops.linear(x, w))
        return losses.mse(x, target=np.ones((128, n), np.float32))

    return signal_report(loss, p, x)


@pytest.mark.parametrize(
    ("rule", "activation", "low", "high", "verdict"),
    [
        (init.he_normal(), ops.relu, 0.95, 1.05, "healthy"),
        (init.xavier_normal(), ops.tanh, 0.9, 1.0, "healthy"),
        (init.xavier_normal(), ops.relu, 0.68, 0.73, "vanishing"),
        (init.normal(0.01), ops.relu, 0.0, 0.2, "vanishing"),
        (init.normal(0.2), ops.relu, 1.8, 2.6, "exploding"),
    ],
)
def test_the_signal_report_tells_dead_from_alive(
    rule: Any, activation: Any, low: float, high: float, verdict: str
) -> None:
    report = stack(rule, activation, depth=20)
    assert [layer.name for layer in report.layers] == [f"{i}.weight" for i in range(20)]
    assert low <= report.mean_gain <= high and report.verdict == verdict
    assert str(report).splitlines()[-1].startswith(verdict)
    assert report.layers[3].is_healthy == (verdict == "healthy")


def test_the_signal_report_measures_what_torch_measures() -> None:
    rng = np.random.default_rng(2)
    p = {"a": rng.standard_normal((6, 5)), "b": rng.standard_normal((4, 6))}
    x = rng.standard_normal((3, 5))
    report = signal_report(lambda p: ops.mean(ops.linear(ops.tanh(ops.linear(x, p["a"])), p["b"])), p)
    h = torch.tensor(x) @ torch.tensor(p["a"]).T
    h.requires_grad_(True)
    y = torch.tanh(h) @ torch.tensor(p["b"]).T
    y.mean().backward()
    first, second = report.layers
    assert first.activation_rms == pytest.approx(h.square().mean().sqrt().item())
    assert first.gradient_rms == pytest.approx(h.grad.square().mean().sqrt().item())  # type: ignore[union-attr]
    assert second.gain == pytest.approx((y.square().mean() / h.square().mean()).sqrt().item())


def test_the_signal_report_knows_a_weight_that_is_transposed_or_reshaped() -> None:
    rng = np.random.default_rng(2)
    p = {"wte": rng.standard_normal((7, 5)), "c_fc": rng.standard_normal((5, 6)), "c_proj": rng.standard_normal((30,))}
    p["c_proj"] = p["c_proj"].reshape(6, 5)

    def loss(p: dict[str, Any]) -> Any:
        x = ops.embedding(p["wte"], ids=np.arange(4))
        h = ops.tanh(ops.linear(x, ops.transpose(p["c_fc"])))
        return ops.mean(ops.linear(ops.matmul(h, p["c_proj"].reshape(6, 5)), p["wte"]))

    assert [layer.name for layer in signal_report(loss, p).layers] == ["c_fc", "c_proj", "wte"]


def test_the_signal_report_says_what_explodes() -> None:
    """Two layers of sizes 1 and 1/2 forwards; the gradients, 4 and 1 by hand, grow backwards."""
    p, x = {"a": np.eye(4), "b": np.eye(4) / 2}, np.ones((1, 4))

    @operation
    def steep(x: Any, /) -> Any:
        return x, lambda dy, need: (8 * dy,)

    report = signal_report(lambda p: ops.sum(ops.linear(steep(ops.linear(x, p["a"])), p["b"])), p)
    assert report.mean_gain == 0.5 and report.mean_gradient_gain == 4 and report.verdict == "vanishing"
    told = str(report).splitlines()[-1]
    assert told == "vanishing: activations vanishing, x 0.5 a layer; gradients exploding, x 4 a layer"
    p["b"] = np.eye(4)
    report = signal_report(lambda p: ops.sum(ops.linear(steep(ops.linear(x, p["a"])), p["b"])), p)
    told = str(report).splitlines()[-1]
    assert told == "exploding: activations healthy, x 1 a layer; gradients exploding, x 8 a layer"


@pytest.mark.parametrize(("loss", "message"), [(lambda p: np.float32(1), "no dependence"), (lambda p: p["a"], "shape")])
def test_the_signal_report_wants_a_scalar_that_depends_on_the_weights(loss: Any, message: str) -> None:
    with pytest.raises(SpecError, match=f"the loss has {message}"):
        signal_report(loss, {"a": np.eye(2)})

"""Values and gradients of operations and losses in float32 and float64, against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from weighttools.train import losses, ops
from weighttools.train.autograd.tape import value_and_grad

R = np.random.default_rng(3)
LABELS = np.array([[0, 4, -100], [2, 2, 1]])
CLASS_WEIGHT = np.array([0.5, 1, 2, 1, 3])
MASK = np.array([[True, True, False, True], [False, True, True, True]])


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2)


def sdpa(q: Any, k: Any, v: Any, **options: Any) -> torch.Tensor:
    return heads(F.scaled_dot_product_attention(heads(q), heads(k), heads(v), enable_gqa=True, **options))


def rotated(x: torch.Tensor) -> torch.Tensor:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    angles = torch.arange(5)[:, None] * 1e4 ** -(torch.arange(0, 4, 2, dtype=torch.float64) / 4)
    table = torch.cat((angles, angles), -1)[None].to(x.dtype)
    return heads(apply_rotary_pos_emb(heads(x), heads(x), table.cos(), table.sin())[0])


def torch_focal(z: torch.Tensor) -> torch.Tensor:
    log_p = F.log_softmax(z.reshape(-1, 5), -1)[torch.arange(6), torch.tensor(LABELS.reshape(-1)).clamp(0)]
    keep = torch.tensor(LABELS.reshape(-1) >= 0)
    return (-((1 - log_p.exp()) ** 2) * log_p)[keep].mean()


def rope_like(x: Any) -> Any:
    cos, sin = ops.rope_tables(np.arange(5), 4, dtype=x.dtype)
    return ops.rope(x, cos=cos, sin=sin)


def t(x: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(x).to(like.dtype)


Case = tuple[Callable[..., Any], Callable[..., torch.Tensor], list[tuple[int, ...]]]
TARGET = R.random((4, 3))
RUNNING = R.standard_normal(3), R.uniform(0.5, 2, 3)
CASES: dict[str, Case] = {
    "linear": (ops.linear, F.linear, [(2, 3, 5), (4, 5), (4,)]),
    "embedding": (
        lambda w: ops.embedding(w, ids=LABELS % 7),
        lambda w: F.embedding(torch.tensor(LABELS % 7), w),
        [(7, 3)],
    ),
    "layer_norm": (ops.layer_norm, lambda x, w, b: F.layer_norm(x, (6,), w, b), [(2, 3, 6), (6,), (6,)]),
    "layer_norm_without_bias": (ops.layer_norm, lambda x, w: F.layer_norm(x, (6,), w), [(2, 3, 6), (6,)]),
    "batch_norm": (
        lambda x, w, b: ops.batch_norm(x, w, b, RUNNING[0].astype(x.dtype), RUNNING[1].astype(x.dtype)),
        lambda x, w, b: F.batch_norm(x, t(RUNNING[0], x), t(RUNNING[1], x), w, b, training=False),
        [(2, 3, 5, 4), (3,), (3,)],
    ),
    "rms_norm": (ops.rms_norm, lambda x, w: F.rms_norm(x, (6,), w, 1e-5), [(2, 3, 6), (6,)]),
    "gelu": (ops.gelu, F.gelu, [(9, 100)]),
    "gelu_tanh": (ops.gelu_tanh, lambda x: F.gelu(x, approximate="tanh"), [(9, 100)]),
    "relu": (ops.relu, F.relu, [(9, 10)]),
    "leaky_relu": (ops.leaky_relu, F.leaky_relu, [(9, 10)]),
    "leaky_relu_steep": (
        lambda x: ops.leaky_relu(x, slope=1.5),
        lambda x: F.leaky_relu(x, negative_slope=1.5),
        [(9, 10)],
    ),
    "elu": (lambda x: ops.elu(x, alpha=1.5), lambda x: F.elu(x, alpha=1.5), [(9, 10)]),
    "power": (lambda x: ops.power(x, exponent=3), lambda x: x**3, [(9, 10)]),
    "absolute": (ops.absolute, torch.abs, [(9, 10)]),
    "silu": (ops.silu, F.silu, [(9, 10)]),
    "sigmoid": (ops.sigmoid, F.sigmoid, [(9, 10)]),
    "tanh": (ops.tanh, F.tanh, [(9, 10)]),
    "swiglu": (ops.swiglu, lambda g, u: F.silu(g) * u, [(9, 10), (9, 10)]),
    "softmax": (ops.softmax, lambda x: F.softmax(x, -1), [(9, 10)]),
    "log_softmax": (ops.log_softmax, lambda x: F.log_softmax(x, -1), [(9, 10)]),
    "normalize": (ops.normalize, lambda x: F.normalize(x, dim=-1), [(9, 10)]),
    "attention": (ops.attention, sdpa, [(2, 5, 4, 3), (2, 4, 2, 3), (2, 4, 2, 3)]),
    "attention_causal": (
        lambda q, k, v: ops.attention(q, k, v, causal=True),
        lambda q, k, v: sdpa(q, k, v, is_causal=True),
        [(2, 5, 4, 3), (2, 5, 2, 3), (2, 5, 2, 3)],
    ),
    "attention_masked": (
        lambda q, k, v: ops.attention(q, k, v, mask=MASK),
        lambda q, k, v: sdpa(q, k, v, attn_mask=torch.tensor(MASK)[:, None, None]),
        [(2, 5, 4, 3), (2, 4, 4, 3), (2, 4, 4, 3)],
    ),
    "attention_packed": (
        lambda q, k, v: ops.attention(q, k, v, lengths=[2, 4], causal=True),
        lambda q, k, v: torch.cat(
            [sdpa(q[s][None], k[s][None], v[s][None], is_causal=True)[0] for s in (slice(2), slice(2, 6))]
        ),
        [(6, 4, 3), (6, 2, 3), (6, 2, 3)],
    ),
    "rope": (rope_like, rotated, [(2, 5, 3, 4)]),
    "conv1d": (
        lambda x, w, b: ops.conv(x, w, b, stride=2, padding=1, groups=2),
        lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1, groups=2),
        [(2, 4, 9), (6, 2, 3), (6,)],
    ),
    "conv2d": (
        lambda x, w, b: ops.conv(x, w, b, stride=(1, 2), padding=(2, 1), dilation=(2, 1)),
        lambda x, w, b: F.conv2d(x, w, b, stride=(1, 2), padding=(2, 1), dilation=(2, 1)),
        [(2, 3, 7, 8), (4, 3, 2, 3), (4,)],
    ),
    "max_pool": (
        lambda x: ops.max_pool(x, size=3, stride=2, padding=1),
        lambda x: F.max_pool2d(x, 3, 2, 1),
        [(2, 3, 7, 8)],
    ),
    "avg_pool": (
        lambda x: ops.avg_pool(x, size=3, stride=2, padding=1),
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        [(2, 3, 7, 8)],
    ),
    "cross_entropy": (
        lambda z: losses.cross_entropy(z, target=LABELS),
        lambda z: F.cross_entropy(z.reshape(-1, 5), torch.tensor(LABELS.reshape(-1))),
        [(2, 3, 5)],
    ),
    "cross_entropy_weighted": (
        lambda z: losses.cross_entropy(z, target=LABELS, weight=CLASS_WEIGHT, label_smoothing=0.1),
        lambda z: F.cross_entropy(
            z.reshape(-1, 5), torch.tensor(LABELS.reshape(-1)), t(CLASS_WEIGHT, z), label_smoothing=0.1
        ),
        [(2, 3, 5)],
    ),
    "cross_entropy_sum": (
        lambda z: losses.cross_entropy(z, target=LABELS, weight=CLASS_WEIGHT, reduction="sum", label_smoothing=0.2),
        lambda z: F.cross_entropy(
            z.reshape(-1, 5), torch.tensor(LABELS.reshape(-1)), t(CLASS_WEIGHT, z), reduction="sum", label_smoothing=0.2
        ),
        [(2, 3, 5)],
    ),
    "focal": (lambda z: losses.focal(z, target=LABELS), torch_focal, [(2, 3, 5)]),
    "mse": (lambda x: losses.mse(x, target=TARGET), lambda x: F.mse_loss(x, t(TARGET, x)), [(4, 3)]),
    "mae": (lambda x: losses.mae(x, target=TARGET), lambda x: F.l1_loss(x, t(TARGET, x)), [(4, 3)]),
    "huber": (
        lambda x: losses.huber(x, target=TARGET, delta=0.7),
        lambda x: F.huber_loss(x, t(TARGET, x), delta=0.7),
        [(4, 3)],
    ),
    "binary_cross_entropy": (
        lambda x: losses.binary_cross_entropy(x, target=TARGET, pos_weight=[1, 2, 3]),
        lambda x: F.binary_cross_entropy_with_logits(x, t(TARGET, x), pos_weight=t([1, 2, 3], x)),
        [(4, 3)],
    ),
    "cosine_embedding": (
        lambda a, b: losses.cosine_embedding(a, b, target=[1, -1, 1, -1], margin=-0.5),
        lambda a, b: F.cosine_embedding_loss(a, b, torch.tensor([1, -1, 1, -1]), margin=-0.5),
        [(4, 6), (4, 6)],
    ),
    "contrastive": (
        lambda a, b: losses.contrastive(a, b, temperature=0.1),
        lambda a, b: F.cross_entropy(F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / 0.1, torch.arange(4)),
        [(4, 6), (4, 6)],
    ),
}


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-12), (np.float32, 4e-6)])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients_are_those_of_torch(name: str, dtype: Any, bound: float) -> None:
    f, reference, shapes = CASES[name]
    rng = np.random.default_rng(11)
    arrays = [(2 * rng.standard_normal(s)).astype(dtype) for s in shapes]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = reference(*tensors)
    weights = rng.standard_normal(expected.shape).astype(dtype)
    (expected * torch.tensor(weights)).sum().backward()
    found = f(*arrays)
    assert found.dtype == dtype
    assert np.abs(found - expected.detach().numpy()).max() <= bound * (1 + np.abs(found).max())

    def scalar(p: dict[str, Any]) -> Any:
        return ops.sum(ops.mul(f(*p.values()), weights))

    _, grads = value_and_grad(scalar, {str(i): a for i, a in enumerate(arrays)})
    for i, tensor in enumerate(tensors):
        assert tensor.grad is not None
        theirs = tensor.grad.numpy()
        assert np.abs(grads[str(i)] - theirs).max() <= bound * (1 + np.abs(theirs).max()), f"array {i}"


@pytest.mark.parametrize(("n_in", "n_out"), [(0, 4), (3, 0), (0, 0)])
def test_layers_without_inputs_or_outputs(n_in: int, n_out: int) -> None:
    p = {"x": R.standard_normal((2, 5, n_in)), "w": R.standard_normal((n_out, n_in)), "b": R.standard_normal(n_out)}
    _, grads = value_and_grad(lambda p: ops.sum(ops.linear(p["x"], p["w"], p["b"])), p)
    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in p.items()}
    expected = F.linear(tensors["x"], tensors["w"], tensors["b"])
    expected.sum().backward()
    assert np.array_equal(ops.linear(*p.values()), expected.detach().numpy())
    assert all(np.array_equal(grads[k], tensors[k].grad.numpy()) for k in p)  # type: ignore[union-attr]


def test_sample_weights_are_repetitions() -> None:
    """A row of weight 2 counts as two rows."""
    z, y = R.standard_normal((3, 4)), np.array([0, 3, 1])
    twice = losses.cross_entropy(z[[0, 1, 1, 2]], target=y[[0, 1, 1, 2]])
    assert np.isclose(losses.cross_entropy(z, target=y, sample_weight=[1, 2, 1]), twice, rtol=1e-14)
    assert np.isclose(
        losses.mse(z, target=z * 0, sample_weight=[1, 2, 1]),
        F.mse_loss(torch.tensor(z[[0, 1, 1, 2]]), torch.zeros(4, 4).double()),
    )


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e30])
def test_extreme_scores_stay_finite(scale: float) -> None:
    q = (scale * R.standard_normal((1, 4, 1, 2))).astype(np.float32)
    one = np.ones((1, 4, 1, 2), np.float32)
    with np.errstate(over="ignore"):
        assert np.isfinite(ops.attention(q, one, one)).all()
    z = np.array([[scale, -scale, 0]], np.float32)
    assert np.isfinite(losses.cross_entropy(z, target=[0])) and np.isfinite(ops.sigmoid(z)).all()
    assert np.isfinite(losses.binary_cross_entropy(z, target=[[1, 0, 1]]))


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    q = R.standard_normal((1, 2, 1, 3)).astype(np.float32)
    mask = np.array([[[False, False], [True, False]]])
    y = ops.attention(q, q, q, mask=mask)
    assert (y[0, 0] == 0).all() and np.allclose(y[0, 1], q[0, 0])


def test_one_row_far_below_the_block_maximum_is_still_a_distribution() -> None:
    q = np.array([100.0, -100.0], np.float32).reshape(1, 2, 1, 1)
    k = np.array([10.0, 10.0, 9.999], np.float32).reshape(1, 3, 1, 1)
    y = ops.attention(q, k, np.ones((1, 3, 1, 1), np.float32), scale=1.0)
    assert np.allclose(y, 1)


def test_nan_is_not_swallowed() -> None:
    x = np.array([[1, np.nan, -1.0]], np.float32)
    for f in (ops.relu, ops.leaky_relu, ops.elu, ops.gelu, ops.gelu_tanh, ops.silu, ops.sigmoid, ops.tanh, ops.softmax):
        assert np.isnan(f(x)).any(), f
    assert np.isnan(ops.attention(*(np.full((1, 2, 1, 2), np.nan, np.float32),) * 3)).all()
    assert np.isnan(ops.max_pool(x[None], size=3)).all()
    assert np.isnan(losses.cross_entropy(x, target=[0])) and np.isnan(losses.mse(x, target=x * 0))

"""Every operation and loss: pullback against differences in float64, over drawn shapes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.thorough import at_most
from tests.train.gradcheck import gradcheck
from weighttools.train import losses, ops
from weighttools.train.autograd.recomputation import recompute

Rng = np.random.Generator
Case = tuple[Callable[..., Any], list[np.ndarray], dict[str, Any]]
CASES: dict[str, Callable[[Rng, Callable[[], int]], Case]] = {}


def case(make: Callable[[Rng, Callable[[], int]], Case]) -> Callable[[Rng, Callable[[], int]], Case]:
    CASES[make.__name__] = make
    return make


def away_from_zero(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    x = rng.standard_normal(shape)
    return x + np.sign(x) * 0.1


def _binary(f: Callable[..., Any], r: Rng, n: Callable[[], int]) -> Case:
    a, b = n(), n()
    other = [(b,), (a, 1), (1, b), (a, b), (2, a, b)][n() % 5]
    return f, [r.standard_normal((a, b)), r.standard_normal(other)], {}


def _smooth(f: Callable[..., Any], r: Rng, n: Callable[[], int]) -> Case:
    return f, [2 * r.standard_normal((n(), n(), n()))], {}


CASES |= {f.__name__: partial(_binary, f) for f in (ops.add, ops.sub, ops.mul)}
CASES |= {
    f.__name__: partial(_smooth, f)
    for f in (ops.exp, ops.tanh, ops.sigmoid, ops.silu, ops.gelu, ops.gelu_tanh, ops.softmax, ops.log_softmax)
}


@case
def relu(r: Rng, n: Callable[[], int]) -> Case:
    return ops.relu, [away_from_zero(r, (n(), n()))], {}


@case
def leaky_relu(r: Rng, n: Callable[[], int]) -> Case:
    return ops.leaky_relu, [away_from_zero(r, (n(), n()))], {"slope": [0.01, 0.0, 1.5][n() % 3]}


@case
def elu(r: Rng, n: Callable[[], int]) -> Case:
    return ops.elu, [away_from_zero(r, (n(), n()))], {"alpha": [1.0, 0.5, 2][n() % 3]}


@case
def absolute(r: Rng, n: Callable[[], int]) -> Case:
    return ops.absolute, [away_from_zero(r, (n(), n()))], {}


@case
def power(r: Rng, n: Callable[[], int]) -> Case:
    return ops.power, [r.uniform(1, 2, (n(), n()))], {"exponent": [2, -1, 0.5, 0, np.float64(3)][n() % 5]}


@case
def div(r: Rng, n: Callable[[], int]) -> Case:
    return ops.div, [r.standard_normal((a := n(), n())), r.uniform(1, 2, (a, 1))], {}


@case
def log(r: Rng, n: Callable[[], int]) -> Case:
    return ops.log, [r.uniform(1, 2, (n(), n()))], {}


@case
def sqrt(r: Rng, n: Callable[[], int]) -> Case:
    return ops.sqrt, [r.uniform(1, 2, (n(), n()))], {}


@case
def matmul(r: Rng, n: Callable[[], int]) -> Case:
    a, b, c, d = n(), n(), n(), n()
    return ops.matmul, [r.standard_normal((d, a, b)), r.standard_normal([(b, c), (d, b, c), (1, b, c)][n() % 3])], {}


@case
def reshape(r: Rng, n: Callable[[], int]) -> Case:
    return ops.reshape, [r.standard_normal((n(), n(), n()))], {"shape": (-1,)}


@case
def transpose(r: Rng, n: Callable[[], int]) -> Case:
    return ops.transpose, [r.standard_normal((n(), n(), n()))], {"axes": [(), (1, 2, 0), (0, -1, 1)][n() % 3]}


@case
def take(r: Rng, n: Callable[[], int]) -> Case:
    x = r.standard_normal((n() + 1, n()))
    return (
        ops.take,
        [x],
        {"key": [np.s_[::2], np.s_[..., None, 0], np.array([0, 1, 0]), (np.array([1, 1]), 0)][n() % 4]},
    )


@case
def concat(r: Rng, n: Callable[[], int]) -> Case:
    a = n()
    return partial(ops.concat, axis=1), [r.standard_normal((a, n())) for _ in range(3)], {}


@case
def sum(r: Rng, n: Callable[[], int]) -> Case:
    return (
        ops.sum,
        [r.standard_normal((n(), n(), n()))],
        {"axis": [None, 0, -1, (0, 2)][n() % 4], "keepdims": n() % 2 == 0},
    )


@case
def mean(r: Rng, n: Callable[[], int]) -> Case:
    return (
        ops.mean,
        [r.standard_normal((n(), n(), n()))],
        {"axis": [None, 0, -1, (0, 2)][n() % 4], "keepdims": n() % 2 == 0},
    )


@case
def linear(r: Rng, n: Callable[[], int]) -> Case:
    i, o = n(), n()
    return ops.linear, [r.standard_normal((n(), n(), i)), r.standard_normal((o, i)), r.standard_normal(o)], {}


@case
def linear_without_bias(r: Rng, n: Callable[[], int]) -> Case:
    i = n()
    return ops.linear, [r.standard_normal((n(), i)), r.standard_normal((n(), i))], {}


@case
def embedding(r: Rng, n: Callable[[], int]) -> Case:
    rows = n()
    return ops.embedding, [r.standard_normal((rows, n()))], {"ids": r.integers(0, rows, (n(), n()))}


@case
def embedding_tied_with_linear(r: Rng, n: Callable[[], int]) -> Case:
    rows, ids = n(), r.integers(0, 1, 3)
    return lambda w: ops.linear(ops.embedding(w, ids=ids), w), [r.standard_normal((rows, n()))], {}


@case
def layer_norm(r: Rng, n: Callable[[], int]) -> Case:
    k = n() + 2
    return ops.layer_norm, [r.standard_normal((n(), n(), k)), r.standard_normal(k), r.standard_normal(k)], {"eps": 1e-2}


@case
def layer_norm_without_bias(r: Rng, n: Callable[[], int]) -> Case:
    k, more = n() + 2, [(), (None,)][n() % 2]
    arrays = [r.standard_normal((n(), k)), r.standard_normal(k)]
    return lambda x, w: ops.layer_norm(x, w, *more, eps=1e-2), arrays, {}


@case
def batch_norm(r: Rng, n: Callable[[], int]) -> Case:
    k, space = n(), [(), (n(),), (n(), 2)][n() % 3]
    mean, variance = r.standard_normal(k), r.uniform(0.5, 2, k)
    arrays = [r.standard_normal((n(), k, *space)), r.standard_normal(k), r.standard_normal(k)]
    return lambda x, w, b: ops.batch_norm(x, w, b, mean, variance), arrays, {}


@case
def rms_norm(r: Rng, n: Callable[[], int]) -> Case:
    k = n()
    return ops.rms_norm, [r.standard_normal((n(), n(), k)), r.standard_normal(k)], {"eps": 1e-2}


@case
def normalize(r: Rng, n: Callable[[], int]) -> Case:
    return ops.normalize, [away_from_zero(r, (n(), n() + 1)) + 0.5], {}


@case
def swiglu(r: Rng, n: Callable[[], int]) -> Case:
    shape = (n(), n())
    return ops.swiglu, [r.standard_normal(shape), r.standard_normal(shape)], {}


def _heads(r: Rng, n: Callable[[], int]) -> tuple[list[np.ndarray], tuple[int, int, int]]:
    b, t, s, k, g, d, e = (n() for _ in range(7))
    return [r.standard_normal((b, t, k * g, d)), r.standard_normal((b, s, k, d)), r.standard_normal((b, s, k, e))], (
        b,
        t,
        s,
    )


@case
def attention(r: Rng, n: Callable[[], int]) -> Case:
    return ops.attention, _heads(r, n)[0], {"causal": n() % 2 == 0}


@case
def attention_masked(r: Rng, n: Callable[[], int]) -> Case:
    arrays, (b, t, s) = _heads(r, n)
    return ops.attention, arrays, {"mask": r.random((b, s) if n() % 2 else (b, t, s)) < 0.6, "scale": 0.7}


@case
def attention_packed(r: Rng, n: Callable[[], int]) -> Case:
    lengths, k, g, d = [n() for _ in range(n())], n(), n(), n()
    total = int(np.sum(lengths))
    arrays = [r.standard_normal((total, h, d)) for h in (k * g, k, k)]
    return ops.attention, arrays, {"lengths": lengths, "causal": n() % 2 == 0}


@case
def rope(r: Rng, n: Callable[[], int]) -> Case:
    t, half = n(), n()
    cos, sin = ops.rope_tables(np.arange(t), 2 * half, dtype=np.float64)
    return ops.rope, [r.standard_normal((n(), t, n(), 2 * half))], {"cos": cos, "sin": sin}


@case
def conv1d(r: Rng, n: Callable[[], int]) -> Case:
    g, k, s = n() % 3 + 1, n() % 3 + 1, n() % 3 + 1
    cin, cout = g * (n() % 2 + 1), g * (n() % 2 + 1)
    arrays = [r.standard_normal((n(), cin, n() + 4)), r.standard_normal((cout, cin // g, k)), r.standard_normal(cout)]
    return ops.conv, arrays, {"groups": g, "stride": s, "padding": n() % 2, "dilation": n() % 2 + 1}


@case
def conv2d(r: Rng, n: Callable[[], int]) -> Case:
    k, cin = (n() % 3 + 1, n() % 3 + 1), n() % 3 + 1
    arrays = [r.standard_normal((n() % 3 + 1, cin, 5, 6)), r.standard_normal((n() % 3 + 1, cin, *k))]
    return ops.conv, arrays, {"stride": (1, 2), "padding": (n() % 3, 1), "dilation": (2, 1)}


@case
def max_pool(r: Rng, n: Callable[[], int]) -> Case:
    shape = (n() % 2 + 1, 2, 5, 6)
    x = r.permutation(np.prod(shape)).reshape(shape) / 10.0
    return ops.max_pool, [x], {"size": 2, "stride": n() % 2 + 1, "padding": n() % 2}


@case
def avg_pool(r: Rng, n: Callable[[], int]) -> Case:
    return ops.avg_pool, [r.standard_normal((n(), 2, 7))], {"size": 3, "stride": n() % 2 + 1, "padding": n() % 2}


@case
def dropout(r: Rng, n: Callable[[], int]) -> Case:
    return partial(ops.dropout, seed=(1, 2)), [r.standard_normal((n(), n(), n()))], {"rate": 0.3}


@case
def recomputed(r: Rng, n: Callable[[], int]) -> Case:
    def layer(x: Any, p: Any) -> Any:
        return ops.gelu(ops.linear(x, p["w"])) + ops.dropout(x, rate=0.5, seed=3)

    k = n()
    return lambda x, w: recompute(layer, recompute(layer, x, {"w": w}), {"w": w}), [
        r.standard_normal((n(), k)), r.standard_normal((k, k))], {}  # fmt: skip


def _classes(r: Rng, n: Callable[[], int]) -> tuple[list[np.ndarray], dict[str, Any]]:
    rows, classes = n() + 1, n() + 1
    target = r.integers(0, classes, rows)
    target[1:][r.random(rows - 1) < 0.3] = -100
    options = {"target": target, "weight": r.uniform(0.5, 2, classes), "sample_weight": r.uniform(0.5, 2, rows)}
    return [2 * r.standard_normal((rows, classes))], options


@case
def cross_entropy(r: Rng, n: Callable[[], int]) -> Case:
    arrays, options = _classes(r, n)
    return losses.cross_entropy, arrays, {**options, "label_smoothing": [0.0, 0.1][n() % 2]}


@case
def focal(r: Rng, n: Callable[[], int]) -> Case:
    arrays, options = _classes(r, n)
    return losses.focal, arrays, {**options, "gamma": [0.0, 1.0, 2.0, 0.5][n() % 4]}


def _elementwise(f: Callable[..., Any], r: Rng, n: Callable[[], int]) -> Case:
    shape, binary = (n(), n()), f.__name__.startswith("binary")
    target = r.integers(0, 2, shape).astype(float) if binary else r.standard_normal(shape)
    distance = r.uniform(0.05, 0.9, shape) + (n() % 2)  # away from the kinks at 0 and, for Huber, 1
    x = r.standard_normal(shape) if binary else target + distance * r.choice([-1, 1], shape)
    extra = {
        "binary_cross_entropy": {"pos_weight": r.uniform(1, 2, shape[1])},
        "binary_focal": {"alpha": 0.25, "gamma": 1.5},
    }.get(f.__name__, {})
    return f, [x], {"target": target, "sample_weight": r.uniform(0.5, 2, shape[0]), **extra}


CASES |= {
    f.__name__: partial(_elementwise, f)
    for f in (losses.mse, losses.mae, losses.huber, losses.binary_cross_entropy, losses.binary_focal)
}


@case
def cosine_embedding(r: Rng, n: Callable[[], int]) -> Case:
    rows, k = n(), n() + 3
    pairs = [r.standard_normal((rows, k)) for _ in "ab"]
    target = np.where(
        np.abs((c := np.asarray(losses.cosine_similarity(*pairs))) + 0.2) < 0.02, 1, r.choice([-1, 1], rows)
    )
    assert c.shape == (rows,)
    return losses.cosine_embedding, pairs, {"target": target, "margin": -0.2}


@case
def contrastive(r: Rng, n: Callable[[], int]) -> Case:
    rows, k = n(), n() + 2
    return (
        losses.contrastive,
        [r.standard_normal((rows, k)) for _ in "ab"],
        {"temperature": 0.5, "symmetric": n() % 2 == 0},
    )


@pytest.mark.parametrize("name", CASES)
@at_most(100)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_pullback_agrees_with_differences(name: str, seed: int, data: st.DataObject) -> None:
    f, arrays, options = CASES[name](np.random.default_rng(seed), lambda: data.draw(st.integers(1, 5)))
    smooth = name not in ("relu", "leaky_relu", "elu", "absolute", "max_pool", "mae", "huber", "cosine_embedding")
    gradcheck(f, arrays, seed=seed, h=1e-3 if smooth else 1e-4, **options)


@pytest.mark.parametrize("name", CASES)
def test_float32_stays_float32(name: str) -> None:
    rng = np.random.default_rng(0)
    f, arrays, options = CASES[name](rng, lambda: int(rng.integers(1, 6)))
    options = {k: np.asarray(v, np.float32) if k in ("cos", "sin") else v for k, v in options.items()}
    small = [a.astype(np.float32) for a in arrays]
    from weighttools.train.autograd.tape import value_and_grad

    def scalar(p: dict[str, Any]) -> Any:
        return ops.sum(f(*(p[str(i)] for i in range(len(small))), **options))

    value, grads = value_and_grad(scalar, {str(i): a for i, a in enumerate(small)})
    assert value.dtype == np.float32
    assert {g.dtype for g in grads.values()} == {np.dtype(np.float32)}
    plain = f(*small, **options)
    assert plain.dtype == np.float32
    assert np.allclose(plain, f(*arrays, **options), rtol=1e-4, atol=1e-5)


def test_attention_does_no_work_for_frozen_arrays() -> None:
    q, k, v, dy = np.random.default_rng(0).standard_normal((4, 2, 5, 4, 3))
    _, pullback = ops.attention.with_pullback(q, k, v, causal=True, keep=True)
    whole = pullback(dy, [True] * 3)
    for need in itertools.product((False, True), repeat=3):
        for found, expected, wanted in zip(pullback(dy, need), whole, need, strict=True):
            assert (found is None) != wanted and (not wanted or np.array_equal(found, expected))

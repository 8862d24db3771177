"""What the tape and the pullbacks keep alive, what they share, and what goes wrong in one line."""

from __future__ import annotations

import gc
import tracemalloc
import types
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from weighttools.errors import SpecError
from weighttools.train import losses, ops
from weighttools.train.checkpointing import checkpoint
from weighttools.train.memory import keep_pages
from weighttools.train.parallel import spread
from weighttools.train.tape import Tape, Variable, operation, value_and_grad

R = np.random.default_rng(0)


def f32(*shape: int) -> np.ndarray:
    return R.standard_normal(shape).astype(np.float32)


def arrays_held(root: Any) -> set[int]:
    """The ids of all arrays that a closure refers to, and of those they are views of."""
    found: set[int] = set()
    todo, seen = [root], set()
    while todo:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            found.add(id(thing))
            todo.append(thing.base)
        elif isinstance(thing, types.FunctionType):
            todo += [c.cell_contents for c in thing.__closure__ or ()]
        elif isinstance(thing, (list, tuple)):
            todo += thing
    return found


Q = [f32(2, 3, 4, 5) for _ in range(3)]
KEPT: list[tuple[str, Any, list[Any], dict[str, Any], set[int], bool]] = [
    ("add", ops.add, [f32(4, 5), f32(5)], {}, set(), False),
    ("reshape", ops.reshape, [f32(4, 5)], {"shape": (20,)}, set(), False),
    ("sum", ops.sum, [f32(4, 5)], {}, set(), False),
    ("linear", ops.linear, [f32(4, 5), f32(3, 5), f32(3)], {}, {0, 1, 2}, False),
    ("embedding", ops.embedding, [f32(4, 5)], {"ids": np.arange(3)}, set(), False),
    ("relu", ops.relu, [f32(4, 5)], {}, set(), True),
    ("tanh", ops.tanh, [f32(4, 5)], {}, set(), True),
    ("gelu", ops.gelu, [f32(4, 5)], {"keep": True}, set(), False),
    ("swiglu", ops.swiglu, [f32(4, 5), f32(4, 5)], {"keep": True}, {0, 1}, False),
    ("softmax", ops.softmax, [f32(4, 5)], {}, set(), True),
    ("layer_norm", ops.layer_norm, [f32(4, 5), f32(5), f32(5)], {"keep": True}, {1}, False),
    ("rms_norm", ops.rms_norm, [f32(4, 5), f32(5)], {"keep": True}, {1}, False),
    ("attention", ops.attention, Q, {"keep": True}, {0, 1, 2}, True),
    ("rope", ops.rope, [f32(1, 3, 2, 4)], {"cos": f32(3, 2), "sin": f32(3, 2)}, set(), False),
    ("dropout", ops.dropout, [f32(4, 5)], {"rate": 0.5, "seed": 1}, set(), False),
    ("max_pool", ops.max_pool, [f32(1, 2, 4)], {"size": 2}, set(), False),
    ("cross_entropy", losses.cross_entropy, [f32(4, 5)], {"target": np.zeros(4, int), "keep": True}, set(), False),
    ("mse", losses.mse, [f32(4, 5)], {"target": f32(4, 5)}, set(), False),
]


@pytest.mark.parametrize(("name", "f", "args", "options", "inputs", "output"), KEPT, ids=[k[0] for k in KEPT])
def test_pullbacks_keep_only_what_they_need(
    name: str, f: Any, args: Any, options: Any, inputs: Any, output: bool
) -> None:
    y, pullback = f.with_pullback(*args, **options)
    held = arrays_held(pullback)
    assert {i for i, a in enumerate(args) if id(a) in held} <= inputs
    assert output or id(y) not in held


def test_an_activation_that_no_pullback_saved_dies_at_once() -> None:
    tape = Tape()
    x = Variable(f32(10, 10), tape)
    y = x + 1.0
    z = ops.gelu(y)
    alive = weakref.ref(y.value)
    del y
    gc.collect()
    assert alive() is None and z.shape == (10, 10)


def peak(work: Any) -> int:
    tracemalloc.start()
    work()
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return size


def deep(p: dict[str, Any], x: Any, wrap: Any) -> Any:
    for _ in range(8):
        x = wrap(lambda x, w: ops.gelu(ops.gelu(ops.gelu(ops.linear(x, w)))), x, p["w"])
    return ops.mean(x)


def test_memory_of_depth_and_of_checkpoints() -> None:
    """Each layer keeps its input and 3 derivatives; with checkpoints its input only, and one layer's 4 at a time."""
    p, x = {"w": f32(16, 16)}, f32(4096, 16)
    plain = peak(lambda: value_and_grad(deep, p, x, lambda f, *a: f(*a)))
    saved = peak(lambda: value_and_grad(deep, p, x, checkpoint))
    forward = peak(lambda: deep(p, x, lambda f, *a: f(*a)))
    assert plain < (8 * 4 + 6) * x.nbytes
    assert saved < (8 + 4 + 6) * x.nbytes
    assert forward < 5 * x.nbytes


def test_checkpoints_change_nothing_to_the_bit() -> None:
    p, x = {"w": f32(16, 16)}, f32(32, 16)
    value, grads = value_and_grad(deep, p, x, lambda f, *a: f(*a))
    again, same = value_and_grad(deep, p, x, checkpoint)
    assert value == again and grads["w"].tobytes() == same["w"].tobytes()


def test_frozen_inputs_cost_no_gradient_work() -> None:
    ran = []

    @operation
    def spy(x: Any, w: Any, /) -> Any:
        return x * w, lambda dy, need: (
            ran.append(list(need)),
            (dy * w if need[0] else None, dy * x if need[1] else None),
        )[1]

    p = {"a": f32(3), "b": f32(3)}
    _, grads = value_and_grad(lambda p: ops.sum(spy(spy(p["a"], p["a"]), p["b"])), p, train=["b"])
    assert ran == [[False, True]] and list(grads) == ["b"]


def test_gradients_that_share_memory_are_not_added_to_in_place() -> None:
    @operation
    def both(a: Any, b: Any, /) -> Any:
        def pullback(dy: Any, need: Any) -> Any:
            g = 2 * dy
            return g, g

        return 2 * (a + b), pullback

    p = {"a": np.ones(3), "b": np.ones(3)}
    _, grads = value_and_grad(lambda p: ops.sum(both(p["a"], p["b"]) + 3 * p["a"] + p["a"]), p)
    assert grads["a"].tolist() == [6, 6, 6] and grads["b"].tolist() == [2, 2, 2]
    _, grads = value_and_grad(lambda p: ops.sum(p["a"] + p["b"] + p["a"] * 2 - p["b"] / 2 + -p["a"]), p)
    assert grads["a"].tolist() == [2, 2, 2] and grads["b"].tolist() == [0.5] * 3


def test_variables_are_used_like_arrays() -> None:
    p = {"a": np.array([[1.0, 2.0], [3.0, 4.0]])}
    rows = np.eye(2)

    def f(p: dict[str, Any]) -> Any:
        a = p["a"]
        assert len(a) == 2 and a.ndim == 2 and a.dtype == np.float64
        y = (rows @ a @ rows - 1.0) * a + (1.0 - a) + 2.0 / a + np.float64(2) * a
        return (y.transpose(1, 0)[0].reshape(2, 1).sum(axis=0) + y.mean(axis=0, keepdims=True)).sum()

    value, grads = value_and_grad(f, p)
    from tests.train.gradcheck import slope

    found = slope(lambda t: float(f({"a": p["a"] + t})), 1e-3)
    assert np.isclose(grads["a"].sum(), found, rtol=1e-9) and value == f(p)


def bad() -> Iterator[tuple[str, Any]]:
    z = f32(2, 3)
    yield "do not fit", lambda: ops.linear(z, f32(4, 5))
    yield "do not fit", lambda: ops.add(z, f32(4))
    yield "rows 7 to 7 are asked for, but the table has 4 rows", lambda: ops.embedding(f32(4, 2), ids=np.array([7]))
    yield "table has 4 rows", lambda: ops.embedding(f32(4, 2), ids=np.array([-1]))
    yield "label 3 is out of range", lambda: losses.cross_entropy(z, target=[0, 3])
    yield "labels of float", lambda: losses.cross_entropy(z, target=[0.0, 1.0])
    yield "1 labels", lambda: losses.cross_entropy(z, target=[1])
    yield "ignored or has weight 0", lambda: losses.cross_entropy(z, target=[-100, -100])
    yield "empty batch", lambda: losses.cross_entropy(f32(0, 3), target=np.zeros(0, int))
    yield "empty batch", lambda: losses.mse(f32(0, 3), target=f32(0, 3))
    yield "targets of shape", lambda: losses.mse(z, target=f32(2, 1))
    yield "sample weights", lambda: losses.mse(z, target=z, sample_weight=[1, np.nan])
    yield "class weights of shape", lambda: losses.focal(z, target=[0, 1], weight=[1, 2])
    yield "do not divide", lambda: ops.attention(f32(1, 2, 3, 4), f32(1, 2, 2, 4), f32(1, 2, 2, 4))
    yield "lengths sum to 3", lambda: ops.attention(f32(2, 3, 4), f32(2, 3, 4), f32(2, 3, 4), lengths=[1, 2])
    yield "a window", lambda: ops.max_pool(f32(1, 1, 2), size=3)
    yield "dropout rate", lambda: ops.dropout(z, rate=1.0, seed=0)
    yield "the loss has shape", lambda: value_and_grad(lambda p: p["z"] * 2, {"z": z})
    yield "no dependence", lambda: value_and_grad(lambda p: np.float32(1), {"z": z})
    yield "two tapes", lambda: Variable(z, Tape()) + Variable(z, Tape())
    yield "not among its arguments", lambda: value_and_grad(lambda p: checkpoint(lambda: ops.sum(p["z"])), {"z": z})


@pytest.mark.parametrize(("message", "call"), list(bad()))
def test_what_does_not_fit_is_one_clear_line(message: str, call: Any) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_error_in_a_worker_is_raised_here() -> None:
    def kernel(i: int) -> None:
        if i == 3:
            raise MemoryError("of the worker")

    with pytest.raises(MemoryError, match="of the worker"):
        spread(kernel, [(i,) for i in range(8)])
    done: list[int] = []
    spread(lambda i: spread(done.append, [(i,)] * 3), [(i,) for i in range(4)])
    assert sorted(done) == sorted([0, 1, 2, 3] * 3)


def test_pages_are_kept_only_while_asked() -> None:
    with keep_pages() as outer, keep_pages() as inner:
        assert outer == inner
        assert np.ones(1 << 22).sum() == 1 << 22

"""What the tape and the pullbacks keep alive, what they share, and what goes wrong in one line."""

from __future__ import annotations

import gc
import inspect
import tracemalloc
import types
import weakref
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from weighttools import train
from weighttools.errors import SpecError
from weighttools.train import losses, ops
from weighttools.train.adapters.low_rank import LowRank
from weighttools.train.autograd.recomputation import recompute
from weighttools.train.autograd.tape import Tape, value_and_grad
from weighttools.train.autograd.variable import Variable, operation
from weighttools.train.memory import keep_pages
from weighttools.train.parallel import spread

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


def test_memory_of_depth_and_of_recomputation() -> None:
    """Each layer keeps its input and 3 derivatives; recomputed its input only, and one layer's 4 at a time."""
    p, x = {"w": f32(16, 16)}, f32(4096, 16)
    plain = peak(lambda: value_and_grad(deep, p, x, lambda f, *a: f(*a)))
    saved = peak(lambda: value_and_grad(deep, p, x, recompute))
    forward = peak(lambda: deep(p, x, lambda f, *a: f(*a)))
    assert plain < (8 * 4 + 6) * x.nbytes
    assert saved < (8 + 4 + 6) * x.nbytes
    assert forward < 5 * x.nbytes


def test_recomputation_changes_nothing_to_the_bit() -> None:
    p, x = {"w": f32(16, 16)}, f32(32, 16)
    value, grads = value_and_grad(deep, p, x, lambda f, *a: f(*a))
    again, same = value_and_grad(deep, p, x, recompute)
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


def test_variables_unpack_and_take_what_arrays_take() -> None:
    p = {"x": np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])}

    def f(p: dict[str, Any]) -> Any:
        x = p["x"]
        a, b = x
        rows = [row.sum() for row in x]
        y = (a * b).sum() + rows[0] * rows[1] + (abs(x) ** 3).sum() + (x.T[0] ** -1).sum()
        z = x.reshape((3, 2)).transpose((1, 0)) * x
        return y + z.sum() + x.reshape([6]).sum() + x.size

    value, grads = value_and_grad(f, p)
    from tests.train.gradcheck import slope

    for at in np.ndindex(2, 3):
        step = np.zeros((2, 3))
        step[at] = 1
        assert grads["x"][at] == pytest.approx(slope(lambda t, d=step: float(f({"x": p["x"] + t * d})), 1e-3), rel=1e-8)
    assert value == f(p)
    assert repr(Variable(f32(2, 3), Tape())) == "Variable(shape=(2, 3), dtype=float32)"


def test_a_power_of_zero_has_no_slope_and_stays_float32() -> None:
    p = {"x": np.array([0, -1, 2], np.float32)}
    value, grads = value_and_grad(lambda p: (p["x"] ** 0 + p["x"] ** np.float64(2)).sum(), p)
    assert grads["x"].tolist() == [0, -2, 4] and value == 8 and value.dtype == grads["x"].dtype == np.float32


TAPE = Tape()
VARIABLE = Variable(f32(3), TAPE)


@pytest.mark.parametrize(
    "use",
    [
        lambda v: np.asarray(v),
        lambda v: np.concatenate([v, v]),
        lambda v: losses.mse(f32(3), target=v),
        lambda v: losses.cosine_embedding(f32(3, 2), f32(3, 2), target=v),
        lambda v: losses.cross_entropy(f32(2, 3), target=[0, 1], weight=v),
        lambda v: ops.rope(f32(3, 1, 2), cos=v, sin=v),
        lambda v: v**v,
    ],
)
def test_a_variable_cannot_become_an_array(use: Any) -> None:
    with pytest.raises(SpecError, match="cannot become an array"):
        use(VARIABLE)


NARROW = [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]


@pytest.mark.parametrize("dtype", NARROW)
def test_floats_below_32_bits_are_refused(dtype: Any) -> None:
    x = np.ones((1, 3)).astype(dtype)
    wide, o = f32(1, 3), np.ones((1, 2, 1, 1)).astype(dtype)
    message = (
        rf"an array of {np.dtype(dtype).name}; expected float32 or float64; read or cast as float32: array\.astype"
    )
    for call in (
        lambda: ops.layer_norm(x, wide[0], wide[0]), lambda: ops.linear(wide, x), lambda: ops.sigmoid(x),
        lambda: losses.cross_entropy(x, target=[0]), lambda: ops.attention(o, o, o, mask=np.zeros((1, 2), bool)),
        lambda: value_and_grad(lambda p: p["x"].sum(), {"x": x}),
        lambda: value_and_grad(lambda p: p["x"].sum(), {"x": x}, train=["x"]),
    ):  # fmt: skip
        with pytest.raises(SpecError, match=message):
            call()


def test_integers_and_booleans_are_numbers_but_no_parameters() -> None:
    x, mask, ids = f32(2, 3), np.array([True, False, True]), np.array([1, 0], np.int8)
    assert (ops.mul(x, mask) == x * mask).all() and (ops.add(ids, 1) == [2, 1]).all()
    value, _ = value_and_grad(
        lambda p: ops.sum(ops.mul(ops.embedding(p["x"], ids=p["ids"]), mask)), {"x": x, "ids": ids}
    )
    assert value == (x[::-1] * mask).sum()
    for name in ("gelu", "relu", "tanh", "sigmoid", "softmax", "log_softmax"):
        with pytest.raises(SpecError, match=f"{name}: an array of int8; expected float32 or float64"):
            getattr(ops, name)(ids)
    with pytest.raises(SpecError, match="ids: an array of int8"):
        value_and_grad(lambda p: p["ids"].sum(), {"ids": ids}, train=["ids"])


def test_gradients_have_their_arrays_dtype_though_the_data_are_wider() -> None:
    """The array's gradients come in both widths, and add up in the wider one until the end."""
    p, x = {"w": f32(3, 4), "b": f32(3)}, R.standard_normal((5, 4))

    def loss(p: dict[str, Any]) -> Any:
        return ops.sum(ops.linear(x, p["w"], p["b"])) + ops.sum(p["w"] * p["w"]) + ops.sum(ops.linear(x, p["w"]))

    _, grads = value_and_grad(loss, p)
    assert {g.dtype for g in grads.values()} == {np.dtype(np.float32)}
    exact = 2 * np.tile(x.sum(0), (3, 1)) + 2 * p["w"].astype(np.float64)
    assert np.abs(grads["w"] - exact).max() <= np.abs(exact).max() * 2.0**-23
    assert grads["b"].tolist() == [5, 5, 5]


def wrong(name: str, result: Any) -> Any:
    def f(x: Any, /) -> Any:
        return 2 * x, lambda dy, need: result(dy)

    f.__name__ = name
    return operation(f)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            lambda dy: dy * 2,
            "mine: the pullback gives a ndarray for 1 arrays; expected one gradient for each array, as a",
        ),
        (lambda dy: (dy, dy), "mine: the pullback gives 2 gradients for 1 arrays"),
        (lambda dy: (), "mine: the pullback gives 0 gradients for 1 arrays"),
        (lambda dy: (dy.sum(),), r"mine: the pullback gives a gradient of shape \(\) for an array of \(4,\)"),
        (
            lambda dy: (np.stack([dy, dy]),),
            r"mine: the pullback gives a gradient of shape \(2, 4\) for an array of \(4,\)",
        ),
    ],
)
def test_a_gradient_that_does_not_fit_names_its_operation(result: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        value_and_grad(lambda p: ops.sum(wrong("mine", result)(p["x"])), {"x": f32(4)})


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: Variable(x, TAPE)])
@pytest.mark.parametrize(
    "call",
    [
        lambda b: ops.linear(f32(2, 3), f32(5, 3), b),
        lambda b: ops.linear(f32(2, 3), LowRank(f32(5, 3), f32(1, 3), f32(5, 1), 1.0), b),
        lambda b: ops.layer_norm(f32(2, 3), f32(3), b),
        lambda b: ops.layer_norm(f32(2, 3), b, f32(3)),
        lambda b: ops.rms_norm(f32(2, 3), b),
        lambda b: ops.batch_norm(f32(2, 3), f32(3), f32(3), f32(3), b),
        lambda b: ops.conv(f32(1, 2, 5), f32(4, 2, 3), b),
    ],
)
def test_biases_and_weights_that_would_broadcast_are_refused(call: Any, wrap: Any) -> None:
    for shape in ((1,), (), (2, 1)):
        with pytest.raises(SpecError, match="wanted"):
            call(wrap(f32(*shape) if shape else np.float32(1)))


def test_a_recomputed_function_need_not_use_its_variable() -> None:
    p = {"a": f32(3), "b": f32(3)}
    _, grads = value_and_grad(lambda p: ops.sum(recompute(lambda a: f32(3), p["a"]) * p["b"]), p)
    assert list(grads) == ["b"]


@pytest.mark.parametrize("f", [ops.gelu, ops.layer_norm, ops.attention, losses.cross_entropy, losses.huber])
def test_signatures_are_what_callers_see(f: Any) -> None:
    told = inspect.signature(f)
    assert "keep" not in told.parameters and told.return_annotation == "Array | Variable"
    assert next(iter(told.parameters.values())).annotation == "Array | Variable"
    assert not any(p.kind is p.VAR_KEYWORD for p in told.parameters.values())


def test_the_package_names_all_that_it_gives() -> None:
    assert train.__doc__
    public = {n for n in dir(train) if not isinstance(getattr(train, n), types.ModuleType)}
    assert {n for n in public if f"`{n}`" not in train.__doc__} == set()


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
    yield "conv: .*positive size", lambda: ops.conv(f32(1, 1, 4), f32(1, 1, 2), stride=0)
    yield "2.5 where 1 whole numbers", lambda: ops.conv(f32(1, 1, 4), f32(1, 1, 2), stride=2.5)
    yield "groups", lambda: ops.conv(f32(1, 1, 4), f32(1, 1, 2), groups=0)
    yield "max_pool: an array of int64", lambda: ops.max_pool(np.ones((1, 1, 4), np.int64), size=2)
    yield "max_pool: .*space", lambda: ops.max_pool(f32(1, 4), size=2)
    yield r"embedding: .*a table \(n_rows, n\)", lambda: ops.embedding(f32(2, 3, 4), ids=np.array([0]))
    yield "ids of bool", lambda: ops.embedding(f32(2, 3), ids=np.array([True, False]))
    yield "linear: a list is no array; expected arrays", lambda: ops.linear([[1.0, 2.0]], f32(3, 2))
    yield "gelu: a float is no array", lambda: ops.gelu(3.0)
    yield "concat: a list is no array", lambda: ops.concat([z, z])
    yield "factors", lambda: ops.linear(z, LowRank(f32(5, 3), f32(1, 3), f32(1, 1), 1.0))
    yield "exponent 'two'", lambda: ops.power(z, exponent="two")
    yield "slope -1; expected a number of 0 or more", lambda: ops.leaky_relu(z, slope=-1.0)
    yield "alpha -1", lambda: ops.elu(z, alpha=-1.0)
    yield "label smoothing 1.5; expected", lambda: losses.cross_entropy(z, target=[0, 1], label_smoothing=1.5)
    yield "label smoothing -0.5", lambda: losses.cross_entropy(z, target=[0, 1], label_smoothing=-0.5)
    yield "class weights", lambda: losses.cross_entropy(z, target=[0, 1], weight=[1, -1, 1])
    yield "delta -1.0; expected more than 0", lambda: losses.huber(z, target=z, delta=-1.0)
    yield (
        "binary_cross_entropy: targets from 0 to 2; expected 0 to 1",
        lambda: losses.binary_cross_entropy(z[:, :2], target=[[0, 1], [2, 0]]),
    )
    yield "targets from nan", lambda: losses.binary_cross_entropy(z[0], target=[0, np.nan, 0])
    yield "pos_weight from -1 to 2", lambda: losses.binary_cross_entropy(z, target=0 * z, pos_weight=[2, -1, 1])
    yield "do not fit", lambda: losses.binary_cross_entropy(z, target=0 * z, pos_weight=[2, 1])
    yield "neither 0 nor 1", lambda: losses.binary_focal(z, target=0 * z + 0.5)
    yield "gamma -1", lambda: losses.binary_focal(z, target=0 * z, gamma=-1.0)
    yield "alpha from 2 to 2", lambda: losses.binary_focal(z, target=0 * z, alpha=2.0)
    yield "gamma -1", lambda: losses.focal(z, target=[0, 1], gamma=-1.0)
    yield "temperature 0", lambda: losses.contrastive(z, z, temperature=0.0)
    yield "mse: an array of int64", lambda: losses.mse(np.arange(3), target=[0, 1, 2])
    yield "the loss has shape", lambda: value_and_grad(lambda p: p["z"] * 2, {"z": z})
    yield "no dependence", lambda: value_and_grad(lambda p: np.float32(1), {"z": z})
    yield "two tapes", lambda: Variable(z, Tape()) + Variable(z, Tape())
    yield "not among its arguments", lambda: value_and_grad(lambda p: recompute(lambda: ops.sum(p["z"])), {"z": z})


@pytest.mark.parametrize(("message", "call"), list(bad()))
def test_what_does_not_fit_is_one_clear_line(message: str, call: Any) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    x, w = f32(1, 1, 6), f32(1, 1, 2)
    assert (ops.conv(x, w, stride=np.int64(2), groups=np.int64(1)) == ops.conv(x, w, stride=2)).all()
    assert losses.cross_entropy(x[0], target=[0], label_smoothing=np.float32(0.1)).dtype == np.float32


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

"""Whose threads work: ours or OpenBLAS's; and that this changes neither results nor what the process had set."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from weighttools.core import blas
from weighttools.train import ops, parallel, value_and_grad
from weighttools.train.ops.dense import column_sums
from weighttools.train.ops.product import product

R = np.random.default_rng(0)


def openblas_threads() -> list[int]:
    """As another package sees them; empty where NumPy uses another BLAS."""
    found = ThreadpoolController().info()
    return [i["num_threads"] for i in found if i["internal_api"] == "openblas" and "numpy" in i["filepath"]]


@pytest.fixture(autouse=True)
def openblas_has_two() -> Iterator[None]:
    """More than one, so that giving them back shows."""
    with threadpool_limits(2, user_api="blas"):
        yield


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crew of two, whatever the machine has."""
    monkeypatch.setenv("WEIGHTTOOLS_THREADS", "2")
    parallel._crew.cache_clear()
    yield
    monkeypatch.undo()
    parallel._crew.cache_clear()


def test_threads_compute_in_the_callers_context(two_threads: None) -> None:
    seen: dict[int, str] = {}
    barrier = threading.Barrier(2)

    def kernel(i: int) -> None:
        barrier.wait(10)
        seen[threading.get_ident()] = np.geterr()["over"]

    for mode in ("ignore", "raise"):
        seen.clear()
        with np.errstate(over=mode):
            parallel.spread(kernel, [(0,), (1,)])
        assert list(seen.values()) == [mode, mode]


def test_openblas_gets_its_threads_back_from_whoever_leaves_last() -> None:
    before = openblas_threads()
    with blas.one_thread() as outer, blas.one_thread() as inner:
        assert outer == inner == bool(before) == blas.is_single()
        assert set(openblas_threads()) <= {1}
    assert openblas_threads() == before and not blas.is_single()
    with pytest.raises(KeyError), blas.one_thread():
        raise KeyError
    assert openblas_threads() == before and not blas.is_single()


def test_two_python_threads_that_overlap_leave_it_as_it_was() -> None:
    before, entered, leave = openblas_threads(), threading.Event(), threading.Event()

    def other() -> None:
        with blas.one_thread():
            entered.set()
            leave.wait(5)

    thread = threading.Thread(target=other)
    with blas.one_thread():
        thread.start()
        assert entered.wait(5)
    assert set(openblas_threads()) <= {1}
    leave.set()
    thread.join()
    assert openblas_threads() == before


@pytest.mark.usefixtures("two_threads")
def test_large_models_get_our_threads_and_small_ones_openblas() -> None:
    large, small = [np.broadcast_to(np.float32(0), (parallel.LARGE,))], [np.zeros(8, np.float32)]
    with parallel.threads_for(small):
        assert not blas.is_single()
    with parallel.threads_for(large) as _, parallel.threads_for(small):
        assert blas.is_single() == bool(openblas_threads())
    assert not blas.is_single()


SHAPES = [(0, 3, 4), (3, 0, 4), (1, 1, 1), (257, 384, 300), (100, 300, 517), (1, 4096, 2100), (2100, 4096, 1)]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["CC", "CF", "FC"])
def test_a_product_that_was_cut_is_that_of_numpy(shape: tuple[int, int, int], order: str) -> None:
    m, k, n = shape
    a = np.asarray(R.standard_normal((m, k)), np.float32, order=order[0])
    b = np.asarray(R.standard_normal((k, n)), np.float32, order=order[1])
    row = R.standard_normal(n).astype(np.float32)
    with blas.one_thread():
        found, plain = product(a, b, row), product(a, b)
    bound = 1e-5 * max(1, np.sqrt(k))
    assert found.dtype == np.float32 and np.allclose(found, a.astype(float) @ b + row, rtol=0, atol=bound)
    assert np.allclose(plain, a.astype(float) @ b, rtol=0, atol=bound)


@pytest.mark.usefixtures("two_threads")
def test_a_cut_step_is_the_uncut_one_and_the_same_each_time() -> None:
    p = {"w": R.standard_normal((640, 512)).astype(np.float32), "b": np.ones(640, np.float32)}
    x = R.standard_normal((256, 512)).astype(np.float32)

    def loss(p: dict[str, np.ndarray]) -> np.ndarray:
        return ops.mean(ops.gelu(ops.linear(x, p["w"], p["b"])))

    value, grads = value_and_grad(loss, p)
    with blas.one_thread():
        runs = [value_and_grad(loss, p) for _ in range(3)]
    for again, others in runs:
        assert again == pytest.approx(float(value), rel=1e-6)
        assert all(np.allclose(grads[n], others[n], rtol=1e-4, atol=1e-8) for n in p)
        assert all(others[n].tobytes() == runs[0][1][n].tobytes() for n in p)


@pytest.mark.usefixtures("two_threads")
def test_large_arrays_are_cut_without_a_gap() -> None:
    """Sums, rotations, norms and activations of an odd number of rows, against NumPy's float64."""
    n, size = 2063, 512
    a, b = (R.standard_normal((n, size)).astype(np.float32) for _ in range(2))
    assert a.size > 2 * parallel.CHEAP
    assert (ops.add(a, b) == a + b).all() and (ops.add(a, b[0]) == a + b[0]).all()
    total = a.copy()
    assert parallel.added(total, b, total) is total and (total == a + b).all()
    assert (parallel.added(a.T, b.T) == (a + b).T).all()
    with blas.one_thread():
        assert np.allclose(column_sums(a), a.sum(0, dtype=float), rtol=0, atol=1e-3)
        assert np.allclose(column_sums(a[:, ::2]), a[:, ::2].sum(0, dtype=float), rtol=0, atol=1e-3)
    heads, (cos, sin) = a.reshape(n, 8, 64), ops.rope_tables(np.arange(n), 64)
    turned = (heads[..., :32] + 1j * heads[..., 32:]) * (cos + 1j * sin)[:, None]
    assert np.allclose(ops.rope(heads, cos=cos, sin=sin), np.concatenate([turned.real, turned.imag], -1), atol=1e-5)
    exact = (a - a.mean(1, keepdims=True, dtype=float)) / np.sqrt(a.var(1, keepdims=True, dtype=float) + 1e-5)
    assert np.allclose(ops.layer_norm(a, np.ones(size, "f4"), np.zeros(size, "f4")), exact, atol=1e-5)
    assert (ops.relu(a) == np.maximum(a, 0)).all() and np.allclose(ops.tanh(a), np.tanh(a.astype(float)), atol=1e-6)

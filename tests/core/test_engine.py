"""The engine: order, laziness, a bounded window, errors, every kind of executor."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from weighttools.core.engine import collector_paused, n_threads, run, threads
from weighttools.core.tensor import Tensor

TINY = Path(__file__).parents[2] / "fixtures" / "safetensors" / "tiny" / "model.safetensors"


def square(n: int) -> int:
    return n * n


def fails_at_three(n: int) -> int:
    if n == 3:
        raise ZeroDivisionError("three")
    return n


def total(tensor: Tensor) -> float:
    return float(sum(block.sum() for block in tensor.blocks(2)))


@given(st.lists(st.integers(), max_size=30), st.integers(1, 6), st.integers(1, 4))
def test_results_come_in_order(items: list[int], window: int, workers: int) -> None:
    expected = [n * n for n in items]
    assert list(run(square, items)) == expected
    with ThreadPoolExecutor(workers) as pool:
        assert list(run(square, items, pool, window)) == expected


def test_slow_first_result_still_comes_first() -> None:
    def slow(n: int) -> int:
        time.sleep(0.02 if n == 0 else 0)
        return n

    with ThreadPoolExecutor(3) as pool:
        assert list(run(slow, range(6), pool)) == list(range(6))


@pytest.mark.parametrize("window", [1, 2, 5])
def test_no_more_items_are_taken_than_the_window_holds(window: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(50):
            taken.append(n)
            yield n

    with ThreadPoolExecutor(2) as pool:
        results = run(square, items(), pool, window)
        assert taken == []
        for done, _ in enumerate(results, 1):
            assert len(taken) <= done + window - 1
    taken.clear()
    serial = run(square, items())
    next(serial)
    assert taken == [0]


@pytest.mark.parametrize("pooled", [False, True])
def test_an_error_comes_where_its_result_would_have(pooled: bool) -> None:
    with ThreadPoolExecutor(2) as pool:
        results = run(fails_at_three, range(100), pool if pooled else None)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ZeroDivisionError, match="three"):
            next(results)


def test_leaving_early_cancels_what_waits() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def wait(n: int) -> int:
        begun.append(n)
        if n:
            gate.wait(5)
        return n

    with ThreadPoolExecutor(1) as pool:
        results = run(wait, range(100), pool, 8)
        assert next(results) == 0
        results.close()  # type: ignore[attr-defined]
        gate.set()
    assert len(begun) <= 3


def test_a_process_pool_runs_tensors_of_a_file() -> None:
    tensor_map = wt.open(TINY)
    tensors = list(tensor_map.values())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = list(run(total, tensors, pool))
    assert found == [float(t.read().sum()) for t in tensors]
    assert sum(found) == 66 + 1.5 + 7


@pytest.mark.parametrize(("n", "kind"), [(0, type(None)), (1, type(None)), (2, Executor)])
def test_threads_are_a_pool_only_where_there_are_several(n: int, kind: type) -> None:
    with threads(n) as pool:
        assert isinstance(pool, kind)
    with threads() as pool:
        assert (pool is None) == (n_threads() == 1)


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_left_as_it_was(was_on: bool) -> None:
    try:
        if not was_on:
            gc.disable()
        with pytest.raises(KeyError), collector_paused():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == was_on
    finally:
        gc.enable()

"""Who has the cores: threadpoolctl's own view of what is held, by whom, and that it is put back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from weighttools.core import blas


def openblas_threads() -> list[int]:
    """As threadpoolctl counts them; empty where NumPy uses another BLAS."""
    return [i["num_threads"] for i in ThreadpoolController().info() if i["internal_api"] == "openblas"]


@contextmanager
def limited_by_another_thread(n: int) -> Iterator[None]:
    """OpenBLAS set to `n` threads by another thread, which goes on living meanwhile, as scikit-learn would."""
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with threadpool_limits(n):
            entered.set()
            leave.wait(5)

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(5)
    try:
        yield
    finally:
        leave.set()
        thread.join()


@pytest.mark.parametrize("n", [1, 2])
def test_what_another_package_holds_is_told_as_it_is_and_left_to_it(n: int) -> None:
    before = openblas_threads()
    with limited_by_another_thread(n):
        found = openblas_threads()
        with blas.one_thread() as is_held:
            assert is_held == blas.is_single() == (set(openblas_threads()) == {1})
        assert openblas_threads() == found
    assert openblas_threads() == before


def test_others_may_hold_it_afterwards_from_any_thread() -> None:
    """threadpoolctl obeys one thread at a time: a claim of ours that outlives its use would shut others out."""
    before = openblas_threads()
    with blas.one_thread():
        pass
    assert openblas_threads() == before
    with limited_by_another_thread(1):
        assert set(openblas_threads()) <= {1}
    assert openblas_threads() == before


def library(internal_api: str, threading_layer: str) -> SimpleNamespace:
    def refuse(n: int) -> None:
        raise AssertionError("its threads are not the process's")

    return SimpleNamespace(internal_api=internal_api, threading_layer=threading_layer, set_num_threads=refuse)


@pytest.mark.parametrize(
    ("libraries", "is_shared"),
    [([], True), ([library("mkl", "intel")], False), ([library("openblas", "openmp")], False)],
)
def test_work_is_spread_where_blas_has_no_threads_that_would_fight_ours(
    libraries: list[SimpleNamespace], is_shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accelerate has none to set; those of MKL and of OpenMP belong to each thread and cannot be held from here."""
    monkeypatch.setattr(blas, "_libraries", lambda: libraries)
    seen = list(blas.over(lambda _: threading.current_thread() is not threading.main_thread(), range(4), 2))
    assert seen == [is_shared] * 4
    assert not blas.is_single()

"""The verb ``trace``: figures against float64 NumPy, real trainings, and what is read."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import weighttools as wt
from tests.refused import refused
from tests.strategies import random_array
from weighttools.core.dtypes import from_numpy
from weighttools.core.fold import BlocksInTurn, BlockSizes, Fold, fold_blocks
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, TensorNotFoundError


def of(**arrays: Any) -> TensorMap:
    return TensorMap.from_arrays(arrays)


def expected(series: list[np.ndarray[Any, Any]]) -> dict[str, list[float | None]]:
    """Figures in plain NumPy."""
    with np.errstate(all="ignore"):
        wide = [one.astype(np.float64).ravel() for one in series]
    kept = [np.where(np.isfinite(one), one, 0) for one in wide]
    with np.errstate(invalid="ignore"):
        updates = [np.nan_to_num(b - a, nan=0, posinf=0, neginf=0) for a, b in pairwise(wide)]
    norms = [float(np.linalg.norm(one)) for one in kept]
    sizes = [float(np.linalg.norm(one)) for one in updates]
    cosines = [
        float(a @ b) / (x * y) if x * y else None
        for a, b, x, y in zip(updates, updates[1:], sizes, sizes[1:], strict=False)
    ]
    return {
        "norm": list(norms),
        "update": [None, *(size / norm if norm else None for size, norm in zip(sizes, norms, strict=False))],
        "cosine": [None, None, *cosines][: len(series)],
        "sparsity": [float((one == 0).mean()) if one.size else None for one in wide],
        "n_not_finite": [int((~np.isfinite(one)).sum()) for one in wide],
    }


def assert_close(found: Any, wanted: dict[str, list[float | None]]) -> None:
    for key, values in wanted.items():
        assert len(found[key]) == len(values), key
        for one, other in zip(found[key], values, strict=True):
            assert (one is None) == (other is None), (key, found[key], values)
            if other is not None:
                assert one == pytest.approx(other, rel=1e-12, abs=1e-12), key


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=5),
    st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]),
    st.sampled_from([(), (0, 3), (7,), (300, 5)]),
)
def test_figures_are_numpys(seeds: list[int], dtype: Any, shape: tuple[int, ...]) -> None:
    with np.errstate(all="ignore"):
        bits = [random_array(from_numpy(np.dtype(dtype)), shape, seed).astype(np.float32) for seed in seeds]
        series = [np.clip(one, -1e4, 1e4).astype(dtype) for one in bits]
    record = wt.trace([of(w=one) for one in series])
    [row] = record["rows"]
    assert_close(row, expected(series))
    joined = wt.trace([of(w=one, v=one) for one in series], by="dtype")["rows"][0]
    assert_close(joined, {**expected([np.stack([o, o]) for o in series]), "cosine": expected(series)["cosine"]})


def test_several_blocks_and_threads() -> None:
    rng = np.random.default_rng(0)
    series = [rng.standard_normal((3000, 1500)).astype(np.float32) for _ in range(4)]
    series[2][2999, 7] = np.nan
    one, many = (wt.trace([of(w=x) for x in series], threads=n) for n in (1, 3))
    assert one == many
    assert_close(one["rows"][0], expected(series))
    assert one["rows"][0]["first_not_finite"] == {"tensor": "w", "step": 2, "at": 2999 * 1500 + 7}


def test_a_training_by_torch(tmp_path: Path, inside: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    net[2].requires_grad_(False)
    optimizer = torch.optim.SGD(net[0].parameters(), lr=0.1)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    for step in range(12):
        if step % 4 == 0:
            folder = tmp_path / f"checkpoint-{step * 100}"
            folder.mkdir()
            save_file({k: v.numpy().copy() for k, v in net.state_dict().items()}, folder / "model.safetensors")
            (folder / "trainer_state.json").write_text(json.dumps({"global_step": step * 10}))
        loss = ((net(x) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    record = wt.trace(tmp_path)
    assert [one["step"] for one in record["checkpoints"]] == [0, 40, 80]
    rows = {row["name"]: row for row in record["rows"]}
    weights = [wt.open(tmp_path / f"checkpoint-{n}")["0.weight"].read() for n in (0, 400, 800)]
    assert_close(rows["0.weight"], expected(weights))
    assert rows["2.weight"]["unchanged_since"] == 0 and rows["0.weight"]["unchanged_since"] is None
    assert (rows["0.weight"]["cosine_mean"] or 0) > 0.5, "small steps of plain gradient descent go one way"
    out = inside("trace", tmp_path, "--sort", "update_last", "--top", "1").out
    assert (out.splitlines()[2].split()[0] == "0" and "unchanged" not in out and "0.weight" in out) or "0.bias" in out


def test_files_in_natural_order_and_lists(tmp_path: Path) -> None:
    for n in (2, 10, 1):
        save_file({"w": np.full(3, float(n))}, tmp_path / f"epoch_{n}.safetensors")
    record = wt.trace(tmp_path)
    assert [one["step"] for one in record["checkpoints"]] == [1, 2, 10]
    assert record["rows"][0]["norm"] == [pytest.approx(n * 3**0.5) for n in (1, 2, 10)]
    backwards = wt.trace([tmp_path / "epoch_10.safetensors", tmp_path / "epoch_1.safetensors"])
    assert [one["step"] for one in backwards["checkpoints"]] == [0, 1], "numbers that fall are no steps"


def test_what_is_not_in_all_is_said() -> None:
    record = wt.trace(
        [of(w=np.ones(3), gone=np.ones(2), s=np.ones(2)), of(w=np.ones(3), come=np.ones(1), s=np.ones(4))]
    )
    assert [row["name"] for row in record["rows"]] == ["w"]
    assert all(name in record["notes"][0] for name in ("come", "gone", "s"))
    counts = wt.trace([of(w=np.ones(3), n=np.array([1])), of(w=np.ones(3), n=np.array([2]))])
    assert "no parameters" in counts["notes"][-1] and len(counts["rows"]) == 1
    everything = wt.trace([of(w=np.ones(3), n=np.array([1])), of(w=np.ones(3), n=np.array([2]))], include_all=True)
    assert len(everything["rows"]) == 2


def test_complex_numbers_and_long_integers_change_as_they_are() -> None:
    series = [np.array([1 + 2j, 3]), np.array([1 - 2j, 3]), np.array([1 - 2j, 4])]
    [row] = wt.trace([of(w=one) for one in series])["rows"]
    assert row["unchanged_since"] is None and row["update"][1] == pytest.approx(4 / np.linalg.norm(series[0]))
    assert row["cosine"][2] == pytest.approx(0)
    [counts] = wt.trace([of(n=np.array([2**60])), of(n=np.array([2**60 + 1]))], include_all=True)["rows"]
    assert counts["unchanged_since"] is None


def test_what_is_no_series_is_refused(tmp_path: Path) -> None:
    with refused(SpecError, "too-few-checkpoints"):
        wt.trace([of(w=np.ones(2))])
    with refused(SpecError, "too-few-checkpoints"):
        wt.trace(tmp_path)
    with refused(TensorNotFoundError, "nothing-left"):
        wt.trace([of(a=np.ones(2)), of(b=np.ones(2))])
    with refused(SpecError, "unknown-option-value", "nothing"):
        wt.trace([of(a=np.ones(2))] * 2, sort="nothing")


def test_memory_does_not_grow_with_the_number_of_checkpoints(tmp_path: Path) -> None:
    for n in range(24):
        save_file({"w": np.full(1 << 20, float(n), np.float32)}, tmp_path / f"step-{n}.safetensors")
    wt.trace(tmp_path, threads=1)
    peaks = []
    for last in (4, 24):
        paths = [tmp_path / f"step-{n}.safetensors" for n in range(last)]
        tracemalloc.start()
        wt.trace(paths, threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (2 << 20), peaks


def total(blocks: BlocksInTurn) -> tuple[int, float]:
    arrays = [float(values.sum()) for values in blocks.values]
    return len(arrays), sum(arrays)


def test_blocks_in_turn_are_those_side_by_side() -> None:
    tensors = tuple(of(w=np.arange(100.0) * i)["w"] for i in range(5))
    folded = fold_blocks([Fold(tensors, total, True)], lambda a, b: (a[0], a[1] + b[1]), BlockSizes(16, 32))
    assert list(folded) == [(5, 4950.0 * 10)]


def test_the_first_nan_of_a_group_tells_its_tensor(inside: Callable[..., Any], tmp_path: Path) -> None:
    bad = np.array([1, np.nan, 3])
    series = [of(a=np.ones(3), b=np.ones(3)), of(a=np.ones(3), b=bad), of(a=bad, b=bad)]
    record = wt.trace(series, by="dtype")
    for row in (record["rows"][0], record["total"]):
        assert row["first_not_finite"] == {"tensor": "b", "step": 1, "at": 1}
    for n, arrays in enumerate(series):
        wt.save(tmp_path / f"step_{n}.safetensors", arrays)
    assert "from step 1 on, first at element 1 of b" in inside("trace", tmp_path, "--by", "dtype").out


def test_logs_are_no_checkpoints_and_other_series_are_told(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / f"log_{n}.txt").write_text("loss")
    for name in ("checkpoint-1", "checkpoint-2", "best-2"):
        (tmp_path / name).mkdir()
        save_file({"w": np.ones(3)}, tmp_path / name / "model.safetensors")
    record = wt.trace(tmp_path)
    assert [one["step"] for one in record["checkpoints"]] == [1, 2] and "best-* (1)" in record["notes"][0]
    (tmp_path / "best-3").mkdir()
    save_file({"w": np.ones(3)}, tmp_path / "best-3" / "model.safetensors")
    with refused(SpecError, "several-series", "best-* (2)", "checkpoint-* (2)"):
        wt.trace(tmp_path)


def test_numbers_that_fall_are_told(tmp_path: Path) -> None:
    for n in (1, 2):
        save_file({"w": np.ones(3)}, tmp_path / f"epoch_{n}.safetensors")
    paths = [tmp_path / "epoch_2.safetensors", tmp_path / "epoch_1.safetensors"]
    assert "do not rise" in wt.trace(paths)["notes"][0] and not wt.trace(paths[::-1])["notes"]


@dataclass(frozen=True)
class CountingReader:
    """Numbers that are one everywhere, and a list of what was read of them."""

    reads: list[tuple[int, int]]
    granularity: int = 1

    def __call__(self, start: int, stop: int) -> Any:
        self.reads.append((start, stop))
        return np.ones(stop - start, np.float32)


def test_each_checkpoint_is_read_once() -> None:
    spec = Spec(from_numpy(np.dtype(np.float32)), (5_000_000,))
    reads: list[list[tuple[int, int]]] = [[], [], [], []]
    wt.trace([TensorMap({"w": Tensor(spec, CountingReader(each))}) for each in reads], threads=2)
    for each in map(sorted, reads):
        assert each[0][0] == 0 and each[-1][1] == 5_000_000 and all(a[1] == b[0] for a, b in pairwise(each))

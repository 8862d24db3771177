"""NaN and infinity stop a training before they spoil the weights, and the line says where they come from."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from tests.train.digits import digits, model, run, start
from weighttools import train
from weighttools.errors import SpecError, TrainingError
from weighttools.train.data.arrays import ArrayColumns

TASK = train.Classification(10)


def stopped(m: train.Model, data: Any = None, **options: Any) -> str:
    """Train until it stops, and return the line."""
    options = {"task": TASK, "log": None, **options}
    with pytest.raises(TrainingError) as caught:
        train.fit(m, digits() if data is None else data, **options)
    assert all(np.isfinite(p).all() for p in m.params.values()), "the weights are as before the step"
    line = str(caught.value)
    assert line.isprintable()
    return line


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_a_bad_value_in_the_data(value: float, kind: str) -> None:
    x, y = digits(60)
    spoilt = x.copy()
    spoilt[47, 3] = value
    m = model()
    line = stopped(m, ArrayColumns({"inputs": spoilt, "target": y}), batch_size=60)
    assert "step 1, learning rate 0.001: the loss is nan: inputs of sample" in line and f"is {kind}" in line
    assert "drop such samples" in line
    assert all((m.params[n] == p).all() for n, p in start().items())
    with pytest.raises(SpecError, match="sample 47 holds NaN"):
        train.data.arrays(spoilt, y)


def test_which_sample_it_was() -> None:
    x, y = digits(60)
    spoilt = x.copy()
    spoilt[7, 0] = np.nan
    batches = [{"inputs": spoilt[i : i + 20], "target": y[i : i + 20]} for i in (40, 20, 0)]
    assert "step 3, learning rate 0.001: the loss is nan: inputs of sample 7 of the batch's 20 is NaN" in stopped(
        model(), batches
    )


def test_a_rate_that_is_too_large() -> None:
    x, y = digits()
    line = stopped(model(), (100 * x, y), optimizer=train.optim.sgd(1e20), epochs=5)
    assert "learning rate 1e+20" in line and "lower the learning rate, or clip" in line


def test_weights_that_are_bad_from_the_start() -> None:
    m = model()
    m.params["fc2.bias"][4] = np.nan
    with pytest.raises(
        TrainingError, match=r"^the model: weights in fc2\.bias are NaN before any update; `weighttools ch"
    ):
        train.fit(m, digits(), task=TASK, log=None)
    kept = np.arange(10) != 4
    train.fit(m, digits(), task=TASK, masks={"fc2.bias": kept}, log=None)  # what is held at 0 is not NaN


class Frozen:
    """A function beside whose arrays others are kept, as an adapter's."""

    frozen: ClassVar[dict[str, np.ndarray]] = {"shift": np.full(10, np.inf, np.float32)}

    def __call__(self, p: Any, batch: Any) -> Any:
        return run(p, batch) + self.frozen["shift"]


def test_frozen_weights_are_not_said_to_have_overflowed() -> None:
    m = model()
    m.params["fc1.weight"][0, 0] = np.nan
    with pytest.raises(
        TrainingError, match=r"weights in fc1\.weight are NaN, and do not learn; `weighttools check` finds"
    ):
        train.fit(m, digits(), task=TASK, freeze=["fc1.*"], log=None)
    line = stopped(train.Model(Frozen(), start()))
    assert "weights in shift are infinite, and do not learn" in line


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon", "lion", "adafactor", "adagrad", "rmsprop"])
def test_huge_rates_and_targets_stop_without_a_warning(name: str) -> None:
    """Pytest makes errors of warnings."""
    x, y = digits(60)
    large = np.where(y % 2, 3e38, -3e38).astype(np.float32)[:, None] * np.ones(10, np.float32)
    with pytest.raises(TrainingError):
        train.fit(model(), (x, large), task=train.Regression(), validation=0.5, log=None)
    try:
        train.fit(model(), (x, y), task=TASK, validation=0.5, optimizer=getattr(train.optim, name)(1e308), log=None)
    except TrainingError as error:
        assert "learning rate" in str(error)


def test_a_model_that_is_not_finite_is_measured_without_a_warning() -> None:
    m = model()
    m.params["fc1.weight"][:] = 3e38
    assert not np.isfinite(train.predict(m, digits(9)[0])).all()


@train.autograd.operation
def fades(x: np.ndarray, /) -> Any:
    """Return x; the derivative overflows."""
    return x, lambda dy, need: (np.where(np.arange(dy.shape[-1]) == 3, np.inf, dy).astype(dy.dtype),)


def test_a_gradient_that_overflows() -> None:
    def overflowing(p: Any, batch: train.data.Batch) -> Any:
        hidden = train.ops.relu(fades(train.ops.linear(batch["inputs"], p["fc1.weight"], p["fc1.bias"])))
        return train.ops.linear(hidden, p["fc2.weight"], p["fc2.bias"])

    m = train.Model(overflowing, start())
    line = stopped(m)
    assert "the gradient of fc1.weight is " in line and "the loss is finite" in line and "backward pass" in line
    assert all((m.params[n] == p).all() for n, p in start().items())
    frozen = train.fit(train.Model(overflowing, start()), digits(), task=TASK, freeze=["fc1.*"], log=None)
    assert np.isfinite(frozen.history[-1]["loss"]), "what is frozen has no gradient to overflow"


@train.autograd.operation
def root(x: np.ndarray, /) -> Any:
    """Return the square root, whose derivative is infinite at 0."""
    y = np.sqrt(x)
    return y, lambda dy, need: (dy / (2 * y),)


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(("factor", "kind"), [(0.0, "NaN"), (1.0, "infinite")])
def test_a_gradient_at_the_edge_of_a_root(factor: float, kind: str) -> None:
    """An infinite derivative times 0 is NaN: nothing overflowed."""
    m = train.Model(lambda p, b: p["w"] + train.ops.mul(root(p["s"]), factor), {"w": np.ones(4), "s": np.zeros(4)})
    line = stopped(m, (np.zeros((1, 4)), np.zeros((1, 4))), task=train.Regression())
    assert f"the gradient of s is {kind} in 4 of 4 elements, though the loss is finite" in line
    if kind == "NaN":
        assert "0/0, the derivative of a root or logarithm at 0, or a backward pass that overflowed; keep" in line
    else:
        assert "the backward pass overflowed, or divided by 0; lower the learning rate" in line


def test_a_blow_up_puts_the_best_weights_back() -> None:
    options: dict[str, Any] = {"task": TASK, "validation": 0.3, "log": None}  # 7 updates an epoch
    m, expected = model(), model()
    line = stopped(m, optimizer=train.optim.sgd(lambda step: 0.05 if step < 17 else 1e38), epochs=6, **options)
    best = train.fit(expected, digits(), optimizer=train.optim.sgd(0.05), epochs=2, **options)
    assert best.metrics["step"] == 14 and line.endswith("; the model in memory has its best weights again, of step 14")
    assert "step 19, learning rate 1e+38: the loss is nan: " in line
    assert all(np.array_equal(p, expected.params[n]) for n, p in m.params.items())


def test_without_the_best_the_line_says_what_is_left() -> None:
    m, expected = model(), model()
    line = stopped(m, optimizer=train.optim.sgd(lambda step: 0.05 if step < 17 else 1e38), epochs=6)
    assert line.endswith("; the model in memory is as after step 18") and max(abs(m.params["fc2.bias"])) > 1e30
    x, y = digits(60)
    x = x.copy()
    x[-1] = np.nan
    line = stopped(m := model(), [(x[:20], y[:20]), (x[20:40], y[20:40]), (x[40:], y[40:])])
    assert line.endswith("; the model in memory is as after step 2")
    train.fit(expected, [(x[:20], y[:20]), (x[20:40], y[20:40])], task=TASK, log=None)
    assert all(np.array_equal(p, expected.params[n]) for n, p in m.params.items())


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
@pytest.mark.parametrize("validation", [None, 0.3])
def test_weights_that_are_spoilt_are_called_so(validation: float | None) -> None:
    """Also where an epoch's figure was NaN: its weights are no best ones."""
    m = model()
    with pytest.raises(TrainingError, match=r"fc2\.bias are .*; the model in memory is not finite: load it anew$"):
        train.fit(
            m, digits(), task=TASK, validation=validation, epochs=6, log=None, batch_size=300,
            optimizer=train.optim.sgd(1e38, rates={"fc2.bias": 1e10}),
        )  # fmt: skip
    assert not np.isfinite(m.params["fc2.bias"]).all()


def test_outputs_that_overflow() -> None:
    x, y = digits()
    m = model()
    m.params["fc1.weight"] *= 1e4
    line = stopped(m, (3e38 * x, y))
    assert "data and weights are finite, so the model overflowed: outputs are" in line and "scale the inputs" in line


def test_a_loss_that_overflows() -> None:
    line_model = train.Model(
        lambda p, b: train.ops.linear(b["inputs"], p["fc1.weight"], None)[:, 0], {"fc1.weight": start()["fc1.weight"]}
    )
    x, y = digits()
    line = stopped(line_model, (x, 1e30 * y), task=train.Regression())
    assert "the outputs are finite, so the loss itself overflowed; check the targets" in line


def test_gradients_whose_squares_overflow() -> None:
    """1e30 is fine in float32, its square is not; in float64 it is."""
    data = train.data.arrays(np.full((1, 4), 1e30), np.zeros((1, 4)))
    options: dict[str, Any] = {"task": train.Regression("mae"), "optimizer": train.optim.sgd(1.0), "clip_norm": 1.0}
    run = lambda p, b: p["w"] * b["inputs"]  # noqa: E731
    line = stopped(train.Model(run, {"w": np.ones(4, np.float32)}), data, **options)
    assert "the gradient of w goes up to 2.5e+29, and its square is beyond float32" in line
    m = train.Model(run, {"w": np.ones(4)})
    train.fit(m, data, log=None, **options)
    np.testing.assert_allclose(m.params["w"], 0.5)  # four equal gradients of joint norm 1


def test_a_checkpoint_never_holds_what_is_not_finite(tmp_path: Any) -> None:
    x, y = digits()
    options: dict[str, Any] = {
        "task": TASK,
        "optimizer": train.optim.sgd(3e37),
        "every": 1,
        "checkpoint": tmp_path / "c",
    }
    m = model()
    with pytest.raises(TrainingError) as caught:
        train.fit(m, (x, y), epochs=3, log=None, **options)
    from safetensors.numpy import load_file

    if (tmp_path / "c").exists():
        assert all(np.isfinite(a).all() for a in load_file(tmp_path / "c/model.safetensors").values())
        assert str(tmp_path / "c") in str(caught.value)
    else:
        assert "no checkpoint" in str(caught.value)


def test_a_name_that_runs_is_not_hidden() -> None:
    """A mistake in the user's own function comes out as it is."""
    with pytest.raises(KeyError, match="fc9"):
        train.fit(train.Model(lambda p, b: p["fc9"], start()), digits(), task=TASK, log=None)
    assert run is not None

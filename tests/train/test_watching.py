"""NaN and infinity stop a training before they spoil the weights, and the line says where they come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.train.digits import digits, model, run, start
from weighttools import train
from weighttools.errors import SpecError, TrainingError
from weighttools.train.data.arrays import Columns

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
    line = stopped(m, Columns({"inputs": spoilt, "target": y}), batch_size=60)
    assert "step 1, learning rate 0.001: the loss is nan: inputs of sample" in line and f"is {kind}" in line
    assert "drop such samples" in line
    assert all((m.params[n] == p).all() for n, p in start().items())
    with pytest.raises(SpecError, match="sample 47 holds NaN"):
        train.arrays(spoilt, y)


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
    line = stopped(model(), (100 * x, y), optimizer=train.sgd(1e20), epochs=5)
    assert "learning rate 1e+20" in line and "lower the learning rate, or clip" in line


def test_weights_that_are_bad_from_the_start() -> None:
    m = model()
    m.params["fc2.bias"][4] = np.nan
    with pytest.raises(TrainingError, match=r"weights in fc2\.bias are NaN"):
        train.fit(m, digits(), task=TASK, log=None)


@train.operation
def fades(x: np.ndarray, /) -> Any:
    """Return x; the derivative overflows."""
    return x, lambda dy, need: (np.where(np.arange(dy.shape[-1]) == 3, np.inf, dy).astype(dy.dtype),)


def test_a_gradient_that_overflows() -> None:
    def overflowing(p: Any, batch: train.Batch) -> Any:
        hidden = train.relu(fades(train.linear(batch["inputs"], p["fc1.weight"], p["fc1.bias"])))
        return train.linear(hidden, p["fc2.weight"], p["fc2.bias"])

    m = train.Model(overflowing, start())
    line = stopped(m)
    assert "the gradient of fc1.weight is " in line and "the loss is finite" in line and "backward pass" in line
    assert all((m.params[n] == p).all() for n, p in start().items())
    frozen = train.fit(train.Model(overflowing, start()), digits(), task=TASK, freeze=["fc1.*"], log=None)
    assert np.isfinite(frozen.history[-1]["loss"]), "what is frozen has no gradient to overflow"


def test_outputs_that_overflow() -> None:
    x, y = digits()
    m = model()
    m.params["fc1.weight"] *= 1e4
    line = stopped(m, (3e38 * x, y))
    assert "data and weights are finite, so the model overflowed: outputs are" in line and "scale the inputs" in line


def test_a_loss_that_overflows() -> None:
    line_model = train.Model(
        lambda p, b: train.linear(b["inputs"], p["fc1.weight"], None)[:, 0], {"fc1.weight": start()["fc1.weight"]}
    )
    x, y = digits()
    line = stopped(line_model, (x, 1e30 * y), task=train.Regression())
    assert "the outputs are finite, so the loss itself overflowed; check the targets" in line


def test_gradients_whose_squares_overflow() -> None:
    """1e30 is fine in float32, its square is not; in float64 it is."""
    data = train.arrays(np.full((1, 4), 1e30), np.zeros((1, 4)))
    options: dict[str, Any] = {"task": train.Regression("mae"), "optimizer": train.sgd(1.0), "clip_norm": 1.0}
    run = lambda p, b: p["w"] * b["inputs"]  # noqa: E731
    line = stopped(train.Model(run, {"w": np.ones(4, np.float32)}), data, **options)
    assert "the gradient of w goes up to 2.5e+29, and its square is beyond float32" in line
    m = train.Model(run, {"w": np.ones(4)})
    train.fit(m, data, log=None, **options)
    np.testing.assert_allclose(m.params["w"], 0.5)  # four equal gradients of joint norm 1


def test_a_checkpoint_never_holds_what_is_not_finite(tmp_path: Any) -> None:
    x, y = digits()
    options: dict[str, Any] = {"task": TASK, "optimizer": train.sgd(3e37), "every": 1, "checkpoint": tmp_path / "c"}
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

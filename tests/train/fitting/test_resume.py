"""Checkpoints: whole at any moment, and continued to the bit."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from safetensors.numpy import load_file

from tests.conftest import ROOT
from tests.thorough import amount
from tests.train.digits import digits, model, run, start
from tests.train.resumed import CASES, state, trained
from weighttools import train
from weighttools.errors import CorruptFileError, SourceError, SpecError, WeighttoolsError
from weighttools.train.fitting import loop
from weighttools.train.fitting.options import FITTING

TASK = train.Classification(10)


class Stopped(Exception):
    """As a crash: raised in the middle of a training."""


def failing_after(n: int, update: Callable[..., None]) -> Callable[..., None]:
    """Return `update`, which fails after `n` calls."""
    calls = iter(range(n))

    def failing(*args: Any) -> None:
        if next(calls, None) is None:
            raise Stopped
        update(*args)

    return failing


@pytest.mark.parametrize("case", CASES)
def test_stopping_anywhere_changes_nothing(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = state(trained(case, None))
    for stop in amount((17,), (3, 17, 31)):
        directory = tmp_path / f"{stop}"
        with monkeypatch.context() as patched:
            patched.setattr(loop, "update", failing_after(stop, loop.update))
            with pytest.raises(Stopped):
                trained(case, directory)
        lines: list[str] = []
        assert state(trained(case, directory, lines.append)) == expected
        assert any("continuing from" in line for line in lines)
    assert state(trained(case, directory)) == expected, "and once it is done, nothing more is done"


@pytest.mark.thorough
def test_killed_at_any_moment_it_continues_to_the_bit(tmp_path: Path) -> None:
    """Of the thorough run: moments are told by a clock. In the quick one an exception stops training at chosen steps."""
    expected = state(trained("adamw", None))
    rng, directory, n_killed = random.Random(11), tmp_path / "checkpoint", 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.train.resumed", str(directory), "adamw"], cwd=ROOT,
            stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(("continuing", "there is no state")):
                    break
            time.sleep(rng.uniform(0.01, 0.12))
            process.send_signal(signal.SIGKILL)
            n_killed += process.wait() == -signal.SIGKILL
    assert n_killed
    assert state(trained("adamw", directory)) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint"}, "debris of the killed is removed"


def checkpoint(directory: Path, **options: Any) -> train.Result:
    """Train a little, with a checkpoint."""
    m = options.pop("model", None) or model()
    data = options.pop("data", None) or train.data.arrays(*digits(60))
    return train.fit(m, data, state=directory, log=None, **{"task": TASK, "epochs": 2, **options})


def test_a_checkpoint_is_safetensors_and_json(tmp_path: Path) -> None:
    result = checkpoint(tmp_path / "c", keep="last")
    weights = load_file(tmp_path / "c/model.safetensors")
    assert {n: a.tobytes() for n, a in weights.items()} == {n: p.tobytes() for n, p in result.model.params.items()}
    rest = load_file(tmp_path / "c/training.safetensors")
    assert rest["slot/second_moment_sum/fc1.weight"].shape == (16, 64)
    assert rest["step/loss"].tolist() == result.history.steps["loss"]
    numbers = json.loads((tmp_path / "c/training.json").read_text())
    assert (numbers["schema"], numbers["step"], numbers["epoch"]) == ("weighttools.training/1", 4, 2)


def test_frozen_arrays_are_not_in_it(tmp_path: Path) -> None:
    checkpoint(tmp_path / "c", freeze=["fc1.*"])
    assert set(load_file(tmp_path / "c/model.safetensors")) == {"fc2.weight", "fc2.bias"}


def test_more_epochs_may_follow_at_a_constant_rate(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path / "a", epochs=4)
    checkpoint(tmp_path / "b", epochs=2)
    assert state(checkpoint(tmp_path / "b", epochs=4, resume=True)) == state(whole)


def _other_weights() -> train.Model:
    params = start()
    params["fc1.weight"][0, 0] += 1
    return train.Model(run, params)


x, y = digits(60)
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "more samples": ({"data": train.data.arrays(*digits(61))}, "other data: samples was 60, now it is 61"),
    "a value": ({"data": train.data.arrays(np.where(np.arange(60)[:, None] == 7, 0.5, x), y)}, "other data: values"),
    "another split": ({"validation": 0.5}, "other data: validation share|other data"),
    "batch size": ({"batch_size": 16}, "another recipe: batch_size was 32, now it is 16"),
    "seed": ({"seed": 1}, "another recipe: seed was 0, now it is 1"),
    "rate": ({"optimizer": train.optim.adamw(1e-4)}, "learning rate was 0.001, now it is 0.0001"),
    "schedule": ({"optimizer": train.optim.adamw(train.schedules.warmup_linear(1e-3))}, "learning rate"),
    "schedule's rate": (
        {"optimizer": train.optim.adamw(train.schedules.constant(2e-3, warmup=4))},
        "learning rate was 0.001, now it is 0 at update 1; ",
    ),
    "optimiser": ({"optimizer": train.optim.adam()}, "optimizer was Adam"),
    "decay rule": ({"optimizer": train.optim.adamw(rule=lambda n, p: True)}, "decayed"),
    "clipping": ({"clip_norm": 1.0}, "optimizer was"),
    "task": ({"task": train.Classification(10, label_smoothing=0.1)}, "task was"),
    "trained": ({"freeze": ["fc1.*"]}, "another model: trained tensors was 3, now it is 2"),
    "frozen weights": ({"model": _other_weights()}, "another model: their values"),
    "masks": ({"masks": {"fc2.weight": np.ones((10, 16), bool)}}, "masks"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_checkpoint_of_something_else_is_refused(case: str, tmp_path: Path) -> None:
    options, message = OTHERS[case]
    options = {"freeze": ["fc1.weight"], **options}
    checkpoint(tmp_path / "c", freeze=["fc1.weight"])
    with pytest.raises(SpecError, match=message) as caught:
        checkpoint(tmp_path / "c", resume=True, **options)
    assert "choose another directory" in str(caught.value) and str(caught.value).isprintable()


CHANGED: dict[str, Any] = {
    "epochs": 3, "steps": 5, "batch_size": 16, "freeze": ["fc1.*"], "only": ["fc1.*"], "sampler": "weighted",
    "masks": {"fc2.weight": np.ones((10, 16), bool)}, "prune": train.gradual(0.5), "clip_norm": 1.0, "accumulate": 2,
    "average": train.optim.ema(0.9), "seed": 1, "patience": 4, "monitor": "val_accuracy", "keep": "last", "every": 1,
    "resume": True,
}  # fmt: skip
"""A value of each option that is not the default."""


@pytest.mark.parametrize("name", CHANGED)
def test_what_decides_tells_states_apart(name: str, tmp_path: Path) -> None:
    """The declaration says which options a run that is resumed must have alike."""
    x, y = digits(60)
    options: dict[str, Any] = {"validation": 0.2, "data": train.data.arrays(x, y, np.ones(60))}
    options["optimizer"] = train.optim.sgd(0.1)

    def fingerprint(place: str, **more: Any) -> Any:
        checkpoint(tmp_path / place, **options, **more)
        return json.loads((tmp_path / place / "training.json").read_text())["fingerprint"]

    assert (fingerprint("a") != fingerprint("b", **{name: CHANGED[name]})) == FITTING[name].decides


def test_every_option_is_said_to_decide_or_not() -> None:
    assert {*CHANGED, "state"} == set(FITTING)


def test_a_state_of_the_version_before_is_continued(tmp_path: Path) -> None:
    """The names and words that version 0.1's states tell a recipe by."""
    checkpoint(tmp_path / "c", average=train.optim.ema(0.9), validation=0.2)
    found = json.loads((tmp_path / "c/training.json").read_text())["fingerprint"]["recipe"]
    told = {name: found[name] for name in found if name not in ("task", "optimizer", "decayed", "rates")}
    assert told == {
        "batch_size": "32", "accumulate": "1", "seed": "0", "sampler": "'shuffle'", "patience": "None", "prune": "None",
        "monitor": "'val_loss'", "keep_best": "True", "average": "0.9", "masks": "[]", "learning rate": "0.001",
    }  # fmt: skip


def test_it_is_not_overwritten_unasked(tmp_path: Path) -> None:
    checkpoint(tmp_path / "c")
    before = {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()}
    with pytest.raises(SourceError, match="holds a training's state; resume continues it"):
        checkpoint(tmp_path / "c")
    assert {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()} == before
    (tmp_path / "d").mkdir()
    (tmp_path / "d/thesis.tex").write_text("years of work")
    with pytest.raises(SpecError, match=r"holds 'thesis\.tex'"):
        checkpoint(tmp_path / "d")
    assert (tmp_path / "d/thesis.tex").read_text() == "years of work"
    with pytest.raises(SourceError, match="does not exist"):
        checkpoint(tmp_path / "no/such/place")


def test_what_comes_there_while_it_is_written_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weighttools.train.fitting import restoring

    (tmp_path / "c").mkdir()
    digest_of = restoring.digest_of

    def slow(numbers: dict[str, Any]) -> Any:
        (tmp_path / "c" / "thesis.tex").write_text("years of work")
        return digest_of(numbers)

    monkeypatch.setattr(restoring, "digest_of", slow)
    with pytest.raises(SpecError, match=r"holds 'thesis\.tex'"):
        checkpoint(tmp_path / "c")
    assert (tmp_path / "c" / "thesis.tex").read_text() == "years of work"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _without(key: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        numbers = json.loads(path.read_text())
        del numbers[key]
        path.write_text(json.dumps(numbers))

    return change


def _with(key: str, value: Any) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 16
    path.write_bytes(content)


def _other_shape(path: Path) -> None:
    from safetensors.numpy import save_file

    arrays = load_file(path)
    save_file({n: a.reshape(-1, 2) if a.size % 2 == 0 else a for n, a in arrays.items()}, path)


DAMAGE: list[tuple[str, Callable[[Path], None]]] = [
    ("training.json", _cut), ("training.json", lambda p: p.write_text("[]")), ("training.json", _without("step")),
    ("training.json", _without("best")), ("training.json", _without("epochs")), ("training.json", _without("schema")),
    ("training.json", _with("step", -1)), ("training.json", _with("position", 1e30)), ("training.json", Path.unlink),
    ("training.json", _without("digests")), ("model.safetensors", _flip), ("training.safetensors", _flip),
    ("model.safetensors", _cut), ("training.safetensors", _cut), ("model.safetensors", _other_shape),
    ("training.safetensors", _other_shape), ("model.safetensors", Path.unlink), ("training.safetensors", Path.unlink),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_a_damaged_checkpoint_is_one_clear_line(name: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    checkpoint(tmp_path / "c")
    damage(tmp_path / "c" / name)
    with pytest.raises(WeighttoolsError) as caught:
        checkpoint(tmp_path / "c", resume=True)
    assert isinstance(caught.value, (CorruptFileError, SourceError)) and str(tmp_path / "c") in str(caught.value)


def rewritten(directory: Path, edit: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Edit a checkpoint's numbers and the arrays beside its weights, with digests that hold: computed by hand."""
    from safetensors.numpy import save_file

    numbers = json.loads((directory / "training.json").read_text())
    arrays: dict[str, Any] = load_file(directory / "training.safetensors")
    edit(numbers, arrays)
    save_file(arrays, directory / "training.safetensors")
    if "training.safetensors" in (numbers["digests"] or ()):
        content = (directory / "training.safetensors").read_bytes()
        numbers["digests"]["training.safetensors"] = xxhash.xxh3_128_hexdigest(content)
    del numbers["digest"]
    numbers["digest"] = xxhash.xxh3_128_hexdigest(json.dumps(numbers, sort_keys=True).encode())
    (directory / "training.json").write_text(json.dumps(numbers))


def _put(*path: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Return an edit of the numbers: keys and the new value."""

    def edit(numbers: dict[str, Any], arrays: dict[str, Any]) -> None:
        *keys, last, value = path
        for key in keys:
            numbers = numbers[key]
        numbers[last] = value

    return edit


def _array(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Return an edit of the arrays; None takes one away."""
    return lambda numbers, arrays: arrays.pop(name) if value is None else arrays.update({name: value})


F = np.zeros((16, 64), np.float32)
FORGED: list[Callable[[dict[str, Any], dict[str, Any]], None]] = [
    *(
        _put(name, value)
        for name in ("step", "epoch", "position", "recorded", "n_bad", "optimizer_step", "n_averaged")
        for value in (-2, 1.5, True, None, "4", [], {}, 10**30)
    ),
    *(_put(name, value) for name in ("loss_sum", "weight_sum") for value in (None, [], {}, 1.5, "0x1p99999", "1", "x")),
    *(_put("best", "value", value) for value in (None, "0x1p99999", "0x1.8p+0", 3)),
    *(_put("best", "step", value) for value in (-1, "x", float("inf"), 3)),
    *(_put("best", "metrics", value) for value in ({}, [], {"step": 2}, {"step": 4, "epoch": 2, "loss": "x"})),
    *(_put("best", value) for value in (None, [], {})),
    *(_put("epochs", value) for value in (None, {}, [], [1], [{}], [{"epoch": 1, "step": 10**30}])),
    *(_put("epochs", 0, name, value) for name in ("step", "loss", "lr") for value in (None, [], 10**400, "x")),
    *(_put("fingerprint", "model", value) for value in ("x", 3, True, None, [])),
    *(_put("fingerprint", value) for value in ("x", 3, None, [])),
    _put("fingerprint", "model", "x", None), _put("fingerprint", "recipe", "seed", 0), _put("plateau", {}),
    _put("plateau", {"lr": "0x1p+0", "best": "0x1p+0", "n_bad": 0, "n_cool": 0}), _put("digests", None),
    _put("digests", "model.safetensors", None), _put("digests", "more", "x"), _put("more", 1),
    _array("best/zz", F), _array("kept/zz", F == 0), _array("step/zz", F), _array("slot/zz", F), _array("zz", F),
    *(
        _array(name, value)
        for name in ("best/fc1.weight", "average/fc1.weight", "slot/first_moment_sum/fc1.weight", "kept/fc1.weight")
        for value in (None, F[:1], F.astype(np.float64))
    ),
    _array("best/fc1.weight", F + np.float32(np.nan)), _array("average/fc1.weight", F - np.float32(np.inf)),
    _array("kept/fc1.weight", np.ones((64, 16), bool)), *(_array("step/loss", np.zeros(n)) for n in (3, 5)),
    _array("step/lr", None),
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with all kinds of arrays."""
    directory: Path = tmp_path_factory.mktemp("whole") / "c"
    checkpoint(directory, **EVERYTHING)
    return directory


EVERYTHING: dict[str, Any] = {
    "keep": "best", "average": train.optim.ema(0.9), "masks": {"fc1.weight": np.ones((16, 64), bool)},
    "prune": train.gradual(0.5, stop=1, every=1), "data": digits(60),
}  # fmt: skip


@pytest.mark.parametrize("number", range(len(FORGED)))
def test_a_forged_checkpoint_is_one_clear_line_and_changes_nothing(number: int, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "c")
    rewritten(tmp_path / "c", FORGED[number])
    m = model()
    with pytest.raises(WeighttoolsError) as caught:
        checkpoint(tmp_path / "c", resume=True, model=m, **EVERYTHING)
    line = str(caught.value)
    assert isinstance(caught.value, CorruptFileError) and str(tmp_path / "c") in line and line.isprintable()
    assert all((m.params[name] == p).all() for name, p in start().items())


def test_forging_by_hand_is_no_forgery_where_nothing_is_changed(whole: Path, tmp_path: Path) -> None:
    """The oracle of the tests above."""
    shutil.copytree(whole, tmp_path / "c")
    rewritten(tmp_path / "c", lambda numbers, arrays: None)
    kinds = {name.partition("/")[0] for name in load_file(tmp_path / "c/training.safetensors")}
    assert kinds == {"slot", "average", "best", "kept", "step"}
    more = {**EVERYTHING, "epochs": 3}
    assert state(checkpoint(tmp_path / "c", resume=True, **more)) == state(checkpoint(tmp_path / "d", **more))


@pytest.mark.parametrize("value", [5, 10**30, "0x1p+0"])
def test_an_edited_number_is_told(value: Any, tmp_path: Path) -> None:
    checkpoint(tmp_path / "c")
    _with("step", value)(tmp_path / "c/training.json")
    with pytest.raises(CorruptFileError, match=r"training\.json: was edited or damaged: its digest"):
        checkpoint(tmp_path / "c", resume=True)


def test_the_last_good_checkpoint_is_kept_and_named(tmp_path: Path) -> None:
    calls = iter(range(1000))

    def fails_later(p: Any, batch: train.data.Batch) -> Any:
        logits = run(p, batch)
        return logits * float("nan") if "seed" in batch and next(calls) == 5 else logits

    m = train.Model(fails_later, start())
    with pytest.raises(ArithmeticError, match=r"step 6, learning rate 0\.001: the loss is nan") as caught:
        train.fit(m, digits(60), task=TASK, epochs=9, batch_size=20, every=2, state=tmp_path / "c", log=None)
    assert str(caught.value).endswith(f"the last good state is {tmp_path / 'c'}, after step 4")
    at_4 = load_file(tmp_path / "c/model.safetensors")
    again = model()
    train.fit(again, digits(60), task=TASK, steps=4, batch_size=20, keep="last", log=None)
    assert all(np.array_equal(at_4[n], p) for n, p in again.params.items())
    further = model()
    train.fit(further, digits(60), task=TASK, steps=5, batch_size=20, keep="last", log=None)
    assert all(np.array_equal(m.params[n], p) for n, p in further.params.items()), "the arrays are as before step 6"
    assert all(torch.isfinite(torch.from_numpy(p)).all() for p in m.params.values())


def test_a_place_that_holds_something_else_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    lines: list[str] = []
    with pytest.raises(SpecError, match="holds 'notes.txt'; expected an empty directory"):
        train.fit(
            train.Model(run, start()), digits(60), task=train.Classification(10), state=tmp_path, log=lines.append
        )
    assert not any(line.startswith("epoch") for line in lines) and (tmp_path / "notes.txt").read_text() == "mine"

"""Options of the training commands that are out of range, or say nothing of the data: one line each, before training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.train import tiny_texts
from weighttools import train
from weighttools.errors import SpecError


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    shapes = {"fc1.weight": (8, 3), "fc1.bias": (8,), "fc2.weight": (2, 8), "fc2.bias": (2,)}
    save_file({n: rng.normal(0, 0.5, s).astype(np.float32) for n, s in shapes.items()}, tmp_path / "mlp.safetensors")
    return tmp_path / "mlp.safetensors"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = np.random.default_rng(1).normal(size=(12, 3))
    lines = [f"{a},{b},{c},{int(a > b)}" for a, b, c in rows]
    (tmp_path / "t.csv").write_text("a,b,c,y\n" + "\n".join(lines) + "\n")
    return tmp_path / "t.csv"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_texts.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "reviews.jsonl"
    path.write_text("".join(json.dumps({"text": f"a {w} film", "label": w}) + "\n" for w in ("good", "bad") * 4))
    return path


OF_TABLES = {
    "--focal -1": "--focal -1.0 is out of range; expected a number, 0 or more",
    "--focal nan": "--focal nan is out of range",
    "--optimizer sgd --momentum 2": "--momentum 2.0 is out of range; expected a number, 0 or more, below 1",
    "--optimizer sgd --momentum -0.5": "momentum -0.5",
    "--label-smoothing 1": "--label-smoothing 1.0 is out of range",
    "--label-smoothing 0.1 --task regress --label-column a": "--label-smoothing with --task regress",
    "--lr -1": "--lr -1.0 is out of range",
    "--lr nan": "--lr nan is out of range",
    "--weight-decay -0.1": "--weight-decay -0.1 is out of range",
    "--l1 -1": "--l1 -1.0 is out of range; expected a number, 0 or more",
    "--l1 inf": "--l1 inf is out of range",
    "--layer-decay 0": "--layer-decay 0.0 is out of range; expected a number above 0, at most 1",
    "--layer-decay nan": "--layer-decay nan is out of range",
    "--layer-decay 0.9": "--layer-decay: no layer has a number in its name; leave it out",
    "--warmup -1": "--warmup -1.0 is out of range",
    "--warmup 1.5": "a warm-up of 1.5 updates; expected a whole number up to ",
    "--warmup 9 --steps 8": "a warm-up of 9 updates; expected a whole number up to 8, which there are",
    "--warmup inf": "--warmup inf is out of range",
    "--clip-norm -1": "--clip-norm -1.0 is out of range",
    "--seed -1": "seed -1",
    "--ema 1": "--ema 1.0 is out of range; expected a number, 0 or more, below 1",
    "--prune 1": "--prune 1.0 is out of range; expected a number above 0, below 1",
    "--max-length 8": "--max-length says nothing of a table; expected it with texts with labels or a language model's",
    "--text-column a": "--text-column says nothing of a table",
    "--pair-column a": "--pair-column says nothing",
    "--prompt-column a": "--prompt-column says nothing",
    "--completion-column a": "--completion-column says nothing",
    "--tokenizer t": "--tokenizer says nothing",
    "--block 8": "--block says nothing",
    "--pooling mean": "--pooling is for a new head of a model of texts",
    "--steps 2 --epochs 3": "--steps and --epochs exclude each other",
    "--every 3": "--every goes with --state",
    "--monitor=": "--monitor is empty",
    "--class-weight 0=1,0=9": "--class-weight 0 is given twice",
    "--feature-column a --feature-column a": "--feature-column a is given twice",
}
OF_TEXTS = {
    "--feature-column a": "--feature-column says nothing of texts with labels; expected it with a table",
    "--standardize": "--standardize says nothing of texts",
    "--block 8": "--block says nothing of texts",
    "--dropout 2": "dropout",
    "--dropout -1": "dropout",
}


@pytest.mark.parametrize("given", OF_TABLES)
def test_options_of_a_table(inside, mlp: Path, table: Path, tmp_path: Path, given: str) -> None:
    column = () if "--label-column" in given else ("--label-column", "y")
    ran = inside("finetune", mlp, "--data", table, *column, *given.split(), "-o", tmp_path / "out.safetensors")
    assert ran.code == 2 and OF_TABLES[given] in ran.err and ran.err.count("\n") == 1, ran.err
    assert "epoch 1" not in ran.out and not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("given", OF_TEXTS)
def test_options_of_texts(inside, bert: Path, reviews: Path, tmp_path: Path, given: str) -> None:
    ran = inside("finetune", bert, "--data", reviews, *given.split(), "-o", tmp_path / "out")
    assert ran.code == 2 and OF_TEXTS[given] in ran.err and ran.err.count("\n") == 1, ran.err
    assert "epoch 1" not in ran.out and not (tmp_path / "out").exists()


def test_arrays_have_no_columns(inside, mlp: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 3), np.float32), y=np.array([0, 1, 0, 1]))
    for command in (("finetune", "-o", tmp_path / "out.safetensors"), ("evaluate",)):
        ran = inside(command[0], mlp, "--data", tmp_path / "d.npz", "--label-column", "y", *command[1:])
        assert ran.code == 2 and "--label-column says nothing of the arrays of an .npz" in ran.err, ran.err


def test_evaluate_exits_1_where_a_figure_is_not_finite(inside, mlp: Path, table: Path, tmp_path: Path) -> None:
    args = ("--data", table, "--label-column", "y")
    assert inside("evaluate", mlp, *args).code == 0
    arrays = load_file(mlp)
    arrays["fc1.weight"][0, 0] = np.nan
    save_file(arrays, tmp_path / "nan.safetensors")
    ran = inside("evaluate", tmp_path / "nan.safetensors", *args)
    assert ran.code == 1 and "not finite: loss" in ran.err and "weighttools check" in ran.err, ran.err
    ran = inside("evaluate", tmp_path / "nan.safetensors", *args, "--json")
    assert ran.code == 1 and json.loads(ran.out)["metrics"]["loss"] is None


OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "beta1 1": (train.optim.adamw, {"betas": (1.0, 0.9)}),
    "beta2 -0.1": (train.optim.adam, {"betas": (0.9, -0.1)}),
    "beta2 1.5": (train.optim.lion, {"betas": (0.9, 1.5)}),
    "eps -1": (train.optim.adam, {"eps": -1.0}),
    "weight decay -1": (train.optim.adamw, {"weight_decay": -1.0}),
    "learning rate nan": (train.optim.sgd, {"lr": float("nan")}),
    "momentum 1": (train.optim.muon, {"momentum": 1.0}),
    "alpha 2": (train.optim.rmsprop, {"alpha": 2.0}),
    "l2 -1": (train.optim.sgd, {"l2": -1.0}),
    "proximal l1 -1": (train.optim.sgd, {"proximal_l1": -1.0}),
    "learning rate 'fast'": (train.optim.sgd, {"lr": "fast"}),
}


@pytest.mark.parametrize("said", OPTIMIZERS)
def test_optimisers_refuse_what_is_out_of_range(said: str) -> None:
    make, options = OPTIMIZERS[said]
    with pytest.raises(SpecError, match=said):
        make(**options)


def test_many_masks_are_told_in_one_line(mlp: Path) -> None:
    p = {f"{i}.weight": np.ones((2, 2), np.float32) for i in range(9)}
    masks = {name: np.array([[True, False], [True, True]]) for name in p}
    data = train.data.arrays(np.ones((4, 2), np.float32), np.zeros((4, 2), np.float32))

    def run(p: Any, batch: Any) -> Any:
        x = batch["inputs"]
        for name in p:
            x = train.ops.linear(x, p[name])
        return x

    lines: list[str] = []
    result = train.fit(train.Model(run, p), data, task=train.Regression(), masks=masks, log=lines.append)
    assert "held at zero: 9 of 36 in 9 tensors" in lines and sum("held at zero" in line for line in lines) == 1
    assert any(line.startswith("1 update of 1 x 32 samples") for line in lines)
    assert repr(result).startswith("Result(all steps are done; ") and len(repr(result)) < 200

"""finetune, evaluate and generate in Python do what the commands do: same bits, notes, protection, state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import weighttools as wt
from tests.train import tiny_texts
from weighttools.errors import SourceError, SpecError
from weighttools.verbs.training import tuning


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    shapes = {"fc1.weight": (8, 3), "fc1.bias": (8,), "fc2.weight": (2, 8), "fc2.bias": (2,)}
    save_file({n: rng.normal(0, 0.5, s).astype(np.float32) for n, s in shapes.items()}, tmp_path / "mlp.safetensors")
    return tmp_path / "mlp.safetensors"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = np.random.default_rng(1).normal(size=(40, 3))
    lines = [f"{a},{b},{c},{int(a > b)}" for a, b, c in rows]
    (tmp_path / "t.csv").write_text("a,b,c,y\n" + "\n".join(lines) + "\n")
    return tmp_path / "t.csv"


def bits(path: Path) -> dict[str, bytes]:
    with np.load(path) as archive:
        return {name: archive[name].tobytes() for name in archive.files}


def test_finetune_writes_what_the_command_writes(inside, mlp: Path, table: Path, tmp_path: Path) -> None:
    args = ("--label-column", "y", "--validation", "0.2", "--clip-norm", "0", "--ema", "0.9", "--json")
    ran = inside("finetune", mlp, "--data", table, *args, "--history", tmp_path / "a.csv", "-o", tmp_path / "a.npz")
    assert ran.code == 0, ran.err
    lines: list[object] = []
    record = wt.finetune(
        mlp, tmp_path / "b.npz", table, label_column="y", validation=0.2, clip_norm=0, ema=0.9,
        history=tmp_path / "b.csv", log=lines.append,
    )  # fmt: skip
    theirs = json.loads(ran.out)
    same = {key: value for key, value in theirs.items() if key not in ("dst", "files", "epochs")}
    assert {key: record[key] for key in same} == same
    assert set(record) == set(theirs) and len(record["epochs"]) == 3 and any("epoch 1" in str(line) for line in lines)
    assert bits(tmp_path / "a.npz") == bits(tmp_path / "b.npz")
    assert (tmp_path / "b.csv").read_text().splitlines()[0] == (tmp_path / "a.csv").read_text().splitlines()[0]


def test_what_is_read_is_protected(mlp: Path, table: Path) -> None:
    for dst in (table, mlp):
        before = dst.read_bytes()
        with pytest.raises(SourceError, match="exists already"):
            wt.finetune(mlp, dst, table, label_column="y", format="safetensors")
        assert dst.read_bytes() == before
    with pytest.raises(SpecError, match="is read too"):
        wt.finetune(mlp, table, table, label_column="y", format="safetensors", force=True)


def test_an_open_map_and_masks_are_taken(mlp: Path, table: Path, tmp_path: Path) -> None:
    masks = {"fc1.weight": np.arange(24).reshape(8, 3) % 2 == 0}
    how: dict[str, Any] = {"label_column": "y", "steps": 3, "masks": masks}
    record = wt.finetune(wt.open(mlp), tmp_path / "x.safetensors", str(table), **how)
    assert not load_file(tmp_path / "x.safetensors")["fc1.weight"][~masks["fc1.weight"]].any()
    assert record["schema"] == "weighttools.finetune/1" and "loss" in record["metrics"]


def test_a_dry_run_tells_and_trains_nothing(mlp: Path, table: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tuning, "tune", lambda *args: pytest.fail("trained"))
    record = wt.finetune(mlp, tmp_path / "x.npz", table, label_column="y", dry_run=True)
    assert (record["written"], record["n_samples"], record["n_steps"]) == (False, 40, 6)
    assert not (tmp_path / "x.npz").exists()


def test_an_interruption_says_where_it_can_go_on(mlp: Path, table: Path, tmp_path: Path, monkeypatch) -> None:
    from weighttools.train.fitting import loop

    calls, update = iter(range(3)), loop.update

    def interrupted(*args: Any) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        update(*args)

    how: dict[str, Any] = {"label_column": "y", "state": tmp_path / "state", "every": 1, "schedule": "constant"}
    with monkeypatch.context() as patched:
        patched.setattr(loop, "update", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            wt.finetune(mlp, tmp_path / "x.npz", table, **how)
    assert "the last good state is" in caught.value.__notes__[0] and "with resume" in caught.value.__notes__[0]
    wt.finetune(mlp, tmp_path / "x.npz", table, **how, resume=True)
    wt.finetune(mlp, tmp_path / "y.npz", table, label_column="y", schedule="constant")
    assert bits(tmp_path / "x.npz") == bits(tmp_path / "y.npz")


def test_errors_name_parameters(mlp: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npz"
    cases: dict[str, dict[str, Any]] = {
        "^lr -1 is out of range": {"lr": -1},
        "^steps and epochs exclude each other": {"steps": 2, "epochs": 3},
        "^every goes with state": {"every": 3},
        "^block says nothing of a table": {"block": 8},
        "^feature_columns a is given twice": {"feature_columns": ["a", "a"]},
        "^lora_targets goes with lora": {"lora_targets": ["x"]},
        "^merge goes with lora": {"merge": True},
        "^sampler 'best' is not known": {"sampler": "best"},
    }
    for said, given in cases.items():
        with pytest.raises(SpecError, match=said):
            wt.finetune(mlp, out, table, label_column="y", **given)
    with pytest.raises(TypeError, match="no parameter 'epoch'; did you mean epochs"):
        wt.finetune(mlp, out, table, epoch=3)  # type: ignore[call-arg]
    assert not out.exists()


def test_the_old_name_of_state_works_and_says_so(inside, mlp: Path, table: Path, tmp_path: Path) -> None:
    args = ("--data", table, "--label-column", "y", "--checkpoint", tmp_path / "s", "-o", tmp_path / "x.npz")
    ran = inside("finetune", mlp, *args)
    assert ran.code == 0 and "--checkpoint is now called --state" in ran.err and (tmp_path / "s/training.json").exists()
    assert inside("finetune", mlp, *args, "--state", tmp_path / "t").code == 2
    assert "--checkpoint" not in inside("finetune", "--help").out


def test_evaluate_gives_the_command_s_record(inside, mlp: Path, table: Path) -> None:
    ran = inside("evaluate", mlp, "--data", table, "--label-column", "y", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == wt.evaluate(mlp, table, label_column="y")
    logits = {n: a.astype(np.float64) for n, a in load_file(mlp).items()}
    rows = np.loadtxt(table, delimiter=",", skiprows=1)
    hidden = np.maximum(rows[:, :3] @ logits["fc1.weight"].T + logits["fc1.bias"], 0)
    given = (hidden @ logits["fc2.weight"].T + logits["fc2.bias"]).argmax(1)
    assert wt.evaluate(wt.open(mlp), table, label_column="y")["metrics"]["accuracy"] == np.mean(given == rows[:, 3])


def test_predict_gives_what_the_weights_give(mlp: Path, table: Path, tmp_path: Path) -> None:
    p = {n: a.astype(np.float64) for n, a in load_file(mlp).items()}
    rows = np.loadtxt(table, delimiter=",", skiprows=1)
    z = np.maximum(rows[:, :3] @ p["fc1.weight"].T + p["fc1.bias"], 0) @ p["fc2.weight"].T + p["fc2.bias"]
    expected = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    found = wt.predict(mlp, table, label_column="y")
    assert (found["schema"], found["task"], found["classes"]) == ("weighttools.predict/1", "classify", ["0", "1"])
    told = [[row["probabilities"]["0"], row["probabilities"]["1"]] for row in found["predictions"]]
    assert np.allclose(told, expected, atol=1e-6)
    assert [row["label"] for row in found["predictions"]] == [str(k) for k in z.argmax(1)]
    bare = tmp_path / "bare.csv"
    bare.write_text("\n".join(line.rpartition(",")[0] for line in table.read_text().splitlines()))
    assert wt.predict(wt.open(mlp), bare)["predictions"] == found["predictions"], "no label is needed"
    assert wt.predict(mlp, table)["predictions"] == found["predictions"], "a label by its usual name is no feature"
    with pytest.raises(SpecError, match="name them with feature_columns"):
        wt.predict(mlp, table, feature_columns=["a", "b"])


def test_predict_gives_what_transformers_gives(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base, data = tiny_texts.bert(tmp_path / "bert"), tmp_path / "d.jsonl"
    texts = ["a good film", "a bad film", "a film", "good good bad"]
    labels = ["good", "bad", "bad", "good"]
    data.write_text("".join(json.dumps({"text": t, "label": k}) + "\n" for t, k in zip(texts, labels, strict=True)))
    wt.finetune(base, tmp_path / "tuned", data, steps=3, lr=1e-2)
    unlabelled = tmp_path / "u.jsonl"
    unlabelled.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    found = wt.predict(tmp_path / "tuned", unlabelled, batch_size=3)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned").eval()
    known = AutoTokenizer.from_pretrained(tmp_path / "tuned")
    with torch.no_grad():
        theirs = model(**known(texts, padding=True, return_tensors="pt")).logits.softmax(-1).numpy()
    names = [model.config.id2label[i] for i in range(2)]
    assert found["classes"] == names
    told = [[row["probabilities"][name] for name in names] for row in found["predictions"]]
    assert np.allclose(told, theirs, atol=1e-5)
    with pytest.raises(SpecError, match="has no head"):
        wt.predict(base, unlabelled)


def test_generate_gives_the_command_s_text(inside, tmp_path: Path) -> None:
    home = tiny_texts.llama(tmp_path / "llama")
    ran = inside("generate", home, "-p", "a good film", "-n", "6", "--temperature", "0.8", "--seed", "3", "--json")
    assert ran.code == 0, ran.err
    made = wt.generate(home, "a good film", max_tokens=6, temperature=0.8, seed=3)
    assert json.loads(ran.out)["text"] == str(made) and made.notes == ()
    with pytest.raises(SpecError, match="^top_p and top_k say nothing at temperature 0; give temperature"):
        wt.generate(home, "a", top_k=3)


def test_train_is_reached_from_the_package() -> None:
    assert wt.train.ops.relu(np.float32([-1, 2])).tolist() == [0, 2] and "train" in dir(wt)


@pytest.mark.parametrize(
    "verb", [wt.evaluate, wt.predict, lambda src, data, **how: wt.finetune(src, "out", data, **how)]
)
def test_how_to_open_is_refused_for_what_is_open(verb, tiny) -> None:
    with pytest.raises(wt.WeighttoolsError, match="assume says how to open a checkpoint, and this one is open"):
        verb(wt.open(tiny), "nowhere.csv", assume="bfloat16")

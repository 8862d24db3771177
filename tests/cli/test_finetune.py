"""``weighttools finetune`` and ``evaluate``: what is written, what is said, and what transformers and Keras make of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn import metrics

from tests.conftest import clean_environment
from tests.train import tiny_texts
from weighttools import train

WORDS = ("film", "book", "plot", "end")


def rows(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Sentences whose label is told by one word."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        label = ("bad", "good")[i % 2]
        filler = rng.choice(["it", "is", "was", "the", "a", *WORDS], rng.integers(1, 7)).tolist()
        filler.insert(int(rng.integers(len(filler) + 1)), label)
        found.append({"review": " ".join(filler), "verdict": {"bad": "poor", "good": "fine"}[label]})
    return found


def jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n")
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_texts.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jsonl(tmp_path_factory.mktemp("data") / "reviews.jsonl", rows(160))


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    shapes = {"fc1.weight": (8, 3), "fc1.bias": (8,), "fc2.weight": (3, 8), "fc2.bias": (3,)}
    save_file({n: rng.normal(0, 0.5, s).astype(np.float32) for n, s in shapes.items()}, tmp_path / "mlp.safetensors")
    return tmp_path / "mlp.safetensors"


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Three classes that two of three features tell, of very different scales."""
    rng = np.random.default_rng(1)
    lines = ["length,width,noise,kind"]
    for i in range(120):
        x = [1000 + 300 * (i % 3) + rng.normal(0, 40), 0.01 * (i % 3 == 1) + rng.normal(0, 0.002), rng.normal()]
        lines.append(",".join(map(repr, map(float, x))) + f",{('iris', 'rose', 'tulip')[i % 3]}")
    (tmp_path / "flowers.csv").write_text("\n".join(lines))
    return tmp_path / "flowers.csv"


COLUMNS = ("--text-column", "review", "--label-column", "verdict")


def test_a_classifier_of_texts_from_file_to_file(inside, bert: Path, reviews: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    options = (*COLUMNS, "--validation", "0.25", "--epochs", "6", "--batch-size", "16", "--lr", "5e-3", "--json")
    ran = inside("finetune", bert, "--data", reviews, *options, "-o", out, "--history", tmp_path / "h.csv")
    assert ran.code == 0, ran.err
    record = json.loads(ran.out)
    assert record["classes"] == ["fine", "poor"] and record["n_samples"] == 120 and record["n_steps"] == 48
    assert record["metrics"]["val_accuracy"] >= 0.9 and len(record["epochs"]) == 6
    assert "2 classes: 0 = fine (80), 1 = poor (80)" in ran.err and "decay 0.01" in ran.err
    assert (tmp_path / "h.csv").read_text().splitlines()[0].startswith("epoch,step,lr,loss,val_loss,val_accuracy")
    assert {p.name for p in out.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    with safe_open(out / "model.safetensors", "np") as file:
        assert "classification" in file.metadata()["weighttools.train"]
    measured = json.loads(inside("evaluate", out, "--data", reviews, *COLUMNS, "--json").out)
    _holds_in_transformers(out, reviews, measured)


def _holds_in_transformers(out: Path, reviews: Path, measured: dict[str, Any]) -> None:
    module = transformers.AutoModelForSequenceClassification.from_pretrained(out).eval()
    records = [json.loads(line) for line in reviews.read_text().splitlines()]
    batch = tiny_texts.fast(out)([r["review"] for r in records], padding=True, return_tensors="pt")
    target = torch.tensor([module.config.label2id[r["verdict"]] for r in records])
    with torch.no_grad():
        scores = module(**batch).logits
    assert abs(float(torch.nn.functional.cross_entropy(scores, target)) - measured["metrics"]["loss"]) < 1e-5
    right = (scores.argmax(1) == target).sum().item()
    assert round(measured["metrics"]["accuracy"] * len(records)) == right
    assert sum(measured["confusion"][i][i] for i in range(2)) == right and measured["classes"] == ["fine", "poor"]


def test_numbers_of_texts_and_a_validation_file(inside, bert: Path, tmp_path: Path) -> None:
    data = [{"text": r["review"], "score": 3.5 if "good" in r["review"] else -1.5} for r in rows(80)]
    jsonl(tmp_path / "train.jsonl", data[:60])
    jsonl(tmp_path / "held.jsonl", data[60:])
    ran = inside(
        "finetune", bert, "--data", tmp_path / "train.jsonl", "--validation", tmp_path / "held.jsonl", "--task", "regress",
        "--epochs", "8", "--lr", "1e-2", "--batch-size", "10", "-o", tmp_path / "tuned",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "held.jsonl: 20 texts" in ran.out and "targets from -1.5 to 3.5" in ran.out
    figures = json.loads(inside("evaluate", tmp_path / "tuned", "--data", tmp_path / "held.jsonl", "--json").out)
    assert figures["task"] == "regress" and figures["metrics"]["r2"] > 0.8
    module = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned")
    assert module.config.num_labels == 1 and module.config.problem_type == "regression"


def test_a_dry_run_tells_the_plan_and_writes_nothing(inside, bert: Path, reviews: Path, tmp_path: Path) -> None:
    options = (*COLUMNS, "--freeze", "embeddings.*", "--class-weight", "poor=3", "--accumulate", "2", "--dry-run")
    ran = inside("finetune", bert, "--data", reviews, *options, "-o", tmp_path / "tuned")
    assert ran.code == 0, ran.err
    assert not (tmp_path / "tuned").exists()
    frozen = 19 * 16 + 16 * 16 + 2 * 16 + 2 * 16  # words, positions, types, norm
    total = sum(a.size for a in load_file(bert / "model.safetensors").values()) + 2 * 16 + 2
    assert f"would train {total - frozen:,} of {total:,} parameters for 9 updates on 160 samples" in ran.out
    assert "class 1: 80 samples x 3 = 75.0 % of the loss" in ran.out and "memory: about" in ran.out
    record = json.loads(inside("finetune", bert, "--data", reviews, *options, "-o", tmp_path / "tuned", "--json").out)
    assert record["n_trained"] == total - frozen and not record["written"]
    assert record["state_bytes"] == 8 * (total - frozen) and record["step_peak_bytes"] > 0


def test_frozen_tensors_stay_to_the_bit(inside, bert: Path, reviews: Path, tmp_path: Path) -> None:
    ran = inside(
        "finetune", bert, "--data", reviews, *COLUMNS, "--steps", "2", "--only", "classifier.*", "-o", tmp_path / "t"
    )
    assert ran.code == 0, ran.err
    before, after = load_file(bert / "model.safetensors"), load_file(tmp_path / "t/model.safetensors")
    assert after.keys() - before.keys() == {"classifier.weight", "classifier.bias"}
    assert all(np.array_equal(before[name].view(np.uint8), after[name].view(np.uint8)) for name in before)


def test_a_tables_scaling_goes_with_the_model(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    options = (
        "--label-column",
        "kind",
        "--validation",
        "0.25",
        "--epochs",
        "30",
        "--lr",
        "0.02",
        "--activation",
        "tanh",
    )
    plain = inside("finetune", mlp, "--data", flowers, *options, "-o", tmp_path / "plain.safetensors")
    assert "--standardize brings them to one scale" in plain.out
    out = tmp_path / "tuned.safetensors"
    ran = inside("finetune", mlp, "--data", flowers, *options, "--standardize", "-o", out)
    assert ran.code == 0 and "features are scaled by the rows to learn from" in ran.out, ran.err
    measured = json.loads(inside("evaluate", out, "--data", flowers, "--label-column", "kind", "--json").out)
    assert measured["metrics"]["accuracy"] > 0.95
    with safe_open(out, "np") as file:
        p, said = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    scaling = json.loads(said["weighttools.scaling"])
    table = [line.split(",") for line in flowers.read_text().splitlines()[1:]]
    x = (np.array([row[:3] for row in table], np.float64) - scaling["mean"]) / scaling["scale"]
    scores = np.tanh(x @ p["fc1.weight"].T + p["fc1.bias"]) @ p["fc2.weight"].T + p["fc2.bias"]
    names = np.array(json.loads(said["weighttools.classes"]))
    right = (names[scores.argmax(1)] == np.array([row[3] for row in table])).mean()
    assert names.tolist() == ["iris", "rose", "tulip"] and abs(right - measured["metrics"]["accuracy"]) < 1e-9


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("name", ["net.weights.h5", "net.h5"])
def test_a_tuned_keras_net_is_loaded_by_keras(inside, flowers: Path, tmp_path: Path, name: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)

    def net() -> Any:
        dense = keras.layers.Dense
        return keras.Sequential([keras.Input((3,)), dense(8, activation="tanh"), dense(3, activation="softmax")])

    first = net()
    first.save_weights(tmp_path / name) if "weights" in name else first.save(tmp_path / name)
    said = ("--activation", "tanh") if "weights" in name else ()  # a whole model's file tells it
    options = ("--label-column", "kind", "--standardize", "--epochs", "2", *said)
    ran = inside("finetune", tmp_path / name, "--data", flowers, *options, "-o", tmp_path / f"tuned-{name}")
    assert ran.code == 0, ran.err
    again = net()
    if "weights" in name:
        again.load_weights(tmp_path / f"tuned-{name}")
    else:
        again = keras.models.load_model(tmp_path / f"tuned-{name}", compile=False)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    ours = train.model(tmp_path / f"tuned-{name}")
    theirs = again(x).detach().numpy()
    assert np.abs(train.ops.softmax(ours.run(ours.params, {"inputs": x})) - theirs).max() < 1e-6
    assert np.abs(theirs - first(x).detach().numpy()).max() > 1e-4


def test_arrays_and_masks(inside, mlp: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(40, 3)), y=rng.integers(0, 3, 40), sample_weight=rng.random(40))
    pruned, masks = tmp_path / "pruned.safetensors", tmp_path / "masks.safetensors"
    assert inside("prune", mlp, "--sparsity", "0.5", "-o", pruned, "--mask-out", masks).code == 0
    out = tmp_path / "out.safetensors"
    ran = inside("finetune", pruned, "--data", tmp_path / "d.npz", "--masks", masks, "--lr", "0.1", "-o", out)
    assert ran.code == 0, ran.err
    kept, before, after = load_file(masks), load_file(pruned), load_file(out)
    assert all((after[name][~mask] == 0).all() for name, mask in kept.items())
    assert all((after[name][mask] != before[name][mask]).any() for name, mask in kept.items())


def test_a_language_model_learns_its_text(inside, tmp_path: Path) -> None:
    llama = tiny_texts.llama(tmp_path / "llama")
    (tmp_path / "lines.txt").write_text("the film was good . the plot was very bad . it is the end !\n" * 8)
    before = json.loads(inside("evaluate", llama, "--data", tmp_path / "lines.txt", "--json").out)
    options = ("--epochs", "10", "--lr", "1e-2", "--block", "16", "--batch-size", "2")
    ran = inside("finetune", llama, "--data", tmp_path / "lines.txt", *options, "-o", tmp_path / "tuned")
    assert ran.code == 0, ran.err
    after = json.loads(inside("evaluate", tmp_path / "tuned", "--data", tmp_path / "lines.txt", "--json").out)
    assert before["task"] == "lm" and after["metrics"]["perplexity"] < before["metrics"]["perplexity"] / 4
    module, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tuned", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert set(load_file(tmp_path / "tuned/model.safetensors")) == set(load_file(llama / "model.safetensors"))
    assert module.lm_head.weight.data_ptr() == module.model.embed_tokens.weight.data_ptr()


def test_continuing_is_the_same_to_the_bit(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    def run(name: str, *options: Any) -> dict[str, np.ndarray]:
        args = ("--label-column", "kind", "--standardize", "--schedule", "constant", *options)
        ran = inside("finetune", mlp, "--data", flowers, *args, "-o", tmp_path / name)
        assert ran.code == 0, ran.err
        return load_file(tmp_path / name)

    whole = run("whole.safetensors", "--epochs", "4")
    state = tmp_path / "state"
    run("half.safetensors", "--epochs", "2", "--state", state)
    resumed = run("resumed.safetensors", "--epochs", "4", "--state", state, "--resume")
    assert all(np.array_equal(whole[name].view(np.uint32), resumed[name].view(np.uint32)) for name in whole)


def test_a_tokenizer_from_elsewhere_comes_along(inside, bert: Path, reviews: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare").mkdir(exist_ok=True)
        (tmp_path / "bare" / name).write_bytes((bert / name).read_bytes())
    args = ("finetune", tmp_path / "bare", "--data", reviews, *COLUMNS, "--steps", "1", "-o", tmp_path / "tuned")
    missing = inside(*args)
    assert missing.code == 2 and "has no tokenizer.json" in missing.err and "--tokenizer" in missing.err
    assert inside(*args, "--tokenizer", bert).code == 0
    assert inside("evaluate", tmp_path / "tuned", "--data", reviews, *COLUMNS).code == 0


def links(home: Path, place: Path, to: str) -> Path:
    """Make links in `place`, each to `to` and the name of one of the files of `home`."""
    place.mkdir(parents=True)
    for path in home.iterdir():
        (place / path.name).symlink_to(f"{to}{path.name}")
    return place


@pytest.mark.parametrize("single", [False, True])
def test_a_tokenizer_behind_a_link(inside, bert: Path, reviews: Path, tmp_path: Path, single: bool) -> None:
    """What a cache links to comes along; what lies elsewhere is refused, and with a file in its place left out."""
    cache, name = tmp_path / "models--a--b", "model.safetensors" if single else ""
    shutil.copytree(bert, cache / "blobs")
    places = {
        "cached": links(bert, cache / "snapshots" / "abc", "../../blobs/"),
        "linked": links(bert, tmp_path / "linked", f"{bert}/"),
    }
    wanted = (bert / "tokenizer.json").read_bytes()
    refused = inside("finetune", places["linked"] / name, "--data", reviews, *COLUMNS, "-o", tmp_path / "no")
    assert refused.code == 2 and not (tmp_path / "no").exists()
    assert "linked/config.json: is a link that leaves its directory; expected a file in it; copy it" in refused.err
    (places["linked"] / "config.json").unlink()
    shutil.copy(bert / "config.json", places["linked"])
    tokenizer = {"cached": (), "linked": ("--tokenizer", tmp_path / "named" / "tokenizer.json")}
    (tmp_path / "named").mkdir()
    tokenizer["linked"][1].symlink_to(bert / "tokenizer.json")  # a person may give a link
    without = inside("finetune", places["linked"] / name, "--data", reviews, *COLUMNS, "-o", tmp_path / "no")
    assert without.code == 2 and "tokenizer.json: is a link that leaves its directory; name what" in without.err
    for kind, place in places.items():
        out, options = tmp_path / f"{kind}-out" / "tuned", (*COLUMNS, "--steps", "1", "--json")
        out.parent.mkdir(exist_ok=True)
        ran = inside("finetune", place / name, "--data", reviews, *options, *tokenizer[kind], "-o", out)
        assert ran.code == 0 and (out / "config.json").is_file(), ran.err
        assert ("not taken: tokenizer.json (a link that leaves its directory)" in ran.err) == (kind == "linked")
        assert (out / "tokenizer.json").read_bytes() == wanted


def test_a_tokenizer_whose_directory_was_named_and_that_lies_elsewhere_is_refused(
    inside, bert: Path, reviews: Path, tmp_path: Path
) -> None:
    """The directory was named, not the file that a link in it leads to."""
    place = links(bert, tmp_path / "linked", f"{bert}/")
    (tmp_path / "model").mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copy(bert / name, tmp_path / "model")
    for given, is_copied in ((place, False), (bert, True), (place / "tokenizer.json", True)):
        out = tmp_path / f"tuned-{given.stem}"
        options = (*COLUMNS, "--steps", "1", "--json", "--tokenizer", given)
        ran = inside("finetune", tmp_path / "model", "--data", reviews, *options, "-o", out)
        assert ran.code == (0 if is_copied else 2) and (out / "tokenizer.json").is_file() == is_copied, ran.err
        assert is_copied != ("linked/tokenizer.json: is a link that leaves its directory; name what" in ran.err)


def test_pruning_on_the_way_and_averages(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    options = ("--label-column", "kind", "--standardize", "--epochs", "20", "--prune", "0.5", "--sampler", "weighted")
    ran = inside(
        "finetune", mlp, "--data", flowers, *options, "--class-weight", "balanced", "-o", tmp_path / "p.safetensors"
    )
    assert ran.code == 0, ran.err
    assert [int((a == 0).sum()) for a in load_file(tmp_path / "p.safetensors").values() if a.ndim == 2] == [12, 12]
    ran = inside("finetune", mlp, "--data", flowers, *options[:5], "--ema", "0.9", "-o", tmp_path / "e.safetensors")
    assert ran.code == 0, ran.err
    assert (
        inside("finetune", mlp, "--data", flowers, *options[:5], "--ema", "2", "-o", tmp_path / "x.safetensors").code
        == 2
    )


def test_an_l1_penalty_makes_exact_zeros(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    options = ("--data", flowers, "--label-column", "kind", "--standardize", "--epochs", "20", "--lr", "0.05")
    ran = inside("finetune", mlp, *options, "--l1", "0.2", "--weight-decay", "0", "-o", tmp_path / "thin.safetensors")
    assert ran.code == 0 and "proximal L1 0.2, rate x 1: " in ran.out, ran.err
    plain = inside("finetune", mlp, *options, "-o", tmp_path / "full.safetensors")
    assert plain.code == 0 and "L1" not in plain.out
    zeros = [
        {name: int((array == 0).sum()) for name, array in load_file(tmp_path / file).items()}
        for file in ("thin.safetensors", "full.safetensors")
    ]
    assert zeros[0]["fc1.weight"] > 0 and zeros[0]["fc1.bias"] == 0 and not any(zeros[1].values())


def test_lower_layers_learn_more_slowly(inside, bert: Path, reviews: Path, tmp_path: Path) -> None:
    options = ("--data", reviews, *COLUMNS, "--layer-decay", "0.5")
    planned = inside("finetune", bert, *options, "--dry-run", "-o", tmp_path / "tuned")
    assert planned.code == 0, planned.err
    ran = inside("finetune", bert, *options, "--steps", "1", "-o", tmp_path / "tuned")
    for said in (planned.out, ran.out):
        lines = [line.strip() for line in said.splitlines() if "rate x" in line]
        shares = {line.partition("rate x ")[2].partition(":")[0] for line in lines}
        assert shares == {"1", "0.5", "0.25", "0.125"}  # head, two layers, embeddings
        assert all("embeddings." in line for line in lines if "rate x 0.125" in line)


@pytest.fixture
def houses(tmp_path: Path) -> Path:
    """Prices that two features tell."""
    rng = np.random.default_rng(2)
    rows = [(a, b, 3 * a - b + 0.5) for a, b in rng.normal(size=(60, 2))]
    (tmp_path / "houses.csv").write_text("a,b,price\n" + "\n".join(",".join(map(repr, map(float, r))) for r in rows))
    return tmp_path / "houses.csv"


def test_a_model_of_one_number_and_prices_speak_for_regression(inside, houses: Path, tmp_path: Path) -> None:
    save_file({"w.weight": np.zeros((1, 2), "f4"), "w.bias": np.zeros(1, "f4")}, tmp_path / "line.safetensors")
    args = ("--data", houses, "--label-column", "price")
    options = ("--epochs", "150", "--lr", "0.1", "--weight-decay", "0", "-o", tmp_path / "tuned.safetensors")
    ran = inside("finetune", tmp_path / "line.safetensors", *args, *options)
    assert ran.code == 0 and "targets from" in ran.out, ran.err
    np.testing.assert_allclose(load_file(tmp_path / "tuned.safetensors")["w.weight"], [[3, -1]], atol=0.05)
    record = json.loads(inside("evaluate", tmp_path / "tuned.safetensors", *args, "--json").out)
    assert record["task"] == "regress" and record["metrics"]["r2"] > 0.99
    whole = houses.with_name("whole.csv")
    whole.write_text("a,b,price\n" + "\n".join(f"{i},{-i},{i % 7}" for i in range(30)))
    ran = inside(
        "finetune", tmp_path / "line.safetensors", *args[2:], "--data", whole, "--dry-run", "--force", *options
    )
    assert ran.code == 0 and "targets from 0 to 6" in ran.out
    yes = houses.with_name("yes.csv")
    yes.write_text("a,b,price\n" + "\n".join(f"{i},{-i},{i % 2}" for i in range(30)))
    ran = inside("finetune", tmp_path / "line.safetensors", *args[2:], "--data", yes, "--dry-run", "--force", *options)
    assert ran.code == 0 and "2 classes: 0 = 0 (15), 1 = 1 (15)" in ran.out


def test_amounts_are_no_classes(inside, mlp: Path, houses: Path, tmp_path: Path) -> None:
    args = ("--data", houses, "--label-column", "price", "--feature-column", "a", "--feature-column", "b")
    ran = inside("finetune", mlp, *args, "-o", tmp_path / "x.safetensors")
    assert ran.code == 2 and "houses.csv:2: label 'price' is " in ran.err
    assert "expected an integer or a text; numbers to predict are --task regress" in ran.err


def test_what_a_model_was_trained_for_is_remembered(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    rows = [line.split(",") for line in flowers.read_text().splitlines()]
    numbered = tmp_path / "numbered.csv"
    kinds = {"kind": "kind", "iris": "1", "rose": "2", "tulip": "4"}
    numbered.write_text("\n".join(",".join([*row[:3], kinds[row[3]]]) for row in rows))
    options = ("--label-column", "kind", "--standardize", "--steps", "2", "-o", tmp_path / "n.safetensors")
    assert inside("finetune", mlp, "--data", numbered, *options).code == 0
    args = ("evaluate", tmp_path / "n.safetensors", "--data", numbered, "--label-column", "kind")
    assert json.loads(inside(*args, "--json").out)["classes"] == ["1", "2", "4"]
    ran = inside(*args, "--task", "regress")
    assert ran.code == 2 and ran.err.endswith(
        "the model gives 3 numbers a row, and the data has 1; expected as many; of a classifier's file, --task classify\n"
    )


def test_a_head_that_goes_on_for_other_classes_is_told(inside, bert: Path, reviews: Path, tmp_path: Path) -> None:
    assert inside("finetune", bert, "--data", reviews, *COLUMNS, "--steps", "1", "-o", tmp_path / "a").code == 0
    other = jsonl(tmp_path / "stars.jsonl", [{"review": "a good film", "verdict": n} for n in (1, 5, 1, 5)])
    options = ("--data", other, *COLUMNS, "--steps", "1")
    line = (
        "the head's classes were fine, poor and are now 1, 5: it goes on from its weights; --new-head draws them anew"
    )
    assert line in inside("finetune", tmp_path / "a", *options, "-o", tmp_path / "b").out.splitlines()
    for args in (
        ("--data", reviews, *COLUMNS, "--steps", "1"),
        (*options, "--new-head"),
        (*options, "--pooling", "mean"),
    ):
        ran = inside("finetune", tmp_path / "a", *args, "-o", tmp_path / "c", "--force")
        assert ran.code == 0 and "the head's classes" not in ran.out, ran.err


def test_zeros_of_a_pruned_file_are_held_or_told(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned.safetensors"
    assert inside("prune", mlp, "--sparsity", "0.5", "-o", pruned).code == 0
    args = ("--data", flowers, "--label-column", "kind", "--standardize", "--epochs", "2")
    before = load_file(pruned)["fc1.weight"] == 0
    ran = inside("finetune", pruned, *args, "-o", tmp_path / "filled.safetensors")
    assert "many zeros in 2 tensors (fc1.weight 5" in ran.out and "unless --hold-zeros or --masks" in ran.out
    assert not (load_file(tmp_path / "filled.safetensors")["fc1.weight"][before] == 0).any()
    ran = inside("finetune", pruned, *args, "--hold-zeros", "-o", tmp_path / "held.safetensors")
    assert ran.code == 0 and "many zeros" not in ran.out and "held at zero: " in ran.out
    np.testing.assert_array_equal(load_file(tmp_path / "held.safetensors")["fc1.weight"] == 0, before)
    ran = inside("finetune", mlp, *args, "--hold-zeros", "-o", tmp_path / "x.safetensors")
    assert ran.code == 2 and "--hold-zeros: no trained matrix has 10% of zeros or more; leave it out" in ran.err
    ran = inside("finetune", pruned, *args, "--hold-zeros", "--prune", "0.9", "-o", tmp_path / "x.safetensors")
    assert ran.code == 2 and "--hold-zeros goes without --masks, --prune and --lora" in ran.err


def test_prompts_and_completions_are_known_by_their_names(inside, tmp_path: Path) -> None:
    llama = tiny_texts.llama(tmp_path / "llama")
    data = jsonl(tmp_path / "pairs.jsonl", [{"prompt": "a good", "completion": "film"}] * 4)
    ran = inside("finetune", llama, "--data", data, "--steps", "1", "-o", tmp_path / "out")
    assert ran.code == 0 and "4 prompts, " in ran.out, ran.err


def test_a_picture_of_the_losses(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    args = ("--label-column", "kind", "--steps", "2", "-o", tmp_path / "x.safetensors", "--plot", tmp_path / "x.png")
    assert inside("finetune", mlp, "--data", flowers, *args).code == 0
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--data", "{tmp}/none.csv"], "no such file"),
        (["--data", "{flowers}"], "which column is the label?; expected one of length, width, noise, kind"),
        (["--data", "{flowers}", "--label-column", "sort"], "no column 'sort'"),
        (
            ["--data", "{flowers}", "--label-column", "kind", "--feature-column", "width"],
            "the data has 1 features (width)",
        ),
        (["--data", "{flowers}", "--label-column", "kind", "--task", "regress"], "column 'kind' is 'iris'"),
        (["--data", "{flowers}", "--label-column", "kind", "--task", "lm"], "--task lm needs a model"),
        (["--data", "{flowers}", "--label-column", "kind", "--validation", "1.5"], "a share of 1.5"),
        (["--data", "{flowers}", "--label-column", "kind", "--validation", "{tmp}/v.csv"], "no such file"),
        (["--data", "{flowers}", "--label-column", "kind", "--class-weight", "oak=2"], "a weight for 'oak'"),
        (
            ["--data", "{flowers}", "--label-column", "kind", "--class-weight", "2"],
            "expected balanced, or CLASS=NUMBER",
        ),
        (["--data", "{flowers}", "--label-column", "kind", "--freeze", "*"], "nothing is left to train"),
        (["--data", "{flowers}", "--label-column", "kind", "--freeze", "zz"], "matches no tensor"),
        (["--data", "{flowers}", "--label-column", "kind", "--optimizer", "best"], "no optimizer is called 'best'"),
        (["--data", "{flowers}", "--label-column", "kind", "--schedule", "up"], "no schedule is called 'up'"),
        (
            ["--data", "{flowers}", "--label-column", "kind", "--init", "one", "--new-head"],
            "no initialiser is called 'one'",
        ),
        (["--data", "{flowers}", "--label-column", "kind", "--lr", "-1"], "--lr -1.0 is out of range"),
        (["--data", "{flowers}", "--label-column", "kind", "--history", "{tmp}/h.txt"], "a history is .csv or .json"),
        (
            ["--data", "{flowers}", "--label-column", "kind", "--plot", "{tmp}/none/p.png"],
            "its directory does not exist",
        ),
        (["--data", "{flowers}", "--label-column", "kind", "--resume"], "resume"),
        (["--data", "{flowers}", "--label-column", "kind", "--masks", "{flowers}"], "flowers.csv"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    inside, mlp: Path, flowers: Path, tmp_path: Path, args: list[str], said: str
) -> None:
    filled = [arg.format(tmp=tmp_path, flowers=flowers) for arg in args]
    ran = inside("finetune", mlp, *filled, "-o", tmp_path / "out.safetensors")
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1, ran.err
    assert not (tmp_path / "out.safetensors").exists()


def test_targets_are_checked_before_training(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    args = ("finetune", mlp, "--data", flowers, "--label-column", "kind")
    (tmp_path / "there.safetensors").write_text("x")
    for target, said in (
        ("there.safetensors", "exists already"),
        ("none/x.safetensors", "does not exist"),
        ("x.doc", ".doc"),
    ):
        ran = inside(*args, "-o", tmp_path / target)
        assert ran.code == 2 and said in ran.err and "epoch" not in ran.out, ran.err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
@pytest.mark.parametrize("keeps", [True, False])
def test_who_interrupts_is_told_where_to_go_on(mlp: Path, flowers: Path, tmp_path: Path, keeps: bool) -> None:
    state, out = tmp_path / "state", tmp_path / "out.safetensors"
    args = ("--data", flowers, "--label-column", "kind", "--epochs", "100000", "-o", out)
    more = ("--state", state, "--every", "1") if keeps else ()
    with subprocess.Popen(
        [sys.executable, "-m", "weighttools", "finetune", mlp, *args, *more], env=clean_environment(tmp_path),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (state / "training.json").exists():
            if "epoch 2" in process.stdout.readline():
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and not out.exists()
    [told] = [line for line in err.splitlines() if "interrupted" in line]
    if keeps:
        assert f"the last good state is {state}, after step " in told and "with --resume" in told
    else:
        assert told.endswith("interrupted: nothing is kept without --state")


def test_figures_replace_nothing_unasked(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    out, before = tmp_path / "x.safetensors", flowers.read_bytes()
    args = ("finetune", mlp, "--data", flowers, "--label-column", "kind", "--steps", "2", "-o", out)
    (tmp_path / "h.csv").write_text("mine")
    os.link(flowers, tmp_path / "link.csv")
    masks = tmp_path / "masks.safetensors"
    save_file({name: np.ones(a.shape, bool) for name, a in load_file(mlp).items()}, masks)
    os.link(masks, tmp_path / "masks.csv")
    for options, said in (
        (("--history", tmp_path / "h.csv"), "h.csv: exists already; give --force"),
        (("--history", flowers, "--force"), "flowers.csv: is read too"),
        (("--history", tmp_path / "link.csv", "--force"), "link.csv: is read too"),
        (("--masks", masks, "--history", tmp_path / "masks.csv", "--force"), "masks.csv: is read too"),
        (("--plot", tmp_path / "p.foo"), "p.foo: a plot is .png, .svg or .pdf"),
        (("-o", tmp_path / "same.csv", "--history", tmp_path / "same.csv"), "same.csv: is the output too"),
    ):
        ran = inside(*args, *options)
        assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1 and "epoch" not in ran.out, ran.err
    assert (tmp_path / "h.csv").read_text() == "mine" and flowers.read_bytes() == before and not out.exists()
    assert inside(*args, "--history", tmp_path / "h.csv", "--force").code == 0
    assert (tmp_path / "h.csv").read_text().startswith("epoch,step")


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_history_that_appeared_while_training_is_kept(
    inside, mlp: Path, flowers: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weighttools.verbs.training import tuning

    history, tuned = tmp_path / f"h.{suffix}", tuning.tune
    monkeypatch.setattr(tuning, "tune", lambda *args: (history.write_text("mine"), tuned(*args))[1])
    args = ("finetune", mlp, "--data", flowers, "--label-column", "kind", "--steps", "2", "-o", tmp_path / "x.npz")
    ran = inside(*args, "--history", history)
    assert ran.code == 2 and f"{history}: exists already" in ran.err and history.read_text() == "mine"
    assert inside(*args, "--history", history, "--force").code == 0 and history.read_text() != "mine"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("-o {tmp}/d.csv --to safetensors --data {tmp}/d.csv", "d.csv: is read too"),
        ("-o {tmp}/v.csv --to safetensors --validation {tmp}/v.csv", "v.csv: is read too"),
        ("-o {tmp}/m/config.json --to safetensors", "config.json: is read too"),
        ("-o {tmp}/q --data {tmp}/q/config.json", "config.json: is read too"),
        ("-o {tmp}/o --state {tmp}/file", "file: is a file; expected a directory"),
        ("-o {tmp}/o --state /dev/null", "/dev/null: is a file; expected a directory"),
        ("-o {tmp}/o --state {tmp}/full", "full: holds 'notes'"),
        ("-o {tmp}/o --state {tmp}/none/state", "does not exist"),
        ("-o {tmp}/state --state {tmp}/state", "state: is the output too"),
        ("-o {tmp}/state/x.safetensors --state {tmp}/state", "x.safetensors: lies in the state"),
        ("-o {tmp}/state/x --state {tmp}/state", "state/x: lies in the state"),
        ("-o {tmp}/q --state {tmp}/q/state", "q/state: lies in the output"),
        ("-o {tmp}/o --state {tmp}/state --history {tmp}/state/training.json", "training.json: lies in the state"),
        ("-o {tmp}/q --history {tmp}/q/config.json", "config.json: is written by the output too"),
        ("-o {tmp}/q --history {tmp}/q/tokenizer.json", "tokenizer.json: is written by the output too"),
        ("-o /dev/null", "/dev/null: is a file; expected a directory"),
        ("-o /dev/null --to safetensors", "is not a regular file"),
        ("-o {tmp}/o --plot {tmp}/p.png --history {tmp}/h.csv --state {tmp}/h.csv", "h.csv: is the history too"),
    ],
)
def test_what_would_be_lost_or_could_not_be_written_is_refused_before_training(
    inside, bert: Path, reviews: Path, tmp_path: Path, given: str, said: str
) -> None:
    shutil.copytree(bert, tmp_path / "m")
    for name in ("d.csv", "v.csv"):
        records = [json.loads(line) for line in reviews.read_text().splitlines()]
        (tmp_path / name).write_text("review,verdict\n" + "".join(f"{r['review']},{r['verdict']}\n" for r in records))
    for name in ("full", "state", "q"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "notes").touch()
    (tmp_path / "file").touch()
    (tmp_path / "q" / "config.json").write_text(json.dumps(rows(20)))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    args = ("--data", reviews, *COLUMNS, "--steps", "1", "--force", *given.format(tmp=tmp_path).split())
    ran = inside("finetune", tmp_path / "m", *args)
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1, ran.err
    assert "epoch" not in ran.out
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_tuning_in_place_keeps_what_is_not_of_the_model(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    home = tmp_path / "q"
    home.mkdir()
    for name in ("in.safetensors", "other_model.safetensors", "model.safetensors"):
        shutil.copy(mlp, home / name)
    (home / "x.safetensors").write_text("keep")
    args = ("--data", flowers, "--label-column", "kind", "--steps", "1", "-o", home, "--force")
    for source in (home / "in.safetensors", home, home / "model.safetensors"):
        assert inside("finetune", source, *args).code == 0
        assert (home / "in.safetensors").read_bytes() == (home / "other_model.safetensors").read_bytes()
        assert (home / "in.safetensors").read_bytes() == mlp.read_bytes()
        assert {path.name for path in home.iterdir()} == {
            "in.safetensors", "other_model.safetensors", "model.safetensors", "x.safetensors",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("findfont: no font\nat all"), "findfont: no font"),
        (ValueError(), "ValueError"),
        (KeyError("agg"), "'agg'"),
    ],
)
def test_a_plot_that_fails_leaves_the_weights(
    inside, mlp: Path, flowers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    out, history, there = tmp_path / "x.safetensors", tmp_path / "h.json", []

    def fails(*args: Any, **options: Any) -> None:
        there.append(out.is_file() and history.is_file())
        raise error

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fails)
    options = ("--label-column", "kind", "--steps", "2", "-o", out, "--history", history, "--plot", tmp_path / "p.png")
    ran = inside("finetune", mlp, "--data", flowers, *options)
    line = f"weighttools: {tmp_path / 'p.png'}: the plot cannot be drawn: matplotlib says {said}; all else is as it"
    assert ran.code == 2 and ran.err.startswith(line) and ran.err.count("\n") == 1 and "wrote" in ran.out
    assert set(load_file(out)) == set(load_file(mlp)) and there == [True]


def test_a_matplotlib_that_is_not_there_is_said_before_training(
    inside, mlp: Path, flowers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.safetensors"
    args = ("finetune", mlp, "--data", flowers, "--label-column", "kind", "-o", out, "--plot", tmp_path / "p.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ran = inside(*args)
    assert ran.code == 2 and "plotting needs matplotlib" in ran.err and "pip install '.[plot]'" in ran.err
    assert ran.err.count("\n") == 1 and not out.exists() and "epoch" not in ran.out


def test_a_model_without_a_head_is_not_evaluated(inside, bert: Path, reviews: Path) -> None:
    ran = inside("evaluate", bert, "--data", reviews, *COLUMNS)
    assert ran.code == 2 and "has no head" in ran.err and "finetune" in ran.err


def test_divergence_is_said_and_overflow_writes_nothing(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    args = ("finetune", mlp, "--data", flowers, "--label-column", "kind", "--steps", "3", "--clip-norm", "0")
    ran = inside(*args, "--standardize", "--lr", "1e6", "-o", tmp_path / "far.safetensors")
    assert ran.code == 0 and "training diverged; give a lower --lr" in ran.err
    ran = inside(*args, "--standardize", "--lr", "1e39", "-o", tmp_path / "never.safetensors")
    assert ran.code == 2 and ran.err.count("\n") == 1 and not (tmp_path / "never.safetensors").exists()


def test_an_adapter_merged_beyond_its_dtype_is_told(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    half, out = tmp_path / "half.safetensors", tmp_path / "merged.safetensors"
    save_file({name: a.astype(np.float16) for name, a in load_file(mlp).items()}, half)
    args = ("--label-column", "kind", "--standardize", "--steps", "3", "--lr", "1e4", "--lora", "r=2", "--merge",
            "--lora-targets", "all-linear")  # fmt: skip
    ran = inside("finetune", half, "--data", flowers, *args, "-o", out)
    assert ran.code == 0, ran.err
    n_inf = {name: int(np.isinf(a).sum()) for name, a in load_file(out).items()}
    first, n_tensors = next(name for name, n in n_inf.items() if n), sum(map(bool, n_inf.values()))
    tensors = f"{n_tensors} changed tensor{'s' * (n_tensors != 1)}"
    line = (
        f"not finite: {sum(n_inf.values())} elements in {tensors} (0 NaN, {sum(n_inf.values())} Inf), first in {first}"
    )
    assert f"weighttools: note: {line}\n" in ran.err


def positions(path: Path, kind: str) -> tuple[Path, int]:
    """A model with a table of positions and a tokenizer that cuts nowhere; and the most tokens that it takes."""
    path.mkdir()
    torch.manual_seed(0)
    size = {"vocab_size": len(tiny_texts.BERT), "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    size |= {"intermediate_size": 16, "max_position_embeddings": 20}
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=len(tiny_texts.BERT),
            n_embd=16,
            n_layer=1,
            n_head=2,
            n_positions=20,
            bos_token_id=2,
            eos_token_id=3,
        )
        transformers.GPT2LMHeadModel(config).save_pretrained(path)
    elif kind == "roberta":
        transformers.RobertaModel(transformers.RobertaConfig(**size, pad_token_id=1)).save_pretrained(path)
    elif kind == "distilbert":
        small = {"vocab_size": len(tiny_texts.BERT), "dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 16}
        config = transformers.DistilBertConfig(**small, max_position_embeddings=20)
        transformers.DistilBertModel(config).save_pretrained(path)
    else:
        transformers.BertModel(transformers.BertConfig(**size)).save_pretrained(path)
    found = tiny_texts.tokenizer(tiny_texts.BERT, {}, "$A", "$A $B")
    found.save(str(path / "tokenizer.json"))
    return path, 20 - 2 * (kind == "roberta")


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "gpt2"])
def test_more_tokens_than_positions_are_refused_at_the_start(inside, tmp_path: Path, kind: str) -> None:
    path, most = positions(tmp_path / kind, kind)
    data = jsonl(tmp_path / "long.jsonl", [{"text": "good film " * 20, "label": k} for k in ("x", "y")])
    fits = jsonl(tmp_path / "fits.jsonl", [{"text": "good film", "label": k} for k in ("x", "y")])
    args = ("finetune", path, "--steps", "1", "-o", tmp_path / "out", "--task", "classify")
    line = (
        f"--max-length {most + 1}; the model has positions for {most} tokens (max_position_embeddings); expected {most}"
    )
    for source in (data, tmp_path / "nowhere.jsonl"):  # it is said before the data is looked at
        ran = inside(*args, "--data", source, "--max-length", most + 1)
        assert ran.code == 2 and ran.err == f"weighttools: {line} or less\n" and not (tmp_path / "out").exists()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "tokenizer.json").write_bytes((path / "tokenizer.json").read_bytes())
    line = (
        f"a text of 40 tokens; the model has positions for {most} (max_position_embeddings); --max-length {most} cuts"
    )
    for sources in (("--data", data), ("--data", fits, "--validation", data)):
        ran = inside(*args, *sources, "--tokenizer", elsewhere)
        assert ran.code == 2 and ran.err.splitlines()[-1] == f"weighttools: {line} texts", ran.err
    ran = inside(*args, "--data", data, "--max-length", most)
    assert ran.code == 0 and f"2 cut to {most}" in ran.out, ran.err
    assert inside("evaluate", tmp_path / "out", "--data", data, "--max-length", most).code == 0
    ran = inside("evaluate", tmp_path / "out", "--data", data, "--max-length", most + 1)
    assert ran.code == 2 and "the model has positions for" in ran.err


def test_rotary_positions_have_no_end(inside, tmp_path: Path) -> None:
    path = tiny_texts.llama(tmp_path / "llama")
    data = jsonl(tmp_path / "long.jsonl", [{"text": "good film " * 20, "label": k} for k in ("x", "y")])
    ran = inside("finetune", path, "--data", data, "--steps", "1", "--max-length", "36", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err


def test_evaluate_weights_every_figure_and_says_so(inside, mlp: Path, flowers: Path, tmp_path: Path) -> None:
    lines = flowers.read_text().splitlines()
    weight = np.random.default_rng(3).uniform(0, 3, len(lines) - 1).astype(np.float32)
    text = "\n".join(f"{line},{w}" for line, w in zip(lines, ["importance", *weight], strict=True))
    for i, kind in enumerate(("iris", "rose", "tulip")):
        text = text.replace(kind, str(i))
    (tmp_path / "weighted.csv").write_text(text)
    options = ("--data", tmp_path / "weighted.csv", "--label-column", "kind", "--weight-column", "importance")
    found = json.loads(inside("evaluate", mlp, *options, "--task", "classify", "--json").out)
    x = np.array([line.split(",")[:3] for line in lines[1:]], np.float32)
    y = np.array([("iris", "rose", "tulip").index(line.split(",")[3]) for line in lines[1:]])
    m = train.model(mlp)
    given = train.predict(m, x).argmax(1)
    theirs = metrics.confusion_matrix(y, given, labels=range(3), sample_weight=weight)
    np.testing.assert_allclose(found["confusion"], theirs, rtol=1e-5)
    assert found["weighted_by"] == "importance"
    accuracy = metrics.accuracy_score(y, given, sample_weight=weight)
    assert found["metrics"]["accuracy"] == pytest.approx(accuracy, rel=1e-5)
    told = inside("evaluate", mlp, *options, "--task", "classify").out
    assert "value weighted by importance" in told and f"{theirs[0, given[0]]:.4g}" in told


def test_an_adapter_needs_no_config_json_and_none_is_asked_for(inside, tmp_path: Path) -> None:
    llama = tiny_texts.llama(tmp_path / "llama")
    (tmp_path / "lines.txt").write_text("the film was good . the plot was very bad . it is the end !\n" * 4)
    options = ("--epochs", "1", "--block", "16", "--lora", "r=2")
    ran = inside("finetune", llama, "--data", tmp_path / "lines.txt", *options, "-o", tmp_path / "adapter")
    assert ran.code == 0 and "config.json beside" not in ran.err, ran.err
    assert not (tmp_path / "adapter" / "config.json").exists()
    rng = np.random.default_rng(0)
    save_file({"q_proj.weight": rng.normal(size=(3, 3)).astype(np.float32)}, tmp_path / "alone.safetensors")
    ran = inside("convert", tmp_path / "alone.safetensors", str(tmp_path / "whole") + "/")
    assert ran.code == 0 and "there is no config.json beside" in ran.err

"""Which samples come when, and a history that tells what happened."""

from __future__ import annotations

import csv
import errno
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.io.faults import Fault, os_error
from tests.train.digits import digits, model
from weighttools import train
from weighttools.errors import SourceError, SpecError
from weighttools.train.fitting import feeding

TASK = train.Classification(10)


def numbered(n: int) -> Any:
    return train.data.arrays(np.arange(n, dtype=np.float64)[:, None], np.arange(n) % 3)


def samples(feed: Any, epoch: int, start: int = 0) -> list[list[int]]:
    return [batch["inputs"][:, 0].astype(int).tolist() for batch in feed.batches(epoch, start)]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**63), st.integers(0, 5), st.integers(0, 8))
def test_an_epoch_is_a_permutation_and_can_be_entered_anywhere(
    n: int, size: int, seed: int, epoch: int, start: int
) -> None:
    feed = feeding.feed(numbered(n), size, seed)
    whole = samples(feed, epoch)
    assert sorted(i for batch in whole for i in batch) == list(range(n)) and len(whole) == feed.n_batches
    assert all(len(batch) == size for batch in whole[:-1])
    assert samples(feed, epoch, start) == whole[start:]


def test_every_sample_comes_at_every_place() -> None:
    first = [samples(feeding.feed(numbered(6), 6, seed), epoch)[0][0] for seed in range(60) for epoch in range(10)]
    counts = np.bincount(first, minlength=6)
    assert ((counts - 100) ** 2 / 100).sum() < 20.5  # chi-squared of 5 degrees of freedom: one in a thousand


@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), st.floats(0.05, 0.95), st.integers(0, 99))
def test_a_stratified_split_takes_each_label_by_its_share(y: list[int], share: float, seed: int) -> None:
    labels, n = np.array(y), len(y)
    data = train.data.arrays(np.arange(n, dtype=float)[:, None], labels)
    if not 0 < round(n * share) < n:
        with pytest.raises(SpecError, match="on both sides"):
            feeding.split(data, share, seed, labels)
        return
    training, held_out = feeding.split(data, share, seed, labels)
    assert sorted([*training.indices, *held_out.indices]) == list(range(n))
    assert (labels[held_out.indices] == held_out.column("target")).all()
    for label in set(y):
        total, taken = y.count(label), int((labels[held_out.indices] == label).sum())
        assert taken <= total - 1, "one of each label at least is left to learn from"
        assert taken >= min(int(np.floor(total * round(n * share) / n)), total - 1)
    singles = sum(y.count(label) == 1 for label in set(y))
    assert len(held_out) == min(round(n * share), n - len(set(y))) or singles


def test_a_split_depends_on_the_seed_alone() -> None:
    data = numbered(50)
    a, b, c = (feeding.split(data, 0.3, seed)[1].indices.tolist() for seed in (1, 1, 2))
    assert a == b != c and len(a) == 15


class Ragged:
    """Data without columns, whose targets differ in length from batch to batch."""

    def __len__(self) -> int:
        return 300

    def batch(self, indices: np.ndarray) -> train.data.Batch:
        return {"ids": indices[:, None], "target": np.tile(indices[:, None], (1, int(indices[0] > 0) + 1))}


def test_columns_are_gathered_where_data_have_none() -> None:
    x, y = digits()

    class Bare:
        def __len__(self) -> int:
            return len(y)

        def batch(self, indices: np.ndarray) -> train.data.Batch:
            return {"inputs": x[indices], "target": y[indices]}

    assert (feeding.column(Bare(), "target") == y).all() and feeding.column(Bare(), "sample_weight") is None
    assert feeding.column(Ragged(), "target").shape == (256 + 2 * 44,)
    results = [
        train.fit(model(), data, task=train.Classification(10, "balanced"), validation=0.2, log=None)
        for data in (Bare(), train.data.arrays(x, y))
    ]
    assert results[0].history.json() == results[1].history.json()


def test_integers_are_features_and_other_dtypes_follow_the_model() -> None:
    x, y = digits()
    results = []
    for features in ((16 * x).astype(np.uint8), 16 * x.astype(np.float64), 16 * x.astype(np.float16)):
        m = model()
        results.append(train.fit(m, (features, y), task=TASK, log=None).history.json())
        assert m.params["fc1.weight"].dtype == np.float32
    assert results[0] == results[1] == results[2]
    assert (train.predict(model(), (x, y)).dtype, train.predict(model(np.float64), (x, y)).dtype) == ("f4", "f8")


def test_an_array_alone_is_inputs() -> None:
    x, y = digits()
    assert (train.predict(model(), x) == train.predict(model(), (x, y))).all()
    for call in (lambda: train.evaluate(model(), x, TASK), lambda: train.fit(model(), x, task=TASK, log=None)):
        with pytest.raises(SpecError, match="no 'target' but inputs; give the targets"):
            call()
    for bad, message in ((x[:0], "no samples"), (np.array(1.0), "a single float64"), (x * np.nan, "sample 0 holds")):
        with pytest.raises(SpecError, match=message):
            train.predict(model(), bad)


def test_what_arrays_refuse() -> None:
    for options, message in (
        ({}, "no arrays"), ({"x": 3.0}, "a single float64"), ({"x": ["a", "b"]}, "values of <U1"),
        ({"x": [1.0, np.inf]}, "sample 1 holds"), ({"x": [1, 2], "sample_weight": [0, 0]}, "not all of them 0"),
        ({"x": [1, 2], "sample_weight": [1, -1]}, "from -1 to 1"), ({"x": [1, 2], "ids": [1]}, "different length"),
    ):  # fmt: skip
        with pytest.raises(SpecError, match=message):
            train.data.arrays(**options)


def test_history_as_csv_and_json(tmp_path: Path) -> None:
    result = train.fit(model(), digits(), task=TASK, validation=0.2, epochs=3, log=None)
    rows = list(csv.DictReader(io.StringIO(result.history.csv(tmp_path / "h.csv"))))
    assert (tmp_path / "h.csv").read_text() == result.history.csv()
    assert [float(row["val_loss"]) for row in rows] == [record["val_loss"] for record in result.history]
    assert list(rows[0]) == ["epoch", "step", "lr", "loss", "val_loss", "val_accuracy", "val_f1_macro"]
    found = json.loads(result.history.json(tmp_path / "h.json"))
    assert json.loads((tmp_path / "h.json").read_text()) == found
    assert (found["schema"], len(found["epochs"]), len(found["steps"]["loss"])) == ("weighttools.history/1", 3, 24)
    strange = train.History([{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "val_loss": 1.0}])
    assert json.loads(strange.json())["epochs"][0]["loss"] is None and strange.csv().splitlines()[2] == "2,,1.0"
    with pytest.raises(SourceError):
        result.history.csv(tmp_path / "no/h.csv")


@pytest.mark.parametrize("kind", ["csv", "json", "plot"])
def test_figures_that_do_not_fit_leave_the_ones_before(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, file = train.History([{"epoch": 1, "step": 1, "loss": 1.0}]), tmp_path / "h.png"
    write = {"csv": history.csv, "json": history.json, "plot": history.plot}[kind]
    write(tmp_path / "new.png")
    file.write_text("old")
    with monkeypatch.context() as patch:
        Fault("write", 0, os_error(errno.ENOSPC)).into(patch)
        with pytest.raises(SourceError, match="No space left on device; the target is as it was"):
            write(file)
    assert file.read_text() == "old" and {p.name for p in tmp_path.iterdir()} == {"h.png", "new.png"}
    write(file)
    assert file.read_bytes() == (tmp_path / "new.png").read_bytes()


def test_a_history_can_be_drawn(tmp_path: Path) -> None:
    result = train.fit(model(), digits(), task=TASK, validation=0.2, epochs=2, log=None)
    figure = result.history.plot(tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].get_lines()}
    assert list(lines["validation"]) == [record["val_loss"] for record in result.history]
    assert len(lines["batch"]) == 16

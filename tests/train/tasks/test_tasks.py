"""Tasks: metrics against scikit-learn, and sums that do not depend on how data are cut into batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from tests.train.digits import digits, model, run, start
from weighttools import train
from weighttools.errors import SpecError
from weighttools.train.fitting.evaluation import task_metrics
from weighttools.train.tasks.task import added

RNG = np.random.default_rng(5)
LOGITS, LABELS = RNG.standard_normal((83, 4)), RNG.integers(0, 3, 83)  # class 3 is never true
MASKED = np.where(RNG.random(83) < 0.3, -100, LABELS)
WEIGHTS = RNG.uniform(0, 2, 83)
BITS = (RNG.random((83, 3)) < 0.4).astype(np.float64)
VALUES = RNG.standard_normal((83, 2)) * (1, 50) + (0, 7)


def measured(task: Any, outputs: np.ndarray, size: int, **batch: Any) -> dict[str, float]:
    """The metrics by batches of `size`."""
    cuts = [slice(i, i + size) for i in range(0, len(outputs), size)]
    tallies = [task.tally(outputs[at], {k: v[at] for k, v in batch.items()}) for at in cuts]
    found: dict[str, float] = task.metrics(added(tallies))
    return found


@pytest.mark.parametrize("size", [83, 10, 1])
def test_classification_as_scikit_learn_measures_it(size: int) -> None:
    given = LOGITS.argmax(1)
    found = measured(train.Classification(4), LOGITS, size, target=LABELS)
    assert list(found) == ["loss", "accuracy", "f1_macro"]
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(LABELS, given))
    assert found["f1_macro"] == pytest.approx(metrics.f1_score(LABELS, given, average="macro"))
    theirs = metrics.log_loss(LABELS, np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True), labels=range(4))
    assert found["loss"] == pytest.approx(theirs)


@pytest.mark.parametrize("size", [83, 10, 1])
@pytest.mark.parametrize("weight", [WEIGHTS, np.where(LABELS == 1, 0.0, WEIGHTS)], ids=["any", "a class of weight 0"])
def test_sample_weights_count_in_every_figure_as_in_scikit_learn(size: int, weight: np.ndarray) -> None:
    given = np.where(LABELS == 1, 1, LOGITS.argmax(1) % 3)  # class 1 is always told right: its weight is all it has
    logits = np.eye(4)[given] * 3
    task = train.Classification(4, {0: 5.0})  # a class's weight is the loss's alone
    found = measured(task, logits, size, target=LABELS, sample_weight=weight)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(LABELS, given, sample_weight=weight))
    theirs = metrics.f1_score(LABELS, given, average="macro", sample_weight=weight, zero_division=0)
    assert found["f1_macro"] == pytest.approx(theirs)
    sums = task.tally(logits, {"target": LABELS, "sample_weight": weight})
    expected = metrics.confusion_matrix(LABELS, given, labels=range(4), sample_weight=weight)
    np.testing.assert_allclose(sums["confusion"], expected)


@pytest.mark.parametrize("size", [83, 9])
def test_sample_weights_of_answers_pairs_and_tokens(size: int) -> None:
    x = LOGITS[:, :3]
    found = measured(train.Binary(), x, size, target=BITS, sample_weight=WEIGHTS)
    scores = {"f1": metrics.f1_score, "precision": metrics.precision_score, "recall": metrics.recall_score}
    for name, score in scores.items():
        theirs = score(BITS, x >= 0, average="macro", zero_division=0, sample_weight=WEIGHTS)
        assert found[name] == pytest.approx(theirs)
    each = np.repeat(WEIGHTS, 3)
    theirs = metrics.accuracy_score(BITS.ravel() > 0.5, (x >= 0).ravel(), sample_weight=each)
    assert found["accuracy"] == pytest.approx(theirs)
    logits, target = RNG.standard_normal((83, 5, 4)), RNG.integers(0, 4, (83, 5))
    target[:, 3:] = -100
    found = measured(train.LanguageModel(), logits, size, target=target, sample_weight=WEIGHTS)
    tokens = target[:, :3].ravel(), logits[:, :3].argmax(-1).ravel()
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(*tokens, sample_weight=each))
    a, b = RNG.standard_normal((2, 83, 6))
    sign = np.where(RNG.random(83) < 0.5, 1, -1)
    task = train.Pairs("cosine")
    found = task.metrics(task.tally((a, b), {"target": sign, "sample_weight": WEIGHTS}))
    given = np.where(metrics.pairwise.paired_cosine_distances(a, b) < 1, 1, -1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(sign, given, sample_weight=WEIGHTS))


def test_python_measures_with_weights_too() -> None:
    x, y = digits()
    weight, m = np.linspace(0, 2, len(y)), model()
    data = train.data.arrays(x, y, sample_weight=weight)
    given = train.predict(m, (x, y)).argmax(1)
    found = train.evaluate(m, data, train.Classification(10), 64)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, given, sample_weight=weight))
    theirs = metrics.f1_score(y, given, average="macro", sample_weight=weight, zero_division=0)
    assert found["f1_macro"] == pytest.approx(theirs)


def test_the_confusion_matrix_as_scikit_learn_has_it() -> None:
    x, y = digits()
    m = model()
    _, sums = task_metrics(m, (x, y), train.Classification(10), 64)
    expected = metrics.confusion_matrix(y, train.predict(m, (x, y)).argmax(1), labels=range(10))
    assert (sums["confusion"] == expected).all()


@pytest.mark.parametrize("size", [83, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_weighted_losses_combine_to_what_torch_gives_for_all_at_once(size: int, weighted: bool) -> None:
    per_class = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    class_weight = dict(enumerate(per_class.tolist())) if weighted else None
    task = train.Classification(4, class_weight, label_smoothing=0.2)
    found = measured(task, LOGITS, size, target=MASKED)
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(LOGITS), torch.tensor(MASKED), weight=per_class if weighted else None, label_smoothing=0.2
    )
    assert found["loss"] == pytest.approx(theirs.item())
    kept = MASKED != -100
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(MASKED[kept], LOGITS[kept].argmax(1)))


@pytest.mark.parametrize("kind", [list, tuple, np.float64, np.float32])
def test_class_weights_as_a_sequence_are_those_of_torch(kind: Any) -> None:
    given = kind([0.5, 2.0, 1.0, 3.0])
    task = train.Classification(4, given)
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(LOGITS), torch.tensor(LABELS), weight=torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    )
    assert measured(task, LOGITS, 20, target=LABELS)["loss"] == pytest.approx(theirs.item())
    x, y = digits(60)
    weighted = train.Classification(10, kind(np.arange(1.0, 11.0)))
    by_name = train.Classification(10, {i: i + 1.0 for i in range(10)})
    found = [train.fit(model(), (x, y), task=t, log=None).history.json() for t in (weighted, by_name)]
    assert found[0] == found[1]


def test_binary_weights_may_be_an_array() -> None:
    x, y = digits(60)
    yes = (y < 2).astype(np.float64)
    m = [train.Model(lambda p, b: run(p, b)[:, 0], start()) for _ in range(2)]
    found = [train.fit(m[i], (x, yes), task=train.Binary(w), log=None) for i, w in enumerate((np.array([3.0]), 3.0))]
    assert found[0].history.json() == found[1].history.json()
    assert not train.Binary(np.array(1.0)).is_weighted and train.Binary([1.0, 2.0]).is_weighted


def test_balanced_weights_come_from_the_training_labels() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    task = train.Classification(4, "balanced").prepared(LABELS)
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(task.label_weights(LABELS), theirs[LABELS], rtol=1e-6)
    with pytest.raises(SpecError, match="need labels"):
        train.Classification(4, "balanced").loss(LOGITS, {"target": LABELS})
    with pytest.raises(SpecError, match="class weight 0"):
        train.Classification(4, {0: 0.0, 1: 0.0, 2: 0.0}).prepared(LABELS)


@pytest.mark.parametrize("size", [83, 9])
def test_binary_labels_as_scikit_learn_measures_them(size: int) -> None:
    x = LOGITS[:, :3]
    found = measured(train.Binary(pos_weight=(1.0, 2.0, 3.0)), x, size, target=BITS)
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0]))(torch.tensor(x), torch.tensor(BITS))
    assert found["loss"] == pytest.approx(loss.item())
    given = x >= 0
    for name, score in (
        ("f1", metrics.f1_score), ("precision", metrics.precision_score), ("recall", metrics.recall_score)
    ):  # fmt: skip
        assert found[name] == pytest.approx(score(BITS, given, average="macro", zero_division=0))
    assert found["accuracy"] == pytest.approx((given == BITS).mean())


def test_binary_takes_one_column_or_none_and_a_threshold() -> None:
    task = train.Binary(threshold=0.8)
    flat = measured(task, LOGITS[:, 0], 20, target=BITS[:, 0])
    assert measured(task, LOGITS[:, :1], 20, target=BITS[:, 0]) == flat
    yes = 1 / (1 + np.exp(-LOGITS[:, 0])) >= 0.8
    assert flat["recall"] == pytest.approx(metrics.recall_score(BITS[:, 0], yes))
    with pytest.raises(SpecError, match="from 0.0 to 2.0; expected 0 to 1"):
        task.loss(LOGITS[:, 0], {"target": 2 * BITS[:, 0]})


@pytest.mark.parametrize("error", ["mse", "mae", "huber"])
@pytest.mark.parametrize("size", [83, 11])
def test_regression_as_scikit_learn_measures_it(error: str, size: int) -> None:
    outputs = VALUES + RNG.standard_normal(VALUES.shape)
    found = measured(train.Regression(error), outputs, size, target=VALUES, sample_weight=WEIGHTS)
    scores = {"mse": metrics.mean_squared_error, "mae": metrics.mean_absolute_error, "r2": metrics.r2_score}
    for name, score in scores.items():
        assert found[name] == pytest.approx(score(VALUES, outputs, sample_weight=WEIGHTS))
    plain = measured(train.Regression(error), outputs, size, target=VALUES)
    for name, score in scores.items():
        assert plain[name] == pytest.approx(score(VALUES, outputs))
    theirs = {"mse": metrics.mean_squared_error, "mae": metrics.mean_absolute_error}.get(error)
    if theirs is not None:
        assert found["loss"] == pytest.approx(theirs(VALUES, outputs, sample_weight=WEIGHTS))
    else:
        each = torch.nn.functional.huber_loss(torch.tensor(outputs), torch.tensor(VALUES), reduction="none").numpy()
        assert found["loss"] == pytest.approx(np.average(each.mean(1), weights=WEIGHTS))


def test_a_column_of_outputs_serves_flat_targets() -> None:
    found = measured(train.Regression(), VALUES[:, :1] + 1, 20, target=VALUES[:, 0])
    assert found["mse"] == pytest.approx(1)
    with pytest.raises(SpecError, match="unknown|regression by"):
        train.Regression("rmse")


@pytest.mark.parametrize("size", [8, 3])
def test_language_models_count_tokens(size: int) -> None:
    logits, target = RNG.standard_normal((8, 5, 11)), RNG.integers(0, 11, (8, 5))
    target[np.arange(5)[None] >= RNG.integers(1, 6, 8)[:, None]] = -100  # ragged
    found = measured(train.LanguageModel(), logits, size, target=target)
    theirs = torch.nn.functional.cross_entropy(torch.tensor(logits).flatten(0, 1), torch.tensor(target).flatten())
    assert found["loss"] == pytest.approx(theirs.item())
    assert found["perplexity"] == pytest.approx(theirs.exp().item())
    kept = target != -100
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(target[kept], logits.argmax(-1)[kept]))


def test_pairs() -> None:
    a, b = RNG.standard_normal((2, 12, 6))
    target = np.where(RNG.random(12) < 0.5, 1, -1)
    found = measured(train.Pairs("cosine", margin=0.1), np.concatenate([a, b]), 24, target=target)
    theirs = torch.nn.functional.cosine_embedding_loss(*map(torch.tensor, (a, b, target)), margin=0.1)
    assert found["loss"] == pytest.approx(theirs.item())
    assert found["accuracy"] == pytest.approx(
        (np.sign(metrics.pairwise.paired_cosine_distances(a, b) - 0.9) == -target).mean()
    )
    scores = torch.nn.functional.cosine_similarity(torch.tensor(a)[:, None], torch.tensor(b)[None], dim=-1) / 0.05
    task = train.Pairs()
    tally = task.tally((a, b), {"ids": a})
    assert task.metrics(tally)["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(scores, torch.arange(12)).item()
    )
    assert task.metrics(tally)["accuracy"] == pytest.approx(
        (scores.argmax(1) == torch.arange(12)).double().mean().item()
    )


labels = st.lists(st.integers(0, 4), min_size=2, max_size=40)


@given(labels, st.integers(1, 12), st.booleans(), st.integers(0, 2**32 - 1))
def test_batches_of_any_size_give_the_same_metrics(y: list[int], size: int, focal: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs, target, weight = rng.standard_normal((len(y), 5)), np.array(y), rng.uniform(0.1, 2, len(y))
    task = train.Classification(5, {1: 2.0, 2: 0.0}, focal_gamma=2.0 if focal else None)
    if set(y) == {2}:
        return  # then nothing counts
    whole = measured(task, outputs, len(y), target=target, sample_weight=weight)
    assert measured(task, outputs, size, target=target, sample_weight=weight) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("task", "outputs", "batch"),
    [
        (train.Classification(4), LOGITS[:, :3], {"target": LABELS}),
        (train.Classification(4), LOGITS, {"target": LABELS[:-1]}),
        (train.Classification(4), LOGITS, {"target": LABELS + 3}),
        (train.Classification(4), LOGITS, {"target": LABELS, "sample_weight": WEIGHTS[:-1]}),
        (train.Regression(), VALUES, {"target": VALUES[:, :1]}),
        (train.Binary(), LOGITS, {"target": BITS}),
        (train.LanguageModel(), LOGITS[None], {"target": LABELS}),
        (train.Pairs(), LOGITS, {"ids": LABELS}),
        (train.Pairs(), LOGITS[:4], {"ids": LABELS[:2], "sample_weight": WEIGHTS[:2]}),
        (train.Classification(4), LOGITS, {"ids": LABELS}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(task: Any, outputs: np.ndarray, batch: Mapping[str, Any]) -> None:
    if isinstance(task, train.LanguageModel):
        batch = {"target": np.asarray(batch["target"])[:-1]}
    with pytest.raises(SpecError) as caught:
        task.loss(outputs, batch)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "make",
    [
        lambda: train.Classification(0), lambda: train.Classification(2, names=("a",)),
        lambda: train.Classification(2, label_smoothing=1.0), lambda: train.Pairs("triplet"),
        lambda: train.Classification(2, label_smoothing=0.1, focal_gamma=2.0),
        lambda: train.Classification(2, label_smoothing=-0.1), lambda: train.LanguageModel(1.0),
        lambda: train.Classification(2.0), lambda: train.Classification(2, [1.0, 2.0, 3.0]),
        lambda: train.Classification(2, 3.0), lambda: train.Classification(2, {1.0: 2.0}),
        lambda: train.optim.ema(1.5), lambda: train.optim.ema(1.0), lambda: train.optim.ema(-0.1), lambda: train.optim.ema("0.9"),
        lambda: train.Regression("huber", delta=-1.0), lambda: train.Regression("huber", delta=0),
        lambda: train.Binary(-2.0), lambda: train.Binary((1.0, -2.0)), lambda: train.Binary(float("inf")),
        lambda: train.Binary("heavy"), lambda: train.Binary(focal_gamma=2.0, focal_alpha=3.0),
        lambda: train.Binary(focal_alpha=-0.1), lambda: train.Binary(threshold=1.5), lambda: train.Binary(threshold=0),
        lambda: train.Classification("3"), lambda: train.Classification(2, names=5),
        lambda: train.Classification(2, label_smoothing="0.1"), lambda: train.Regression([]),
        lambda: train.Pairs(temperature=0.0), lambda: train.Pairs("cosine", margin=1.5),
    ],
)  # fmt: skip
def test_tasks_that_cannot_be(make: Any) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert str(caught.value).isprintable()


ANY: list[tuple[Any, Any]] = [
    (train.Classification(10), digits(20)[1]), (train.Binary(), np.zeros((20, 10))), (train.Regression(), np.zeros(20)),
    (train.LanguageModel(), digits(20)[1]), (train.Pairs(), np.ones(20)), (train.Pairs("cosine"), np.ones(20)),
]  # fmt: skip


@pytest.mark.parametrize("outputs", [None, 1.5, "logits", (1, 2, 3), [None, None]])
@pytest.mark.parametrize(("task", "y"), ANY)
def test_outputs_that_are_no_array_are_one_line(task: Any, y: np.ndarray, outputs: Any) -> None:
    m, data = train.Model(lambda p, batch: outputs, start()), (digits(20)[0], y)
    with pytest.raises(SpecError, match=f"^{task.name}: the model gave .*; expected one array of outputs"):
        train.fit(m, data, task=task, log=None)
    with pytest.raises(SpecError, match="the model gave"):
        train.evaluate(m, data, task)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64])
def test_labels_may_be_of_any_integers(dtype: Any) -> None:
    """20 classes squared are more than 8 bits count."""
    outputs, labels = RNG.standard_normal((50, 20)), RNG.integers(0, 20, 50)
    task = train.Classification(20)
    found = task.tally(outputs, {"target": labels.astype(dtype)})["confusion"]
    assert (found == metrics.confusion_matrix(labels, outputs.argmax(1), labels=range(20))).all()


def test_evaluating_nothing_is_an_error() -> None:
    x, y = digits(10)
    for data, message in (((x[:0], y[:0]), "no samples"), ((x, np.full(10, -100)), "no sample counts")):
        with pytest.raises(SpecError, match=message):
            train.evaluate(model(), data, train.Classification(10))
    with pytest.raises(SpecError, match="batch size of 0"):
        train.evaluate(model(), (x, y), train.Classification(10), batch_size=0)

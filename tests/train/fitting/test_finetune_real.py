"""Fine-tuning MiniLM on real sentences, with the mean of its states, against the same recipe in torch.

`test_finetuning` does so over three seeds, with the pooler that its classifiers have.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import weighttools as wt
from tests.train.fitting.test_fit import Recorded
from weighttools import train

pytestmark = pytest.mark.real
PARTS = ("cluster", "ensemble", "linear_model", "preprocessing")
FROZEN = ["embeddings.*", "re:^encoder\\.layer\\.[0-2]\\."]
STEPS, RATE = 16, 3e-4


@functools.cache
def sentences() -> list[tuple[str, str]]:
    """Return sentences of scikit-learn's documentation, and the part of it that each is about."""
    found: dict[str, set[str]] = {}
    for part in PARTS:
        module = importlib.import_module(f"sklearn.{part}")
        for name in module.__all__:
            doc = inspect.getdoc(getattr(module, name)) or ""
            for sentence in re.split(r"(?<=\.)\s+|\n\s*\n", doc.split("Attributes\n")[0]):
                words = " ".join(sentence.split())
                if 40 < len(words) < 140 and not re.search(r"\.\. |>>>|---|:class:", words):
                    found.setdefault(words, set()).add(part)
    rows = sorted((sentence, next(iter(parts))) for sentence, parts in found.items() if len(parts) == 1)
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[i] for i in order]


class Torch:
    """transformers' encoder, the mean of its states, and a linear layer, with the head's weights given."""

    def __init__(self, folder: Path, head: train.Model, trained: tuple[str, ...]) -> None:
        transformers.utils.logging.disable_progress_bar()
        self.body = transformers.BertModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.params = dict(self.body.named_parameters())
        self.params |= {n: torch.nn.Parameter(torch.tensor(head.params[n])) for n in head.added}
        for name, p in self.params.items():
            p.requires_grad_(name in trained)

    def __call__(self, batch: train.data.Batch) -> torch.Tensor:
        ids = torch.tensor(batch["ids"]).long()
        mask = torch.tensor(batch["mask"]) if "mask" in batch else torch.ones(ids.shape, dtype=torch.bool)
        states = self.body(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return mean @ self.params["classifier.weight"].T + self.params["classifier.bias"]

    def fit(self, batches: list[train.data.Batch]) -> list[float]:
        """Train with AdamW, a linear fall and clipping, as transformers' Trainer does."""
        learns = {n: p for n, p in self.params.items() if p.requires_grad}
        decays = [p for n, p in learns.items() if not re.search("bias|LayerNorm", n)]
        rest = [p for n, p in learns.items() if re.search("bias|LayerNorm", n)]
        optimizer = torch.optim.AdamW([{"params": decays}, {"params": rest, "weight_decay": 0.0}], RATE)
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, 4, len(batches))
        losses = []
        for batch in batches:
            loss = torch.nn.functional.cross_entropy(self(batch), torch.tensor(batch["target"]).long())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(learns.values()), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        return losses

    def labels(self, data: Any) -> np.ndarray:
        with torch.no_grad():
            parts = [self(data.batch(np.arange(i, min(i + 32, len(data))))).argmax(1) for i in range(0, len(data), 32)]
        return torch.cat(parts).numpy()


def tuned(minilm: Path, seed: int, **options: Any) -> tuple[train.Result, Recorded, Any, train.Model]:
    rows = sentences()
    own = train.data.text(rows[: 8 * STEPS], tokenizer=minilm, max_length=32)
    held_out = train.data.text(rows[-96:], tokenizer=minilm, names=own.names, max_length=32)
    data, model = Recorded(own), train.model(minilm, head=train.Classifier(len(PARTS), pooling="mean"))
    untrained = train.Model(model.run, {n: p.copy() for n, p in model.params.items()}, added=model.added)
    result = train.fit(
        model, data, task=train.Classification(len(PARTS)), validation=held_out, epochs=2, batch_size=16, seed=seed,
        clip_norm=1.0, keep="last", log=None, **options,
    )  # fmt: skip
    return result, data, held_out, untrained


def test_as_torch_tunes_it_and_better_than_with_a_frozen_body(minilm: Path, tmp_path: Path) -> None:
    optimizer = train.optim.adamw(train.schedules.warmup_linear(RATE, warmup=4))
    result, data, held_out, untrained = tuned(minilm, 0, freeze=FROZEN, optimizer=optimizer)
    theirs = Torch(minilm, untrained, result.trained)
    losses = theirs.fit([data.batch(at) for at in list(data.asked)])
    assert len(losses) == STEPS
    np.testing.assert_allclose(result.history.steps["loss"], losses, atol=2e-3)
    accuracy = float((theirs.labels(held_out) == held_out.target).mean())
    assert result.metrics["val_accuracy"] == pytest.approx(accuracy, abs=0.01)
    frozen, *_ = tuned(minilm, 0, only=["classifier.*"], optimizer=optimizer)
    assert result.metrics["val_accuracy"] > frozen.metrics["val_accuracy"] + 0.05
    assert result.metrics["val_loss"] < frozen.metrics["val_loss"]
    wt.save(tmp_path / "model.safetensors", result.tensor_map)
    (tmp_path / "config.json").write_bytes((minilm / "config.json").read_bytes())
    again = Torch(tmp_path, result.model, ())
    ours = train.predict(result.model, held_out)
    np.testing.assert_allclose(again(held_out.batch(np.arange(32))).detach(), ours[:32], atol=1e-4)

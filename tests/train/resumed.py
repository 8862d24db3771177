"""A training in a process of its own, to be killed: ``python -m tests.train.resumed DIRECTORY CASE``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.train.digits import digits, dropped, start
from weighttools import train

CASES: dict[str, dict[str, Any]] = {
    "adamw": {"clip_norm": 1.0, "accumulate": 2},
    "ema": {
        "average": train.optim.ema(0.9),
        "optimizer": train.optim.sgd(train.schedules.warmup_cosine(0.2, warmup=5), momentum=0.9),
    },
    "pruned": {"prune": train.gradual(0.8, every=3), "optimizer": train.optim.rmsprop(1e-3)},
    "pruned ema": {"prune": train.gradual(0.8, every=3), "average": train.optim.ema(0.9)},
    "pruned swa": {"prune": train.gradual(0.8, every=4, stop=1.0), "average": train.optim.swa()},
    "plateau": {
        "optimizer": train.optim.adafactor(train.schedules.Plateau(1e-2, patience=1, threshold=0.5)),
        "patience": 3,
    },
    "muon": {"optimizer": train.optim.muon(1e-2), "sampler": "weighted"},
}


def trained(case: str, directory: Path | None, log: Any = None) -> train.Result:
    """Train to the end, from the checkpoint if there is one."""
    x, y = digits()
    data = train.data.arrays(x, y, np.linspace(0.5, 1.5, len(y)))
    return train.fit(
        train.Model(dropped, start()), data, task=train.Classification(10, "balanced"), validation=0.2, epochs=6,
        batch_size=16, every=2, seed=3, state=directory, resume=directory is not None, log=log, **CASES[case],
    )  # fmt: skip


def state(result: train.Result) -> tuple[dict[str, bytes], str, str]:
    """Return all that must be the same: the weights' bits, the history, and why it stopped."""
    return {n: p.tobytes() for n, p in result.model.params.items()}, result.history.json(), result.stopped


if __name__ == "__main__":
    trained(sys.argv[2], Path(sys.argv[1]), lambda line: print(line, flush=True))

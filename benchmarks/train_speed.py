"""Training steps against torch eager: forward and backward of an MLP and of a MiniLM-sized BERT, and AdamW.

Each contestant runs in a process of its own, in turn; read the ratios. ``python benchmarks/train_speed.py [--small]``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

AIMS = {"mlp": "1.05, aim 0.95", "minilm": "1.05, aim 0.95", "adamw": "0.6 of torch's default"}
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return 0.02 * RNG.standard_normal(shape, np.float32)


def mlp_data() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    sizes = (784, 512, 512, 10)
    p = {f"{i}.weight": normal(o, n) for i, (n, o) in enumerate(pairwise(sizes))}
    p |= {f"{i}.bias": normal(o) for i, o in enumerate(sizes[1:])}
    return p, normal(128, 784), RNG.integers(0, 10, 128)


def mlp_ours() -> Callable[[], Any]:
    from weighttools import train
    from weighttools.train import models

    p, x, y = mlp_data()

    def loss(p: Any) -> Any:
        return train.cross_entropy(models.mlp(p, x, layers=["0", "1", "2"]), target=y)

    return lambda: train.value_and_grad(loss, p)


def mlp_torch() -> Callable[[], Any]:
    import torch

    p, x, y = mlp_data()
    t = {name: torch.tensor(a, requires_grad=True) for name, a in p.items()}
    tx, ty = torch.tensor(x), torch.tensor(y)

    def step() -> None:
        for tensor in t.values():
            tensor.grad = None
        h = tx
        for i in range(3):
            h = torch.nn.functional.linear(h if i == 0 else h.relu(), t[f"{i}.weight"], t[f"{i}.bias"])
        torch.nn.functional.cross_entropy(h, ty).backward()

    return step


def bert_config(small: bool) -> Any:
    from transformers import BertConfig

    size = {"hidden_size": 48, "num_hidden_layers": 2} if small else {"hidden_size": 384, "num_hidden_layers": 6}
    vocabulary = 1000 if small else 30522
    return BertConfig(vocab_size=vocabulary, num_attention_heads=12, intermediate_size=4 * size["hidden_size"], **size)


def bert_torch() -> Callable[[], Any]:
    import torch
    from transformers import BertModel

    config = bert_config("--small" in sys.argv)
    module = BertModel(config, add_pooling_layer=False).eval()
    ids = torch.tensor(RNG.integers(1, config.vocab_size, (32, 64)))

    def step() -> None:
        module.zero_grad()
        module(input_ids=ids).last_hidden_state.square().mean().backward()

    return step


def bert_ours() -> Callable[[], Any]:
    from weighttools import train
    from weighttools.train import models

    n, layers, vocabulary = (48, 2, 1000) if "--small" in sys.argv else (384, 6, 30522)
    p = {
        f"embeddings.{t}_embeddings.weight": normal(rows, n)
        for t, rows in (("word", vocabulary), ("position", 512), ("token_type", 2))
    }
    norms = ["embeddings", *(f"encoder.layer.{i}.{s}" for i in range(layers) for s in ("attention.output", "output"))]
    for at in norms:
        p |= {f"{at}.LayerNorm.weight": np.ones(n, np.float32), f"{at}.LayerNorm.bias": np.zeros(n, np.float32)}
    for at in (f"encoder.layer.{i}" for i in range(layers)):
        dense = {f"attention.self.{s}": (n, n) for s in ("query", "key", "value")} | {"attention.output.dense": (n, n)}
        for name, shape in (dense | {"intermediate.dense": (4 * n, n), "output.dense": (n, 4 * n)}).items():
            p |= {f"{at}.{name}.weight": normal(*shape), f"{at}.{name}.bias": normal(shape[0])}
    ids = RNG.integers(1, vocabulary, (32, 64))

    def loss(p: Any) -> Any:
        y = models.bert(p, ids, layers=layers, heads=12)
        return train.mean(y * y)

    return lambda: train.value_and_grad(loss, p)


def adamw_sizes() -> list[tuple[int, ...]]:
    return [(100, 100)] if "--small" in sys.argv else [(30522, 384), *[(1536, 384), (384, 1536), (384, 384)] * 6]


def adamw_ours() -> Callable[[], Any]:
    from weighttools import train

    p = {f"{i}.weight": normal(*s) for i, s in enumerate(adamw_sizes())}
    g = {name: normal(*a.shape) for name, a in p.items()}
    optimizer = train.adamw(1e-3)
    state = optimizer.init(p)
    return lambda: optimizer.step(p, g, state)


def adamw_torch() -> Callable[[], Any]:
    import torch

    tensors = [torch.tensor(normal(*s), requires_grad=True) for s in adamw_sizes()]
    for tensor in tensors:
        tensor.grad = torch.tensor(normal(*tensor.shape))
    return torch.optim.AdamW(tensors, 1e-3).step


WORKLOADS = {
    "mlp": (mlp_ours, mlp_torch),
    "minilm": (bert_ours, bert_torch),
    "adamw": (adamw_ours, adamw_torch),
}


def contestant(name: str, which: int) -> None:
    """Print the median seconds of a step and the process's peak memory in MiB."""
    import resource

    if which:
        import torch

        torch.set_num_threads(2)
    step = WORKLOADS[name][which]()
    from weighttools.train.memory import keep_pages

    times = []
    with nullcontext() if which else keep_pages():
        for _ in range(3 if "--small" in sys.argv else 9):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    print(median(times[2:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Run every workload, ours and torch's in turn."""
    for name in WORKLOADS:
        seconds: list[list[float]] = [[], []]
        peaks = [0.0, 0.0]
        for _ in range(1 if "--small" in sys.argv else 3):
            for which in (0, 1):
                command = [sys.executable, str(Path(__file__)), "--run", name, str(which), *sys.argv[1:]]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                seconds[which].append(float(out[-2]))
                peaks[which] = max(peaks[which], float(out[-1]))
                time.sleep(0.2)
        ratio = min(seconds[0]) / min(seconds[1])
        print(
            f"{name:8} ours / torch: {ratio:.2f} (must hold {AIMS[name]}); "
            f"{min(seconds[0]) * 1e3:.1f} ms, {min(seconds[1]) * 1e3:.1f} ms; "
            f"peak {peaks[0]:.0f} MiB, {peaks[1]:.0f} MiB"
        )


if __name__ == "__main__":
    if "--run" in sys.argv:
        at = sys.argv.index("--run")
        contestant(sys.argv[at + 1], int(sys.argv[at + 2]))
    else:
        main()
